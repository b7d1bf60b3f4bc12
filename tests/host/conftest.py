"""A real workspace, store and gateway, and an agent made of the generated stubs."""

import base64
import hashlib
import shutil
import ssl
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from host.device import Device, DeviceFacts, PowerSource, Runtime
from host.gateway.server import Listen, Pace, RunningGateway, start_in_thread
from host.measurement import (
    PRESETS,
    PROTOCOL,
    Block,
    Energy,
    EnergyRun,
    InputShape,
    Measurement,
    MeasureSpec,
    Memory,
    ModelRun,
    Phase,
    PowerSeries,
    Preflight,
    ProcessRun,
    Thermal,
    Verdict,
    VerifySpec,
)
from host.network.graph import InvalidNetworkError, Network
from host.pki import SERVER_NAME, Token
from host.spaces.base import SearchSpace, Task, sample
from host.store import Store
from host.workspace import STORE_FILE, GatewaySettings, Workspace
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from tests.host.postgresql import Server

RPC_SECONDS = 10.0
FACTS = DeviceFacts(
    hostname="line-3",
    machine="x86_64",
    pointer_bits=64,
    cpu_model="Intel(R) Core(TM)2 Duo",
    cpu_flags=("sse2", "ssse3"),
    cpu_cores_physical=None,
    cpu_cores_logical=2,
    ram_bytes=4_000_000_000,
    os_name="Debian 12",
    kernel="6.1",
    python_version="3.11.2",
    governor=None,
    temperature_celsius=41.5,
    cpu_max_hertz=2.4e9,
    runtimes=(
        Runtime("onnx", "onnxruntime", "1.23.2", works=True, why_not=""),
        Runtime("tflite", "tflite-runtime", "", works=False, why_not="not installed"),
    ),
    power_sources=(PowerSource("rapl", works=False, why_not="no powercap zone"),),
)


