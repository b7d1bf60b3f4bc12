"""A host that follows a script, made of the generated stubs over real mTLS; and small models."""

# ruff: noqa: N802 - gRPC names methods as the proto does, and its settings precede its import
from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import hashlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

# Workers are started by exec alone; without this, grpc's fork handlers run on Python 3.9.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import pytest

from device_agent.sensors.mailbox import Mailbox
from device_agent.state import Home, Identity
from device_agent.surroundings import Surroundings
from device_agent.system import Roots
from device_agent.work import (
    PROTOCOL,
    Block,
    EnergyRun,
    Lease,
    MeasuredSamples,
    MeasureSpec,
    Memory,
    ModelRun,
    Phase,
    PhaseKind,
    Plan,
    PowerSeries,
    Preflight,
    ProbeSpec,
    ProcessRun,
    ProfileSpec,
    Readiness,
    Spec,
    Thermal,
    VerifySpec,
)
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as rpc

CHUNK_BYTES = 256 * 1024
DEVICE_ID = "0123abcd"


@dataclass
class Authority:
    """A certificate authority as the host has one: its own certificate also serves enrolment."""

    key: Any
    certificate: Any

    @property
    def ca_pem(self) -> bytes:
        from cryptography.hazmat.primitives import serialization

        return bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def fingerprint(self) -> str:
        from cryptography.hazmat.primitives import serialization

        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")

    @property
    def key_pem(self) -> bytes:
        return key_to_pem(self.key)

    def sign_lease(self, lease: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return bytes(self.key.sign(b"genba-lease/1\n" + lease, ec.ECDSA(hashes.SHA256())))

    def issue(self, public_key: Any, common_name: str) -> bytes:
        from cryptography.hazmat.primitives import hashes, serialization

        builder = _certificate(common_name, self.certificate.subject, public_key, ca=False)
        return bytes(
            builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )


def _certificate(common_name: str, issuer: Any, public_key: Any, *, ca: bool) -> Any:
    from cryptography import x509

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    usage = {
        "digital_signature": True,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": ca,
        "crl_sign": ca,
        "encipher_only": False,
        "decipher_only": False,
    }
    utc = dt.timezone.utc
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(1970, 1, 1, tzinfo=utc))
        .not_valid_after(dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=utc))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("genba-host")]), critical=False)
    )


def key_to_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def new_authority() -> Authority:
    from cryptography.hazmat.primitives import hashes

    key = new_key()
    builder = _certificate("genba test CA", None, key.public_key(), ca=True)
    return Authority(key, builder.sign(key, hashes.SHA256()))


