"""A plant of simulated agents: a workspace, `genba serve` as a process, and a few processes that
are the devices.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import func, insert, select

from host.device import Device, DeviceFacts, Runtime
from host.job import OPEN_STATES
from host.measurement import MeasureSpec, ModelRun
from host.pki import CertificateAuthority, read_csr, spki_sha256
from host.store import Store
from host.store.codec import to_plain
from host.store.database import Database
from host.store.tables import JobRow, MeasurementRow
from host.workspace import STORE_FILE, GatewaySettings, Workspace

MODEL_BYTES = 256 * 1024
FACTS = DeviceFacts(
    hostname="line",
    machine="x86_64",
    pointer_bits=64,
    cpu_model="Intel(R) Core(TM)2 Duo CPU     E8400  @ 3.00GHz",
    cpu_flags=("fpu", "sse", "sse2", "ssse3", "sse4_1"),
    cpu_cores_physical=2,
    cpu_cores_logical=2,
    ram_bytes=4_000_000_000,
    os_name="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0",
    python_version="3.11.2",
    governor="performance",
    temperature_celsius=None,
    cpu_max_hertz=None,
    runtimes=(Runtime("onnx", "onnxruntime", "1.23.2", works=True, why_not=""),),
    power_sources=(),
)


class PlantError(Exception):
    """The plant does not come up."""


class GatewayProcess:
    """`genba serve`, and what it costs."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._log: IO[bytes] = (root / "gateway.log").open("ab")
        self._process: subprocess.Popen[str] | None = None
        self.peak_rss_bytes = 0
        self._spent_seconds = 0.0

    def start(self) -> None:
        """Returns once devices can connect."""
        command = [sys.executable, "-m", "host", "serve", "-w", str(self._root)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        if "Serving" not in (self._pipe().readline()):
            raise PlantError(f"the gateway did not start: see {self._log.name}")

    def end(self, number: signal.Signals) -> None:
        """Returns once the process is gone."""
        self.look()
        self._spent_seconds = self.cpu_seconds()
        process = self._running()
        process.send_signal(number)
        process.wait()
        self._pipe().close()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.end(signal.SIGTERM)
        self._log.close()

    def look(self) -> int:
        """Resident memory of the gateway's processes now; the peak over all starts is kept: the sum
        of what each of them had at most.
        """
        now = peak = 0
        for process in self._family():
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            lines = dict(line.split(":", 1) for line in status.splitlines())
            now, peak = now + _bytes(lines["VmRSS"]), peak + _bytes(lines["VmHWM"])
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak)
        return now

    def cpu_seconds(self) -> float:
        """Of all its processes since the first start."""
        spent = [process.cpu_times() for process in self._family()]
        return self._spent_seconds + sum(times.user + times.system for times in spent)

    def _family(self) -> list[psutil.Process]:
        gateway = psutil.Process(self._running().pid)
        return [gateway, *gateway.children(recursive=True)]

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise PlantError("the gateway does not run")
        return self._process

    def _pipe(self) -> IO[str]:
        pipe = self._running().stdout
        if pipe is None:
            raise PlantError("the gateway has no output")
        return pipe