class FakeClock:
    """The host's clock, moved by hand."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def a_block(latency_seconds: tuple[float, ...], started: float = 0.0) -> Block:
    """A block of a quiet machine; without samples it is the closing one."""
    return Block(
        started_monotonic_seconds=started,
        lasted_seconds=sum(latency_seconds),
        canary_seconds=0.005,
        reference_seconds=(0.001, 0.0011, 0.001),
        reference_cpu_seconds=(0.001, 0.001, 0.001),
        latency_seconds=latency_seconds,
        cpu_seconds=tuple(latency * 0.99 for latency in latency_seconds),
        run_delay_seconds=(0.0,) * len(latency_seconds),
        involuntary_switches=0,
        steal_seconds=0.0,
    )


def a_process(latency_seconds: float, *, start_seconds: float = 0.0) -> ProcessRun:
    """A worker on a quiet machine; the median of its 62 samples is `latency_seconds`."""
    samples = tuple(latency_seconds * (1 + i / 10_000) for i in range(-15, 16))
    lasted = sum(samples)
    return ProcessRun(
        memory=Memory(50_000_000, 60_000_000, 70_000_000, uss_bytes=55_000_000),
        load_seconds=0.03,
        first_inference_seconds=0.02,
        warmup_runs=5,
        steady=True,
        runs_per_sample=1,
        call_overhead_seconds=5e-6,
        blocks=(
            a_block(samples, start_seconds),
            a_block(samples, start_seconds + lasted),
            a_block((), start_seconds + 2 * lasted),
        ),
    )


A_PREFLIGHT = Preflight(
    foreign_cpu=0.01,
    swapped_in_pages=0,
    free_ram_bytes=2_000_000_000,
    temperature_celsius=41.0,
    throttled=(),
    canary_seconds=0.005,
    waited_seconds=0.0,
)
AN_ENERGY = Energy(
    source="rapl",
    scope="package",
    kind="measured",
    gross_joules=0.05,
    gross_interval_joules=(0.049, 0.051),
    net_joules=0.03,
    net_interval_joules=(0.028, 0.032),
    power_watts=5.0,
    idle_watts=2.0,
    windows=5,
    inferences=5000,
    readings=1000,
    reading_hertz=20.0,
    lag_seconds=0.0,
)

OK = Verdict("OK")


def measured(
    device_id: str,
    model_sha256: str,
    latency_seconds: float = 0.010,
    *,
    verdict: Verdict = OK,
    energies: tuple[Energy, ...] = (AN_ENERGY,),
) -> Measurement:
    """A measurement of a quiet machine, with every kind of value that the store has to keep."""
    energy_run = EnergyRun(
        phases=(Phase("idle", 1.0, 2.0, 0), Phase("busy", 2.0, 3.0, 100)),
        series=(
            PowerSeries("rapl", "package", "measured", 100.0, (1.0, 3.0), energy_joules=(0.0, 7.0)),
        ),
        temperature_start_celsius=40.0,
        temperature_end_celsius=None,
        cpu_utilisation=0.5,
    )
    return Measurement(
        device_id=device_id,
        run=ModelRun(
            model_sha256,
            7,
            input_shapes=(InputShape("x", (1, 3, 32, 32)),),
            options=("graph=all",),
        ),
        plan=PRESETS["quick"].with_energy(paced_hertz=5.0),
        protocol=PROTOCOL,
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        runtime_options=("intra_op_num_threads=1",),
        cpus=(1,),
        preflight=A_PREFLIGHT,
        processes=(a_process(latency_seconds),),
        thermal=Thermal(start_celsius=40.0, throttle_events=0),
        governor="performance",
        load_average_start=0.25,
        energy_run=energy_run,
        energies=energies,
        energy_absent_because="" if energies else "no powercap zone",
        verdict=verdict,
        measured_at=datetime(2026, 11, 24, 9, 0, tzinfo=UTC),
    )


@dataclass
class Fleet:
    """Makes devices and jobs in a store without any gateway."""

    store: Store
    names: list[str] = field(default_factory=list)

    def device(self, name: str = "kiosk", spki_sha256: str | None = None) -> Device:
        secret = uuid.uuid4().hex
        self.store.devices.add_token(name, secret, self.store.now() + timedelta(hours=1))
        return self.store.devices.enrol(secret, spki_sha256 or uuid.uuid4().hex, FACTS)

    def run(self, model: bytes = b"a model") -> ModelRun:
        blob = self.store.blobs.put(model)
        return ModelRun(blob.sha256, blob.size_bytes)

    def spec(self, model: bytes = b"a model") -> MeasureSpec:
        return MeasureSpec(self.run(model))

    def verify_spec(self, max_output_bytes: int = 1000) -> VerifySpec:
        inputs = self.store.blobs.put(b"some inputs")
        return VerifySpec(self.run(), inputs.sha256, inputs.size_bytes, max_output_bytes)


class ScriptedAgent:
    """Does what a test says, over a real connection."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.session_id = uuid.uuid4().hex
        self.certificate_pem = b""
        self.ca_pem = b""
        self._channels: list[grpc.Channel] = []

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def csr_pem(self) -> bytes:
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return csr.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def enrol(self, token: Token, csr_pem: bytes | None = None) -> pb.EnrollReply:
        pem = ssl.get_server_certificate((token.host, token.enrolment_port))
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == token.ca_fingerprint
        credentials = grpc.ssl_channel_credentials(root_certificates=pem.encode())
        stub = pb_grpc.EnrolmentStub(self._channel(token.enrolment_port, credentials))
        reply = stub.Enroll(
            pb.EnrollRequest(
                token_secret=token.secret,
                csr_pem=self.csr_pem() if csr_pem is None else csr_pem,
                facts=facts_message(),
            ),
            timeout=RPC_SECONDS,
        )
        self.certificate_pem, self.ca_pem = reply.certificate_pem, reply.ca_pem
        return reply

    def fleet(self, port: int) -> pb_grpc.FleetStub:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self.ca_pem,
            private_key=self.key_pem,
            certificate_chain=self.certificate_pem,
        )
        return pb_grpc.FleetStub(self._channel(port, credentials))

    def hello(self, stub: pb_grpc.FleetStub) -> pb.HelloReply:
        return stub.Hello(
            pb.HelloRequest(
                protocol_min=2,
                protocol_max=2,
                agent_version="0.1.0",
                session_id=self.session_id,
                facts=facts_message(),
            ),
            timeout=RPC_SECONDS,
        )

    def claim(self, stub: pb_grpc.FleetStub) -> pb.ClaimReply:
        return stub.Claim(pb.ClaimRequest(session_id=self.session_id), timeout=RPC_SECONDS)

    def read(self, stub: pb_grpc.FleetStub, sha256: str, offset: int = 0) -> bytes:
        chunks = stub.ReadBlob(pb.BlobRequest(sha256=sha256, offset=offset), timeout=RPC_SECONDS)
        return b"".join(chunk.data for chunk in chunks)

    def write(
        self, stub: pb_grpc.FleetStub, lease: pb.Lease, data: bytes, chunk: int = 400
    ) -> pb.WriteBlobReply:
        parts = outputs_parts(lease, data, chunk)
        return stub.WriteBlob(iter(parts), timeout=RPC_SECONDS)

    def report(self, stub: pb_grpc.FleetStub, lease: pb.Lease) -> pb.ReportReply:
        return stub.Report(report_message(lease), timeout=RPC_SECONDS)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def _channel(self, port: int, credentials: grpc.ChannelCredentials) -> grpc.Channel:
        options = (
            ("grpc.ssl_target_name_override", SERVER_NAME),
            ("grpc.enable_http_proxy", 0),
        )
        channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
        self._channels.append(channel)
        return channel