class ScriptedHost(rpc.FleetServicer, rpc.EnrolmentServicer):
    """Answers as the test tells it to, and remembers what it was asked."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.secret = "the-secret"
        self.waiting: list[pb.Lease] = []
        self.sign: Callable[[bytes], Any] = self.signed
        self.protocols = (3, 3)
        self.stored: dict[str, pb.ReportRequest] = {}
        self.lose_one_acknowledgement = False
        self.busy_claims = 0
        self.answered_protocol: int | None = None
        self.chunk_pause_seconds = 0.0
        # As host/gateway/server.py has it.
        self.min_ping_seconds = 20.0
        self.blobs: dict[str, bytes] = {}
        self.events: queue.Queue[pb.Event | None] = queue.Queue()
        self.cancel_on_renew: set[str] = set()
        self.refuse_hello: tuple[grpc.StatusCode, str] | None = None
        self.refuse_watch: tuple[grpc.StatusCode, str] | None = None
        self.refuse_one_claim: tuple[grpc.StatusCode, str] | None = None
        self.refuse_report: tuple[grpc.StatusCode, str] | None = None
        self.cut_blob_after: int | None = None
        self.blob_refusal: tuple[grpc.StatusCode, str] | None = None
        self.stored_already = False
        self.enrolments: list[pb.EnrollRequest] = []
        self.hellos: list[pb.HelloRequest] = []
        self.blob_requests: list[tuple[str, int]] = []
        self.renewals: list[str] = []
        self.renewed_at: list[float] = []
        self.reports: list[pb.ReportRequest] = []
        self.uploads: list[tuple[str, str, bytes]] = []
        self.upload_parts: list[int] = []
        self.refuse_one_upload: tuple[grpc.StatusCode, str] | None = None
        self.watching = threading.Event()
        self.gateway_port = 0
        self.enrolment_port = 0
        self._servers: list[grpc.Server] = []

    def start(self) -> None:
        """Listen; after a stop, on the same ports as before."""
        server_key = new_key()
        leaf = self.authority.issue(server_key.public_key(), "genba gateway")
        gateway = grpc.ssl_server_credentials(
            [(key_to_pem(server_key), leaf)], self.authority.ca_pem, require_client_auth=True
        )
        enrolment = grpc.ssl_server_credentials([(self.authority.key_pem, self.authority.ca_pem)])
        self.gateway_port = self._serve(rpc.add_FleetServicer_to_server, gateway, self.gateway_port)
        self.enrolment_port = self._serve(
            rpc.add_EnrolmentServicer_to_server, enrolment, self.enrolment_port
        )

    def stop(self) -> None:
        self.events.put(None)
        for server in self._servers:
            server.stop(0).wait(5)
        self._servers.clear()
        self.watching.clear()
        self.events = queue.Queue()

    def _serve(self, register: Any, credentials: Any, port: int) -> int:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.min_ping_seconds * 1e3)),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
        register(self, server)
        bound = int(server.add_secure_port(f"127.0.0.1:{port}", credentials))
        server.start()
        self._servers.append(server)
        return bound

    @property
    def token(self) -> str:
        address = f"127.0.0.1:{self.enrolment_port}"
        return f"genba1/{address}/{self.authority.fingerprint}/{self.secret}"

    def offer(
        self, model: bytes, *, announced_sha256: str = "", lease_seconds: float = 60.0, **spec: Any
    ) -> Lease:
        """Queue a measurement of this model; the lease as the agent will see it."""
        sha256 = announced_sha256 or hashlib.sha256(model).hexdigest()
        run = dataclasses.replace(QUICK_RUN, model_sha256=sha256, model_size_bytes=len(model))
        quick = MeasureSpec(PROTOCOL, run, QUICK_READINESS, QUICK_PLAN, timeout_seconds=60.0)
        asked = dataclasses.replace(quick, **spec)
        return self.offer_spec(asked, {sha256: model}, lease_seconds=lease_seconds)

    def offer_spec(
        self, spec: Spec, blobs: dict[str, bytes], *, lease_seconds: float = 60.0
    ) -> Lease:
        """Queue any job with its files."""
        self.blobs.update(blobs)
        number = len(self.reports) + len(self.waiting) + 1
        lease = Lease(f"lease-{number}", f"job-{number}", 1, lease_seconds, spec)
        self.waiting.append(lease_message(lease))
        self.events.put(pb.Event(kind=pb.Event.KIND_JOB_READY))
        return lease

    def wait_for_reports(self, count: int, seconds: float = 30.0) -> list[pb.ReportRequest]:
        wait_until(lambda: len(self.reports) >= count, seconds)
        return self.reports

    def Enroll(self, request: Any, context: Any) -> Any:
        from cryptography import x509

        self.enrolments.append(request)
        if request.token_secret != self.secret:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "this token was used already")
        public_key = x509.load_pem_x509_csr(request.csr_pem).public_key()
        return pb.EnrollReply(
            device_id=DEVICE_ID,
            device_name="press-3",
            certificate_pem=self.authority.issue(public_key, DEVICE_ID),
            ca_pem=self.authority.ca_pem,
            gateway_port=self.gateway_port,
        )

    def Hello(self, request: Any, context: Any) -> Any:
        self.hellos.append(request)
        if self.refuse_hello is not None:
            context.abort(*self.refuse_hello)
        low, high = self.protocols
        if request.protocol_min > high or request.protocol_max < low:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the agent speaks protocol {request.protocol_min} to {request.protocol_max}, this"
                f" host {low} to {high}: update the older of the two",
            )
        protocol = self.answered_protocol or min(request.protocol_max, high)
        return pb.HelloReply(protocol=protocol, host_version="0.1.0", device_name="press-3")

    def signed(self, lease: bytes) -> Any:
        return pb.SignedLease(lease=lease, signature=self.authority.sign_lease(lease))

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self.watching.set()
        if self.waiting:
            yield pb.Event(kind=pb.Event.KIND_JOB_READY)
        events = self.events
        while context.is_active():
            if self.refuse_watch is not None:
                context.abort(*self.refuse_watch)
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=0.1)
                if event is None:
                    return
                yield event

    def Claim(self, request: Any, context: Any) -> Any:
        refusal, self.refuse_one_claim = self.refuse_one_claim, None
        if refusal is not None:
            context.abort(*refusal)
        if self.busy_claims:
            self.busy_claims -= 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many devices ask at once")
        if not self.waiting:
            return pb.ClaimReply()
        lease = self.waiting.pop(0)
        return pb.ClaimReply(lease=lease, signed=self.sign(lease.SerializeToString()))

    def Renew(self, request: Any, context: Any) -> Any:
        self.renewed_at.append(time.monotonic())
        self.renewals.append(request.lease_id)
        return pb.RenewReply(cancel=request.lease_id in self.cancel_on_renew, lease_seconds=60.0)

    def ReadBlob(self, request: Any, context: Any) -> Iterator[Any]:
        self.blob_requests.append((request.sha256, request.offset))
        if self.blob_refusal is not None:
            context.abort(*self.blob_refusal)
        data = self.blobs[request.sha256]
        cut, self.cut_blob_after = self.cut_blob_after, None
        for offset in range(request.offset, len(data), CHUNK_BYTES):
            if cut is not None and offset >= cut:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the link broke")
            time.sleep(self.chunk_pause_seconds)
            yield pb.Chunk(offset=offset, data=data[offset : offset + CHUNK_BYTES])

    def WriteBlob(self, parts: Any, context: Any) -> Any:
        refusal, self.refuse_one_upload = self.refuse_one_upload, None
        data = b""
        first = None
        for part in parts:
            first = first or part
            assert part.offset == len(data)
            assert (part.lease_id, part.sha256) == (first.lease_id, first.sha256)
            self.upload_parts.append(len(part.data))
            data += part.data
            if refusal is not None:
                context.abort(*refusal)
        assert first is not None
        self.uploads.append((first.lease_id, first.sha256, data))
        return pb.WriteBlobReply(size_bytes=len(data))

    def Report(self, request: Any, context: Any) -> Any:
        self.reports.append(request)
        if self.refuse_report is not None:
            context.abort(*self.refuse_report)
        is_new = self.stored.setdefault(request.idempotency_key, request) is request
        if self.lose_one_acknowledgement:
            self.lose_one_acknowledgement = False
            context.abort(grpc.StatusCode.UNAVAILABLE, "the link broke")
        return pb.ReportReply(stored=is_new and not self.stored_already)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)


QUICK_RUN = ModelRun(model_sha256="0" * 64, model_size_bytes=0, runtime="onnx", threads=1)
# Tests run on busy machines.
QUICK_READINESS = Readiness(
    observe_seconds=0.05,
    max_foreign_cpu=1.0,
    min_free_ram_bytes=0,
    max_start_celsius=None,
    wait_seconds=0.0,
    measure_when_busy=True,
)
QUICK_PLAN = Plan(
    processes=1,
    warmup_runs=2,
    warmup_seconds=0.0,
    min_blocks=2,
    block_runs=5,
    block_seconds=0.5,
    min_samples=5,
    half_width=1.0,
    budget_seconds=5.0,
    energy_windows=0,
    energy_window_seconds=0.0,
)
_TASKS = {
    MeasureSpec: "measure",
    VerifySpec: "verify",
    ProfileSpec: "profile",
    ProbeSpec: "probe",
}


def lasting(seconds: float) -> Plan:
    """A plan that takes so long at least."""
    return dataclasses.replace(
        QUICK_PLAN, min_blocks=5, block_runs=1_000_000, block_seconds=seconds / 5
    )


def message(value: Any) -> Any:
    """The message of the same name, with fields of the same names."""
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return getattr(pb, type(value).__name__)(**{name: _field(v) for name, v in fields.items()})


def _field(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return message(value)
    return [_field(item) for item in value] if isinstance(value, tuple) else value


def lease_message(lease: Lease) -> pb.Lease:
    return pb.Lease(
        lease_id=lease.id,
        job_id=lease.job_id,
        attempt=lease.attempt,
        lease_seconds=lease.seconds,
        device_id=DEVICE_ID,
        **{_TASKS[type(lease.spec)]: message(lease.spec)},
    )


@pytest.fixture(scope="session")
def authority() -> Authority:
    pytest.importorskip("cryptography")
    return new_authority()


@pytest.fixture(scope="session")
def another_authority() -> Authority:
    pytest.importorskip("cryptography")
    return new_authority()


@pytest.fixture
def host(authority: Authority) -> Iterator[ScriptedHost]:
    scripted = ScriptedHost(authority)
    scripted.start()
    yield scripted
    scripted.stop()


@pytest.fixture
def enrolled(host: ScriptedHost, tmp_path: Path) -> Home:
    """A home that was enrolled with the scripted host."""
    key = new_key()
    home = Home(tmp_path / "home")
    home.create()
    home.save_identity(
        Identity(
            device_id=DEVICE_ID,
            device_name="press-3",
            host="127.0.0.1",
            gateway_port=host.gateway_port,
            key_pem=key_to_pem(key),
            certificate_pem=host.authority.issue(key.public_key(), DEVICE_ID),
            ca_pem=host.authority.ca_pem,
        )
    )
    return home


@dataclass
class AgentProcess:
    """A real agent in a process of its own."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def end(self) -> tuple[int, str]:
        """Wait for its end by itself; the exit code and all that it said."""
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


