"""A whole plant on this machine: a workspace, its gateway, and the real agent as a process."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from host.device import Device
from host.gateway.server import start_in_thread
from host.measurement import (
    PRESETS,
    Measurement,
    MeasureSpec,
    ModelRun,
    Outcome,
    Plan,
    Readiness,
)
from host.pki import Token
from host.store import Store, wait_for_outcomes
from host.workspace import GatewaySettings, Workspace

NAME, OTHER_NAME = "here", "other"
WAIT_SECONDS = 60.0
# A benchmark is about figures from machines that are never quiet: it flags, and does not wait.
READINESS = Readiness(observe_seconds=1.0, wait_seconds=0.0, measure_when_busy=True)


class PlantError(Exception):
    """The plant does not come up, or a job of it failed."""


@dataclass(frozen=True)
class Plant:
    """A device that is enrolled, and the store through which it is asked."""

    store: Store
    device: Device
    agent: "subprocess.Popen[bytes]"
    workspace: Workspace

    @contextlib.contextmanager
    def other_device(self) -> Iterator[tuple[Device, Path]]:
        """Another enrolled device, without an agent; it is removed in the end."""
        with tempfile.TemporaryDirectory() as home:
            _enrol(self.store, self.workspace, Path(home), OTHER_NAME)
            yield self.store.devices.by_name(OTHER_NAME), Path(home)
            self.store.devices.remove(OTHER_NAME)

    def measure(
        self,
        models: Sequence[Path],
        *,
        plan: Plan = PRESETS["quick"],
        purpose: str = "benchmark",
        threads: int = 1,
    ) -> list[Measurement]:
        """Measure model files one after the other, each in fresh workers of the agent."""
        found = []
        for model in models:
            blob = self.store.blobs.put_file(model)
            runtime = "tflite" if model.suffix == ".tflite" else "onnx"
            run = ModelRun(blob.sha256, blob.size_bytes, runtime=runtime, threads=threads)
            spec = MeasureSpec(run, plan=plan, readiness=READINESS)
            found.append(_measurement(self.ask(spec, purpose), model))
        return found

    def ask(self, spec: MeasureSpec, purpose: str) -> Outcome:
        """The outcome of one job."""
        job = self.store.jobs.submit(self.device.id, spec, purpose=purpose)
        ((_, outcome),) = wait_for_outcomes(self.store, [job])
        return outcome


def _measurement(outcome: Outcome, model: Path) -> Measurement:
    if isinstance(outcome, Measurement):
        return outcome
    raise PlantError(f"{model.name}: {outcome}")


@contextlib.contextmanager
def plant() -> Iterator[Plant]:
    """Set it up on free ports of this machine in a temporary folder, and take it down."""
    with (
        tempfile.TemporaryDirectory(prefix="genba-benchmark-") as name,
        contextlib.ExitStack() as s,
    ):
        root = Path(name)
        gateway, enrolment = _free_ports()
        settings = GatewaySettings(
            address="127.0.0.1",
            bind="127.0.0.1",
            gateway_port=gateway,
            enrolment_port=enrolment,
        )
        workspace = Workspace.create(root / "workspace", settings)
        store = s.enter_context(workspace.open_store())
        running = start_in_thread(workspace, store)
        s.callback(running.stop)
        home = root / "agent"
        _enrol(store, workspace, home, NAME)
        agent = subprocess.Popen(
            [sys.executable, "-m", "device_agent", "run", "--home", str(home)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        s.callback(_end, agent)
        device = store.devices.by_name(NAME)
        _wait_until_online(store, device)
        yield Plant(store, device, agent, workspace)


def _enrol(store: Store, workspace: Workspace, home: Path, name: str) -> None:
    gateway = workspace.settings.gateway
    token = Token.make(gateway.address, gateway.enrolment_port, workspace.authority().fingerprint)
    store.devices.add_token(name, token.secret_sha256, store.now() + timedelta(minutes=5))
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "device_agent",
            "enroll",
            "--token",
            str(token),
            "--home",
            str(home),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise PlantError(f"enrolment failed: {ran.stderr.strip()}")


def _wait_until_online(store: Store, device: Device) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not store.devices.is_online(store.devices.by_name(device.name)):
        if time.monotonic() > deadline:
            raise PlantError("the agent does not come online")
        time.sleep(0.05)


def _end(agent: "subprocess.Popen[bytes]") -> None:
    agent.terminate()
    agent.wait()


def _free_ports() -> tuple[int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return one.getsockname()[1], other.getsockname()[1]