def facts_message() -> pb.DeviceFacts:
    return pb.DeviceFacts(
        hostname="line-3\x1b[31m",
        machine="x86_64",
        pointer_bits=64,
        cpu_model="Intel(R) Core(TM)2 Duo",
        cpu_flags=["sse2"],
        cpu_cores_logical=2,
        ram_bytes=4_000_000_000,
        os_name="Debian 12",
        kernel="6.1",
        python_version="3.11.2",
        temperature_celsius=41.5,
        runtimes=[
            pb.RuntimeFacts(name="onnx", library="onnxruntime", version="1.23.2", works=True)
        ],
        power_sources=[pb.PowerSourceFacts(name="rapl", why_not="no powercap zone")],
    )


def outputs_parts(lease: pb.Lease, data: bytes, chunk: int = 400) -> list[pb.BlobPart]:
    """The outputs of a verify job as an agent sends them."""
    digest = hashlib.sha256(data).hexdigest()
    return [
        pb.BlobPart(
            lease_id=lease.lease_id, sha256=digest, offset=start, data=data[start : start + chunk]
        )
        for start in range(0, len(data), chunk)
    ]


def ticks(seconds: Sequence[float]) -> list[int]:
    """Differences between neighbours, the first against 0, in units of 100 ns."""
    values = [round(value * 1e7) for value in seconds]
    return [after - before for before, after in zip([0, *values], values, strict=False)]


def preflight_message() -> pb.Preflight:
    return pb.Preflight(
        foreign_cpu=0.01,
        swapped_in_pages=0,
        free_ram_bytes=2_000_000_000,
        temperature_celsius=41.0,
        canary_seconds=0.005,
    )


def block_message(latency_seconds: Sequence[float]) -> pb.Block:
    return pb.Block(
        latency_ticks=ticks(latency_seconds),
        cpu_ticks=ticks(latency_seconds),
        run_delay_ticks=ticks([0.0] * len(latency_seconds)),
        reference_ticks=ticks([0.001, 0.0011, 0.001]),
        reference_cpu_ticks=ticks([0.001] * 3),
        canary_seconds=0.005,
        started_monotonic_seconds=100.0,
        lasted_seconds=1.0,
    )