class AgentsProcess:
    """A process of simulated agents."""

    def __init__(self, setup: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet.agents", str(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def tell(self, command: str) -> None:
        if self._process.stdin is None:
            raise PlantError("the agents take no commands")
        print(command, file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise PlantError("the agents give no answers")
        line = self._process.stdout.readline()
        if not line:
            raise PlantError("a process of agents has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.tell("stop")
        self._process.communicate()


@dataclass(frozen=True)
class FleetPlant:
    """Everything that a benchmark of the fleet acts on."""

    store: Store
    database: Database
    devices: tuple[Device, ...]
    run: ModelRun
    gateway: GatewayProcess
    processes: tuple[AgentsProcess, ...]

    def ask(self, command: str) -> list[dict[str, Any]]:
        """Tell all processes of agents at once; their answers."""
        for process in self.processes:
            process.tell(command)
        return [process.answer() for process in self.processes]

    def submit(self, device: Device, number: int) -> str:
        """Ask one device for a measurement, as a study does; the id of the job."""
        spec = MeasureSpec(self.run)
        return self.store.jobs.submit(device.id, spec, purpose=f"dispatch {number}").id

    def queue(self, jobs_a_device: int) -> int:
        """Ask every device for so many measurements at once; returns how many that is.

        Written past `Jobs.submit`, which takes a transaction for each.
        """
        spec = MeasureSpec(self.run)
        with self.database.write() as session:
            now = self.store.now()
            rows = [
                {
                    "id": uuid.uuid4().hex,
                    "key": uuid.uuid4().hex,
                    "device_id": device.id,
                    "model_sha256": self.run.model_sha256,
                    "kind": spec.kind,
                    "spec": to_plain(spec),
                    "label": "net.onnx",
                    "state": "queued",
                    "attempt": 0,
                    "lost_attempts": 0,
                    "refusals": 0,
                    "priority": 0,
                    "turn": number,
                    "purpose": "load",
                    "created_at": now,
                }
                for number in range(jobs_a_device)
                for device in self.devices
            ]
            session.execute(insert(JobRow), rows)
        return len(rows)

    def unfinished(self) -> int:
        """How many jobs have no outcome yet."""
        with self.database.read() as session:
            open_jobs = select(func.count()).where(JobRow.state.in_(OPEN_STATES))
            return session.scalars(open_jobs).one()

    def kept(self) -> tuple[dict[str, str], list[str]]:
        """The state of every job by id, and the job of every measurement that is kept."""
        with self.database.read() as session:
            states = session.execute(select(JobRow.id, JobRow.state))
            measured = session.scalars(select(MeasurementRow.job_id)).all()
            return {job_id: state for job_id, state in states}, list(measured)  # noqa: C416


@contextlib.contextmanager
def fleet_plant(agents: int, processes: int) -> Iterator[FleetPlant]:
    """Set it up in a temporary folder, with the gateway not started yet; take it down."""
    with (
        tempfile.TemporaryDirectory(prefix="genba-benchmark-") as name,
        contextlib.ExitStack() as s,
    ):
        root = Path(name, "workspace")
        gateway, enrolment = _free_ports()
        settings = GatewaySettings(
            address="127.0.0.1", bind="127.0.0.1", gateway_port=gateway, enrolment_port=enrolment
        )
        workspace = Workspace.create(root, settings)
        store = s.enter_context(workspace.open_store())
        database = Database(root / STORE_FILE)
        s.callback(database.close)
        authority = workspace.authority()
        enrolled = [_enrolled(store, authority, f"device-{n:04}") for n in range(agents)]
        blob = store.blobs.put(os.urandom(MODEL_BYTES))
        serving = GatewayProcess(root)
        s.callback(serving.close)
        started = []
        for number in range(processes):
            setup = Path(name, f"agents-{number}.json")
            some = [keys for _, keys in enrolled[number::processes]]
            common = {"port": gateway, "ca_pem": authority.certificate_pem.decode()}
            setup.write_text(json.dumps({**common, "agents": some}), encoding="utf-8")
            started.append(AgentsProcess(setup))
            s.callback(started[-1].close)
        yield FleetPlant(
            store,
            database,
            tuple(device for device, _ in enrolled),
            ModelRun(blob.sha256, blob.size_bytes),
            serving,
            tuple(started),
        )


def _enrolled(
    store: Store, authority: CertificateAuthority, name: str
) -> tuple[Device, dict[str, str]]:
    """A device with a key of its own, enrolled without the network."""
    key = ec.generate_private_key(ec.SECP256R1())
    empty = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = empty.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    csr = read_csr(request)
    secret = uuid.uuid4().hex
    store.devices.add_token(name, secret, store.now() + timedelta(hours=1))
    device = store.devices.enrol(secret, spki_sha256(csr), FACTS)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return device, {
        "device_id": device.id,
        "key_pem": pem.decode(),
        "certificate_pem": authority.sign_device(csr, name).decode(),
    }


def _bytes(kilobytes: str) -> int:
    return int(kilobytes.split(maxsplit=1)[0]) * 1024


def _free_ports() -> Sequence[int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return one.getsockname()[1], other.getsockname()[1]