@pytest.fixture
def start_agent(enrolled: Home) -> Iterator[Callable[..., AgentProcess]]:
    """Start `genba-agent run` in the enrolled home."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> AgentProcess:
        command = [sys.executable, "-m", "device_agent", "run", "--home", str(enrolled.path)]
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return AgentProcess(process)

    yield start
    for process in started:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class SmallDisk:
    """A disk of 8 MiB in `folder`, which only the processes behind `before` see."""

    folder: Path

    @property
    def before(self) -> list[str]:
        """What to put before a command."""
        mount = f'mount -t tmpfs -o size=8M small "{self.folder}" && exec "$@"'
        return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]

    def run(self, script: str) -> list[str]:
        """Run a script that knows the folder as DISK; the lines that it printed."""
        text = f"from pathlib import Path\nDISK = Path({str(self.folder)!r})\n{script}"
        command = [*self.before, sys.executable, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def small_disk(tmp_path: Path) -> SmallDisk:
    """A small disk, or a skip where nobody may mount a file system of his own."""
    made = SmallDisk(tmp_path / "disk")
    made.folder.mkdir()
    try:
        subprocess.run([*made.before, "true"], capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets nobody mount a file system of his own: {error}")
    return made


@pytest.fixture(scope="session")
def make_model() -> Callable[..., bytes]:
    """A small ONNX model; `pad_bytes` of weights make the file longer."""
    onnx = pytest.importorskip("onnx")
    helper, float_type = onnx.helper, onnx.TensorProto.FLOAT

    def make(
        shape: tuple[Any, ...] = (1, 8), pad_bytes: int = 0, input_type: int = float_type
    ) -> bytes:
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        weights = []
        if pad_bytes:
            weights = [
                helper.make_tensor(
                    "w", onnx.TensorProto.UINT8, [pad_bytes], os.urandom(pad_bytes), raw=True
                )
            ]
            nodes.append(helper.make_node("Identity", ["w"], ["z"]))
        graph = helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("x", input_type, shape)],
            [helper.make_tensor_value_info("y", input_type, shape)],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return bytes(model.SerializeToString())

    return make


@pytest.fixture(scope="session")
def conv_model() -> bytes:
    """A convolution of about a millisecond."""
    onnx = pytest.importorskip("onnx")
    helper, float_type = onnx.helper, onnx.TensorProto.FLOAT
    weights = helper.make_tensor("w", float_type, [32, 32, 3, 3], [0.01] * (32 * 32 * 9))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "conv",
        [helper.make_tensor_value_info("x", float_type, ["batch", 32, 56, 56])],
        [helper.make_tensor_value_info("y", float_type, ["batch", 32, 56, 56])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def hours_model() -> bytes:
    """A small file whose one inference takes hours: only a kill ends it."""
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Expand", ["x", "shape"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(4_000)]
    nodes.append(helper.make_node("ReduceMax", ["m4000"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "hours",
        [helper.make_tensor_value_info("x", types.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", types.FLOAT, [1, 1])],
        [helper.make_tensor("shape", types.INT64, [2], [2048, 2048])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


class MadeUpMachine:
    """Files as a kernel has them below /proc and /sys, and a clock that moves when somebody sleeps.

    `loads` are the busy shares of the cores, `programs` the cores that each process keeps busy.
    """

    def __init__(self, folder: Path, cores: int = 2) -> None:
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.now = 1000.0
        self.loads = dict.fromkeys(range(cores), 0.0)
        self.steal = 0.0
        self.programs: dict[int, tuple[str, int, float]] = {}
        self.swap_ins_per_second = 0.0
        self.cooling_per_second = 0.0
        self.naps: list[float] = []
        self._hidden: set[str] = set()
        self._ticks = {core: [100.0, 0.0, 100.0] for core in self.loads}
        self._program_ticks: dict[int, float] = {}
        self._swap_ins = 17.0
        self.write(self.proc / "meminfo", "MemTotal: 4000000 kB\nMemAvailable: 2000000 kB")
        self.write(self.proc / "cpuinfo", "".join(f"processor : {n}\n" for n in self.loads))
        self._write_counters()

    def hide(self, *names: str) -> None:
        """Be a kernel that has no such files below /proc."""
        self._hidden.update(names)
        for name in names:
            (self.proc / name).unlink()

    def write(self, path: Path, text: str) -> None:
        if path.parent == self.proc and path.name in self._hidden:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")

    @property
    def zone(self) -> Path:
        return self.sys / "class/thermal/thermal_zone0"

    def set_celsius(self, celsius: float) -> None:
        self.write(self.zone / "type", "cpu-thermal")
        self.write(self.zone / "temp", f"{celsius * 1000:.0f}")

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        hertz = os.sysconf("SC_CLK_TCK")
        for core, load in self.loads.items():
            user, steal, idle = self._ticks[core]
            ticks = seconds * hertz
            self._ticks[core] = [
                user + ticks * load,
                steal + ticks * self.steal,
                idle + ticks * (1 - load - self.steal),
            ]
        for pid, (_, _, cores) in self.programs.items():
            self._program_ticks[pid] = self._program_ticks.get(pid, 0.0) + seconds * hertz * cores
        self._swap_ins += self.swap_ins_per_second * seconds
        if self.cooling_per_second:
            celsius = int((self.zone / "temp").read_text()) / 1000
            self.set_celsius(celsius - self.cooling_per_second * seconds)
        self._write_counters()

    def _write_counters(self) -> None:
        lines = [
            f"cpu{core} {user:.0f} 0 0 {idle:.0f} 0 0 0 {steal:.0f} 0 0"
            for core, (user, steal, idle) in self._ticks.items()
        ]
        self.write(self.proc / "stat", "\n".join(["cpu  0 0 0 0 0 0 0 0 0 0", *lines]))
        self.write(self.proc / "vmstat", f"nr_free_pages 5\npswpin {self._swap_ins:.0f}")
        for pid, (name, parent, _) in self.programs.items():
            ticks = self._program_ticks.get(pid, 0.0)
            line = (
                f"{pid} ({name}) S {parent} 0 0 0 0 0 0 0 0 0 {ticks:.0f} 0 0 0 20 0 1 0 {pid} 0 0"
            )
            self.write(self.proc / str(pid) / "stat", line)

    def surroundings(self, **changes: Any) -> Surroundings:
        live = Surroundings(
            roots=Roots(self.proc, self.sys, self.sys / "no-etc"),
            mailbox=Mailbox(self.sys / "no-vcio"),
            clock=lambda: self.now,
            sleep=self.sleep,
            canary=lambda _cpu: 0.003,
            allowed_cpus=lambda: frozenset(self.loads),
            power_sources=tuple,
            pid=4242,
        )
        return dataclasses.replace(live, **changes)


@pytest.fixture
def machine(tmp_path: Path) -> MadeUpMachine:
    """A quiet one with two cores, on which the agent is process 4242."""
    return MadeUpMachine(tmp_path / "machine")


@pytest.fixture(scope="session")
def quick_run() -> ModelRun:
    return QUICK_RUN


@pytest.fixture(scope="session")
def quick_readiness() -> Readiness:
    return QUICK_READINESS


@pytest.fixture(scope="session")
def plan_lasting() -> Callable[[float], Plan]:
    """A plan that takes so many seconds at least."""
    return lasting


@pytest.fixture(scope="session")
def spec() -> MeasureSpec:
    """A measurement that takes a moment."""
    return MeasureSpec(PROTOCOL, QUICK_RUN, QUICK_READINESS, QUICK_PLAN, timeout_seconds=60.0)


@pytest.fixture(scope="session")
def process_run() -> ProcessRun:
    """What one worker measured; half of it is absent."""
    return ProcessRun(
        memory=Memory(40_000_000, 50_000_000, 60_000_000, 35_000_000, None, 20_000_000),
        load_seconds=0.1,
        first_inference_seconds=0.02,
        warmup_runs=5,
        steady=True,
        runs_per_sample=1,
        call_overhead_seconds=7e-6,
        blocks=(
            Block(
                started_monotonic_seconds=100.5,
                lasted_seconds=1.25,
                canary_seconds=0.0031,
                reference_seconds=(0.001, 0.0012),
                reference_cpu_seconds=(0.0009, 0.0011),
                latency_seconds=(0.01, 0.011, 0.0105),
                cpu_seconds=(0.009, 0.0095, 0.0093),
                run_delay_seconds=(0.0, 0.0007, 0.0),
                involuntary_switches=3,
                steal_seconds=0.01,
            ),
            Block(102.0, 0.01, 0.003, (0.001,), (0.001,), (), ()),
        ),
    )


@pytest.fixture(scope="session")
def samples(process_run: ProcessRun) -> MeasuredSamples:
    """A whole measurement with an energy run."""
    return MeasuredSamples(
        protocol=PROTOCOL,
        runtime="onnx",
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        threads=2,
        runtime_options=("intra_op_num_threads=2",),
        cpus=(2, 3),
        preflight=Preflight(0.02, None, 500_000_000, -3.5, (), 0.003, 1.5, ("busy: 34 %",)),
        processes=(process_run, process_run),
        thermal=Thermal(-3.5, 41.0, 42.5, 2, 3.0, ("throttled",)),
        governor=None,
        load_average_start=0.2,
        energy=EnergyRun(
            phases=(Phase(PhaseKind.IDLE, 200.0, 203.0, 0), Phase(PhaseKind.BUSY, 203.0, 213.0, 9)),
            series=(
                PowerSeries("rapl", "package", "measured", 65.0, (200.0, 200.1), (0.0, 0.9)),
                PowerSeries("ina", "board", "measured", 25.0, (200.0,), (), (3.5,), "gone"),
            ),
            temperature_start_celsius=40.0,
            temperature_end_celsius=None,
            cpu_utilisation=0.25,
        ),
        energy_absent_because="",
    )