def samples_message() -> pb.MeasuredSamples:
    """30 samples in two blocks and a closing one, of a quiet machine without a power source."""
    return pb.MeasuredSamples(
        protocol=PROTOCOL,
        runtime="onnx",
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        threads=1,
        cpus=[1],
        preflight=preflight_message(),
        processes=[
            pb.ProcessRun(
                memory=pb.Memory(
                    base_rss_bytes=50_000_000,
                    load_rss_bytes=60_000_000,
                    peak_rss_bytes=70_000_000,
                ),
                load_seconds=0.03,
                first_inference_seconds=0.02,
                warmup_runs=5,
                steady=True,
                runs_per_sample=1,
                call_overhead_seconds=5e-6,
                blocks=[
                    block_message([0.010 + i / 1e6 for i in range(15)]),
                    block_message([0.010 - i / 1e6 for i in range(15)]),
                    block_message([]),
                ],
            )
        ],
        thermal=pb.Thermal(start_celsius=40.0),
        load_average_start=0.1,
        energy_absent_because="no powercap zone",
    )


def report_message(lease: pb.Lease) -> pb.ReportRequest:
    return pb.ReportRequest(
        job_id=lease.job_id,
        attempt=lease.attempt,
        idempotency_key=f"{lease.job_id}:{lease.attempt}",
        measured=samples_message(),
    )


@dataclass
class ConnectedDevice:
    """An enrolled agent with an open session, and its device in the store."""

    agent: ScriptedAgent
    stub: pb_grpc.FleetStub
    device: Device


@pytest.fixture
def random_networks() -> Callable[[SearchSpace, int], list[Network]]:
    """Draws networks of a space for small colour images; the same ones every time."""

    def draw(space: SearchSpace, count: int) -> list[Network]:
        rng = np.random.default_rng(7)
        networks: list[Network] = []
        while len(networks) < count:
            try:
                networks.append(space.build(sample(space, rng), Task(channels=3, classes=5)))
            except InvalidNetworkError:
                continue
        return networks

    return draw


