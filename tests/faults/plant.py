"""A plant in which things break: a gateway and agents as processes, a bad network between them,
and the account that has to be right afterwards.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_agent.outbox import Outbox
from device_agent.state import Home, Identity
from host.device import Device, DeviceFacts, Runtime
from host.job import Job
from host.measurement import Measurement, MeasureSpec, ModelRun, Outcome, Plan, Readiness
from host.pki import SERVER_NAME, CertificateAuthority, hash_secret, read_csr, spki_sha256
from host.store import Store
from host.workspace import STORE_FILE, GatewaySettings, Workspace
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as pb_grpc
from tests.faults.proxy import Network, Proxy
from tests.faults.quick_worker import FIXED_NS, NS_PER_BYTE

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
WAIT_SECONDS = 30.0
RPC_SECONDS = 10.0
PROTOCOLS = (2, 3)
"""What the simulated agents speak."""

PLAN = Plan(
    processes=1,
    warmup_runs=1,
    warmup_seconds=0.0,
    min_blocks=2,
    block_runs=20,
    block_seconds=0.5,
    min_samples=30,
    half_width=0.5,
    budget_seconds=2.0,
)
# These machines are busy, and no figure here depends on it.
READINESS = Readiness(
    observe_seconds=0.02,
    max_foreign_cpu=1.0,
    min_free_ram_bytes=1_000_000,
    wait_seconds=0.0,
    measure_when_busy=True,
)
# Sizes differ by so much that the made-up times of two models do, after rounding to 100 ns.
_SIZE_STEP_BYTES = 64
FACTS = DeviceFacts(
    hostname="line-3",
    machine="x86_64",
    pointer_bits=64,
    cpu_model="Celeron J1900",
    cpu_flags=("sse2",),
    cpu_cores_physical=4,
    cpu_cores_logical=4,
    ram_bytes=4_000_000_000,
    os_name="Debian 12",
    kernel="6.1",
    python_version="3.11.2",
    governor=None,
    temperature_celsius=None,
    cpu_max_hertz=None,
    runtimes=(Runtime("onnx", "onnxruntime", "1.0", works=True, why_not=""),),
)


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS, pause: float = 0.01
) -> None:
    """Return when the condition holds; fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(pause)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Process:
    """A process of the plant, with its output in a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, **environment: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GRPC_VERBOSITY": "NONE", **environment},
            )
        self.pid = self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Its exit status."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it hang."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it as a service manager does; its exit status."""
        if self.runs:
            self._process.terminate()
            try:
                return self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self._process.returncode


