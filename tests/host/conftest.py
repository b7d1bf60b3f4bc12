"""A real workspace, store and gateway, and an agent made of the generated stubs."""

import base64
import hashlib
import math
import os
import ssl
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import create_engine, text

from host.device import Device, DeviceFacts, PowerSource, Runtime
from host.gateway.server import Listen, Pace, RunningGateway, start_in_thread
from host.measurement import PROTOCOL, Measurement, MeasureSpec, Power
from host.network.graph import DeadNetworkError, Network
from host.pki import SERVER_NAME, Token
from host.spaces.base import SearchSpace, Task, sample
from host.store import Store
from host.workspace import STORE_FILE, GatewaySettings, Workspace
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as pb_grpc

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


def measured(device_id: str, model_sha256: str, median_seconds: float = 0.010) -> Measurement:
    return Measurement(
        device_id=device_id,
        model_sha256=model_sha256,
        protocol=PROTOCOL,
        runtime="onnx",
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        threads=1,
        latency_samples_seconds=tuple(median_seconds * (1 + i / 1000) for i in range(-15, 16)),
        runs_per_sample=1,
        warmup_runs=5,
        load_seconds=0.03,
        first_inference_seconds=0.02,
        base_rss_bytes=50_000_000,
        load_rss_bytes=60_000_000,
        peak_rss_bytes=70_000_000,
        power=Power("rapl", "package", "measured", 5.0, 2.0, 100),
        power_absent_because="",
        temperature_start_celsius=40.0,
        temperature_end_celsius=None,
        governor="performance",
        load_average_start=0.25,
        runtime_options=("intra_op_num_threads=1",),
        cpu_seconds=math.pi,
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

    def spec(self, model: bytes = b"a model") -> MeasureSpec:
        blob = self.store.blobs.put(model)
        return MeasureSpec(model_sha256=blob.sha256, model_size_bytes=blob.size_bytes)


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
                protocol_min=1,
                protocol_max=1,
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


def report_message(lease: pb.Lease) -> pb.ReportRequest:
    return pb.ReportRequest(
        job_id=lease.job_id,
        attempt=lease.attempt,
        idempotency_key=f"{lease.job_id}:{lease.attempt}",
        measured=pb.MeasuredSamples(
            protocol=PROTOCOL,
            runtime="onnx",
            runtime_library="onnxruntime",
            runtime_version="1.23.2",
            threads=1,
            latency_seconds=[0.010 + i / 1e5 for i in range(30)],
            runs_per_sample=1,
            warmup_runs=5,
            load_seconds=0.03,
            first_inference_seconds=0.02,
            base_rss_bytes=50_000_000,
            load_rss_bytes=60_000_000,
            peak_rss_bytes=70_000_000,
            power_absent_because="no powercap zone",
            load_average_start=0.1,
        ),
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
            except DeadNetworkError:
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


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "plant", GatewaySettings(address="127.0.0.1"))


@pytest.fixture
def store_place(workspace: Workspace) -> str | Path:
    """The workspace's SQLite file, or the emptied database of GENBA_TEST_STORE_URL."""
    url = os.environ.get("GENBA_TEST_STORE_URL")
    if url is None:
        return workspace.root / STORE_FILE
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


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