@pytest.fixture
def device_facts() -> DeviceFacts:
    """What a panel PC with onnxruntime says of itself."""
    return FACTS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def workspace_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untouched workspace to be copied: far faster than making the schema anew."""
    root = tmp_path_factory.mktemp("template") / "plant"
    return Workspace.create(root, GatewaySettings(address="127.0.0.1")).root


@pytest.fixture
def workspace(tmp_path: Path, workspace_template: Path) -> Workspace:
    return Workspace.open(shutil.copytree(workspace_template, tmp_path / "plant"))


@pytest.fixture
def store_place(workspace: Workspace) -> str | Path:
    """Where the store is; the tests of the store have PostgreSQL here as well."""
    return workspace.root / STORE_FILE


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest) -> Iterator["Server"]:
    """A PostgreSQL server of the tests' own; without one its tests are skipped."""
    pytest.importorskip("psycopg", reason="genba[postgres] is not installed")
    from tests.host.postgresql import NoPostgresqlError, running_server

    packages = request.config.rootpath / ".pytest_cache" / "postgresql"
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_server(packages))
        except NoPostgresqlError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def postgresql_template(
    postgresql_server: "Server", tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name of a database that nobody uses but to copy it: an empty store."""
    name = "genba_template"
    postgresql_server.create(name)
    url = postgresql_server.url(name)
    Store.open(url, blobs_folder=tmp_path_factory.mktemp("postgresql")).close()
    return name


@pytest.fixture
def postgresql_url(postgresql_server: "Server", postgresql_template: str) -> Iterator[str]:
    """The address of an empty store in a database of this test's own."""
    name = f"genba_{uuid.uuid4().hex}"
    postgresql_server.create(name, postgresql_template)
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture
def store(workspace: Workspace, store_place: str | Path, clock: FakeClock) -> Iterator[Store]:
    with Store.open(store_place, blobs_folder=workspace.blobs_folder, now=clock) as opened:
        yield opened


@pytest.fixture
def fleet(store: Store) -> Fleet:
    return Fleet(store)


@pytest.fixture
def make_measurement() -> Callable[..., Measurement]:
    return measured


@cache
def made_up_models(
    threads: int, slowness: float, watts: float | None, without: str | None
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Cost models fitted on made-up figures of real networks, and their examples."""
    from cost_models.energy import EnergyModel, PowerModel
    from cost_models.latency import LatencyModel
    from cost_models.memory import PeakMemoryModel
    from host.calibration.micrographs import micrographs
    from host.calibration.specimens import Specimen, mobile_candidates
    from host.calibration.stored import Example

    drawn: list[Specimen] = [*micrographs()[::10], *mobile_candidates(6, seed=5)]
    networks = [
        one for one in drawn if without not in {kernel.kind for kernel in one.kernels.kernels}
    ]
    graphs = [one.kernels for one in networks]
    rng = np.random.default_rng(0)
    latency = LatencyModel(threads=threads)
    models: list[Any] = [latency, PeakMemoryModel()]
    for model in models:
        rows = model.features(graphs)
        rates = np.array([model.nominal_rates.get(unit, 0.0) for _, unit in model.columns])
        model.fit_rows(rows, rows @ rates * slowness * np.exp(rng.normal(0, 0.03, len(rows))))
    if watts is not None:
        energy, power = EnergyModel(latency), PowerModel(latency)
        models.append(energy.fit(graphs, watts * latency.measured_values))
        models.append(power.fit(graphs, np.full(len(graphs), watts)))
    examples = [
        Example(one.name, hashlib.sha256(one.model_bytes()).hexdigest(), number)
        for number, one in enumerate(networks, start=1)
    ]
    return tuple(models), tuple(examples)


@pytest.fixture
def fit_models() -> Callable[..., None]:
    """Stores cost models of a device, with those of power and energy where there are `watts`; no
    network that they were fitted on has a kernel of the class `without`.
    """
    from host.calibration.setting import Setting
    from host.calibration.stored import keep

    def fit(
        store: Store,
        device_id: str,
        setting: Setting,
        *,
        slowness: float = 1.0,
        watts: float | None = None,
        without: str | None = None,
    ) -> None:
        models, examples = made_up_models(setting.threads, slowness, watts, without)
        for model in models:
            source = "rapl" if model.quantity in {"energy_joules", "power_watts"} else ""
            keep(store, device_id, setting, model, examples, source=source)

    return fit


@pytest.fixture
def gateway(workspace: Workspace, store: Store) -> Iterator[RunningGateway]:
    running = start_in_thread(workspace, store, Listen("127.0.0.1", 0, 0), Pace(poll_seconds=0.02))
    yield running
    running.stop()


@pytest.fixture
def make_agent() -> Iterator[Callable[[], ScriptedAgent]]:
    agents: list[ScriptedAgent] = []

    def make() -> ScriptedAgent:
        agents.append(ScriptedAgent())
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


@pytest.fixture
def make_token(
    workspace: Workspace, store: Store, gateway: RunningGateway
) -> Callable[[str], Token]:
    def make(name: str) -> Token:
        token = Token.make("127.0.0.1", gateway.enrolment_port, workspace.authority().fingerprint)
        store.devices.add_token(name, token.secret_sha256, store.now() + timedelta(hours=1))
        return token

    return make


@pytest.fixture
def connect(
    store: Store,
    gateway: RunningGateway,
    make_agent: Callable[[], ScriptedAgent],
    make_token: Callable[[str], Token],
) -> Callable[[str], ConnectedDevice]:
    def connected(name: str) -> ConnectedDevice:
        agent = make_agent()
        reply = agent.enrol(make_token(name))
        stub = agent.fleet(reply.gateway_port)
        agent.hello(stub)
        return ConnectedDevice(agent, stub, store.devices.by_name(name))

    return connected


@pytest.fixture
def report_of() -> Callable[[pb.Lease], pb.ReportRequest]:
    return report_message


@pytest.fixture
def make_samples() -> Callable[[], pb.MeasuredSamples]:
    return samples_message