@dataclass(frozen=True)
class Credentials:
    """The key and the certificates with which somebody calls the gateway."""

    key: ec.EllipticCurvePrivateKey
    certificate_pem: bytes
    ca_pem: bytes

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @classmethod
    def make(
        cls, authority: CertificateAuthority, name: str, trusted: CertificateAuthority | None = None
    ) -> "Credentials":
        """A new key, certified by `authority`; its owner trusts the same one or `trusted`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = authority.sign_device(read_csr(csr_pem(key)), name)
        return cls(key, certificate, (trusted or authority).certificate_pem)

    def spki_sha256(self) -> str:
        return spki_sha256(x509.load_pem_x509_certificate(self.certificate_pem))

    def channel(self, port: int, **options: int) -> grpc.Channel:
        return grpc.secure_channel(
            f"{HOST}:{port}",
            grpc.ssl_channel_credentials(self.ca_pem, self.key_pem, self.certificate_pem),
            [
                ("grpc.ssl_target_name_override", SERVER_NAME),
                ("grpc.enable_http_proxy", 0),
                ("grpc.use_local_subchannel_pool", 1),
                *((f"grpc.{name}", value) for name, value in options.items()),
            ],
        )


def csr_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Simulated:
    """An agent without a process: its calls are made by the test."""

    def __init__(self, device: Device, credentials: Credentials, port: int) -> None:
        self.device = device
        self.credentials = credentials
        self.session_id = uuid.uuid4().hex
        self.channel = credentials.channel(port)
        self.stub = pb_grpc.FleetStub(self.channel)

    def hello(self) -> pb.HelloReply:
        return self.stub.Hello(
            pb.HelloRequest(
                protocol_min=PROTOCOLS[0],
                protocol_max=PROTOCOLS[1],
                agent_version="0.1.0",
                session_id=self.session_id,
                facts=pb.DeviceFacts(
                    hostname="line-3",
                    machine="x86_64",
                    pointer_bits=64,
                    cpu_model="Celeron J1900",
                    cpu_cores_logical=4,
                    ram_bytes=4_000_000_000,
                    os_name="Debian 12",
                    kernel="6.1",
                    python_version="3.11.2",
                    runtimes=[
                        pb.RuntimeFacts(
                            name="onnx", library="onnxruntime", version="1.0", works=True
                        )
                    ],
                ),
            ),
            timeout=RPC_SECONDS,
            wait_for_ready=True,
        )

    def claim(self) -> pb.Lease:
        return self.stub.Claim(
            pb.ClaimRequest(session_id=self.session_id), timeout=RPC_SECONDS
        ).lease

    def report(self, lease: pb.Lease) -> bool:
        """Whether the host kept it."""
        return self.stub.Report(
            measured_report(lease), timeout=RPC_SECONDS, wait_for_ready=True
        ).stored

    def report_again(self, job: Job) -> bool:
        """Report the last attempt of a job, as one who did not hear the answer; whether it was
        kept.
        """
        assert isinstance(job.spec, MeasureSpec)
        run = pb.ModelRun(model_size_bytes=job.spec.run.model_size_bytes)
        lease = pb.Lease(job_id=job.id, attempt=max(1, job.attempt))
        lease.measure.CopyFrom(pb.MeasureSpec(protocol=job.spec.protocol, run=run))
        return self.stub.Report(measured_report(lease), timeout=1.0).stored

    def close(self) -> None:
        self.channel.close()


def measured_report(lease: pb.Lease) -> pb.ReportRequest:
    """What the quick worker would have measured."""
    ticks = round(expected_latency_ns(lease.measure.run.model_size_bytes) / 100)
    reference = [FIXED_NS // 100] * 3

    def block(samples: int) -> pb.Block:
        deltas = [ticks, *[0] * (samples - 1)][:samples]
        return pb.Block(
            latency_ticks=deltas,
            cpu_ticks=deltas,
            run_delay_ticks=[0] * samples,
            reference_ticks=reference,
            reference_cpu_ticks=reference,
            canary_seconds=0.003,
            lasted_seconds=0.1,
        )

    return pb.ReportRequest(
        job_id=lease.job_id,
        attempt=lease.attempt,
        idempotency_key=f"{lease.job_id}:{lease.attempt}",
        measured=pb.MeasuredSamples(
            protocol=lease.measure.protocol,
            runtime="onnx",
            runtime_library="onnxruntime",
            runtime_version="1.0",
            threads=1,
            cpus=[0],
            preflight=pb.Preflight(free_ram_bytes=2_000_000_000, canary_seconds=0.003),
            processes=[
                pb.ProcessRun(
                    memory=pb.Memory(
                        base_rss_bytes=40 << 20, load_rss_bytes=40 << 20, peak_rss_bytes=50 << 20
                    ),
                    load_seconds=0.01,
                    first_inference_seconds=0.002,
                    warmup_runs=1,
                    steady=True,
                    runs_per_sample=1,
                    call_overhead_seconds=5e-6,
                    blocks=[block(20), block(20), block(0)],
                )
            ],
            thermal=pb.Thermal(),
            load_average_start=0.1,
            energy_absent_because="none here",
        ),
    )


def expected_latency_ns(size_bytes: int) -> int:
    """What the quick worker measures for a model of that size."""
    return FIXED_NS + NS_PER_BYTE * size_bytes


class Panel:
    """A device with the real agent, behind a link of its own."""

    def __init__(self, plant: "Plant", device: Device, proxy: Proxy, home: Home) -> None:
        self._plant = plant
        self.device = device
        self.link = proxy
        self.home = home
        self.log = home.path.with_suffix(".log")
        self.process: Process | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.runs

    def start(self, **environment: str) -> Process:
        script = [HERE / "quick_agent.py", self._plant.root, self.home.path]
        self.process = Process(script, self.log, **environment)
        return self.process

    def kill(self) -> None:
        """Cut its power; its worker must die with it."""
        assert self.process is not None
        self.process.kill()
        wait_until(lambda: not self.workers(), "the end of the worker", 5.0)

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def heal(self) -> None:
        self.link.heal()
        if not self.runs:
            self.start()

    def said(self, words: str) -> int:
        """How often the agent said this."""
        return self.log.read_text(errors="replace").count(words) if self.log.exists() else 0

    def measured(self) -> int:
        """How many measurements the agent says that it made."""
        return self.said(": measured, ")

    def letters(self) -> int:
        """How many outcomes wait on the device for the host."""
        if not self.home.outbox.exists():
            return 0
        uri = f"file:{self.home.outbox}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as outbox:
            try:
                (count,) = outbox.execute("SELECT COUNT(*) FROM letters").fetchone()
            except sqlite3.OperationalError:  # a new one, or one that is read-only
                return 0
            return int(count)

    def letters_set_aside(self) -> int:
        """How many outcomes the host would not take. Only while no agent runs."""
        with contextlib.closing(Outbox(self.home.outbox)) as outbox:
            return outbox.counts()[1]

    def workers(self) -> list[psutil.Process]:
        """The processes that measure for this device."""
        home = str(self.home.path)
        return [p for p in self._plant.workers() if any(home in word for word in _command(p))]

    def parts(self) -> list[Path]:
        """What is being pulled."""
        return list(self.home.cache.glob("*.part"))

    def cached(self, sha256: str) -> Path:
        return self.home.cache / sha256[:2] / sha256


class Plant:
    """One workspace, its gateway, and devices; `settle` waits for the end of all work and `account`
    looks whether every job has its one outcome.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.net = Network()
        self.port, self.enrolment_port = free_ports(2)
        settings = GatewaySettings(
            address=HOST,
            bind=HOST,
            gateway_port=self.port,
            enrolment_port=self.enrolment_port,
        )
        self.workspace = Workspace.create(root / "workspace", settings)
        self.authority = self.workspace.authority()
        self.store: Store = self.workspace.open_store()
        self.gateway: Process | None = None
        self.panels: dict[str, Panel] = {}
        self.credentials: dict[str, Credentials] = {}
        self._proxies: list[Proxy] = []
        self._others: list[Process] = []
        self._models = 0
        self._known_leases: set[tuple[Any, ...]] = set()

    # -- the parts --------------------------------------------------------------------------

    def start_gateway(self) -> Process:
        """The gateway, once it listens."""
        script = [HERE / "quick_gateway.py", self.workspace.root]
        return self._serving(Process(script, self.root / "gateway.log"))

    def start_shipped_gateway(self) -> Process:
        """`genba serve` as it is shipped, once it listens."""
        script: list[str | Path] = ["-m", "host", "serve", "--workspace", self.workspace.root]
        return self._serving(Process(script, self.root / "gateway.log"))

    def _serving(self, gateway: Process) -> Process:
        self.gateway = gateway

        def listens() -> bool:
            assert gateway.runs, gateway.log.read_text()[-2000:]
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, self.port), 1.0).close()
                return True
            return False

        wait_until(listens, "the gateway")
        return gateway

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        self.gateway.kill()

    def restart_gateway(self) -> None:
        self.kill_gateway()
        self.start_gateway()

    def run(self, *command: str | Path) -> Process:
        """Another process of the plant, such as a study."""
        process = Process(command, self.root / f"process-{len(self._others)}.log")
        self._others.append(process)
        return process

    def device(self, name: str) -> tuple[Device, Credentials]:
        """An enrolled device, without the way over the network."""
        credentials = Credentials.make(self.authority, name)
        secret = hash_secret(uuid.uuid4().hex)
        self.store.devices.add_token(name, secret, self.store.now() + timedelta(hours=1))
        device = self.store.devices.enrol(secret, credentials.spki_sha256(), FACTS)
        return device, credentials

    def panel(self, name: str) -> Panel:
        """The device of that name with an agent that does not run yet; made once."""
        if name not in self.panels:
            device, credentials = self.device(name)
            self.credentials[name] = credentials
            self.panels[name] = self.equip(device, credentials, self.root / "devices" / name)
        return self.panels[name]

    def equip(self, device: Device, credentials: Credentials, folder: Path) -> Panel:
        """Give a device an agent at home in `folder`, and a link."""
        proxy = Proxy(self.net, self.port)
        self._proxies.append(proxy)
        home = Home(folder)
        home.create()
        home.save_identity(
            Identity(
                device_id=device.id,
                device_name=device.name,
                host=HOST,
                gateway_port=proxy.port,
                key_pem=credentials.key_pem,
                certificate_pem=credentials.certificate_pem,
                ca_pem=credentials.ca_pem,
            )
        )
        return Panel(self, device, proxy, home)

    def equip_copy(self, panel: Panel, folder: Path) -> Panel:
        """Another agent of the same device, whose home is a copy of the first one's."""
        return Panel(self, panel.device, panel.link, Home(folder))

    @contextlib.contextmanager
    def simulated(self, *names: str) -> Iterator[list[Simulated]]:
        """Devices that say hello at once and do what the test says."""
        agents: list[Simulated] = []
        try:
            for name in names:
                agents.append(Simulated(*self.device(name), self.port))
                agents[-1].hello()
            yield agents
        finally:
            for agent in agents:
                agent.close()

    def heal(self) -> None:
        """See to it that everything that was made runs and every link is good."""
        (self.workspace.root / "clock-offset").unlink(missing_ok=True)
        if self.gateway is None or not self.gateway.runs:
            self.start_gateway()
        for panel in self.panels.values():
            panel.heal()

    def forget(self) -> None:
        """Take what an earlier test left open as given: only that test fails for it."""
        self._known_leases = set(self._rows(_OPEN_LEASES))

    def stop(self) -> None:
        for panel in self.panels.values():
            panel.stop()
        for process in self._others:
            process.stop()
        if self.gateway is not None:
            self.gateway.stop()
        for proxy in self._proxies:
            proxy.stop()
        self.net.stop()
        self.store.close()

    # -- work -------------------------------------------------------------------------------

    def model(self, size_bytes: int = 0, **wishes: object) -> bytes:
        """A model like no other, of about that size, for the quick worker."""
        self._models += 1
        line = json.dumps({"number": self._models, **wishes}).encode() + b"\n"
        # So that the size tells which model was measured.
        size = (size_bytes // _SIZE_STEP_BYTES + self._models + 4) * _SIZE_STEP_BYTES
        return line + os.urandom(size - len(line))

    def spec(self, model: bytes) -> MeasureSpec:
        blob = self.store.blobs.put(model)
        run = ModelRun(blob.sha256, blob.size_bytes)
        return MeasureSpec(run, PLAN, READINESS, timeout_seconds=60.0)

    def ask(
        self, device: Device, count: int = 1, *, size_bytes: int = 0, **wishes: object
    ) -> list[Job]:
        """Jobs to measure so many models."""
        return [
            self.store.jobs.submit(device.id, self.spec(self.model(size_bytes, **wishes)))
            for _ in range(count)
        ]

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome | None]:
        found = self.store.jobs.progress([job.id for job in jobs])
        return [found[job.id].outcome for job in jobs]

    def wait_for(self, jobs: Sequence[Job], seconds: float = WAIT_SECONDS) -> list[Outcome]:
        """The outcomes of the jobs, once all are there."""
        wait_until(lambda: None not in self.outcomes(jobs), "the outcomes", seconds, pause=0.02)
        return [outcome for outcome in self.outcomes(jobs) if outcome is not None]

    def wait_for_claim(self, job: Job) -> None:
        wait_until(lambda: self.store.jobs.get(job.id).state == "leased", "the claim")

    # -- the account --------------------------------------------------------------------------

    def measured(self, jobs: Sequence[Job], seconds: float = WAIT_SECONDS) -> None:
        """Wait for the end of all work, and find each of the jobs measured exactly once."""
        outcomes = self.wait_for(jobs, seconds)
        for job, outcome in zip(jobs, outcomes, strict=True):
            assert isinstance(outcome, Measurement), outcome
            assert isinstance(job.spec, MeasureSpec)
            # Its own model, and no other.
            assert outcome.run.model_sha256 == job.spec.run.model_sha256
            expected = expected_latency_ns(job.spec.run.model_size_bytes) * 1e-9
            assert abs(outcome.latency_seconds - expected) < 60e-9
        self.settle()

    def settle(self) -> None:
        """Wait for the end of all work; then nothing may be left over, nor be there twice."""
        panels = self.panels.values()
        wait_until(lambda: all(panel.letters() == 0 for panel in panels), "empty outboxes")
        wait_until(lambda: not self.workers(), "the end of all workers")
        wait_until(lambda: not self.open_leases(), "the end of all leases")
        self.account()

    def account(self) -> None:
        """Every job that ended has one outcome, none that did not has any; files are whole."""
        kept = Counter(self._rows(" UNION ALL ".join(_OUTCOMES_OF_JOBS)))
        states = dict(self._rows("SELECT id, state FROM jobs"))
        ended = {(job_id,) for job_id, state in states.items() if state in ("done", "failed")}
        assert kept == dict.fromkeys(ended, 1)
        for folder in (self.workspace.blobs_folder, *(p.home.cache for p in self.panels.values())):
            for path in folder.glob("??/*"):
                if len(path.name) == 64:
                    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
        assert self.store.audit.verify().problem is None

    def attempts(self, job: Job) -> int:
        """How often the job was given to its device."""
        return self.store.jobs.get(job.id).attempt

    def open_leases(self) -> list[tuple[Any, ...]]:
        return [row for row in self._rows(_OPEN_LEASES) if row not in self._known_leases]

    def workers(self) -> list[psutil.Process]:
        """All processes that measure in this plant."""
        marks = {str(HERE / "quick_worker.py"), str(self.root)}
        return [p for p in psutil.process_iter() if marks <= set(_command(p))]

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        database = self.workspace.root / STORE_FILE
        with contextlib.closing(sqlite3.connect(database, timeout=WAIT_SECONDS)) as connection:
            return connection.execute(query).fetchall()


_OPEN_LEASES = "SELECT id, device_id FROM leases WHERE ended_at IS NULL"
_OUTCOMES_OF_JOBS = [
    f"SELECT job_id FROM {table}"
    for table in ("measurements", "job_results", "measurement_failures")
]


def _command(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        return []
