"""A whole plant on this machine: workspace, photos, and `genba` and `genba-agent` as processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent
DEVICE = "panel"
WAIT_SECONDS = 120.0

STUDY = """
name = "stripes"
seed = 5
[data]
folder = "images"
[[devices]]
name = "panel"
max_latency_ms = 100
max_peak_memory_mb = 400
[space]
name = "mobile"
restrict.resolution = [32]
restrict.width = [0.25, 0.35]
restrict.kernel = [3]
restrict.depth = [1, 2]
[search]
proxies = ["flops", "jacob_cov"]
batch_size = 8
population = 12
[budget]
candidates = 20
measurements = 13
calibration = 10
[finalists]
count = 1
epochs = 1
batch_size = 16
"""


class Plant:
    """A workspace with one enrolled device whose worker has a clock that is made up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = root / "workspace"
        self.agent_home = root / "agent"
        self.study = root / "study.toml"
        self.agent_log = root / "agent.log"
        self._running: list[subprocess.Popen[bytes]] = []

    def genba(
        self, *arguments: str, timeout: float = WAIT_SECONDS * 2
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "host", *arguments],
            cwd=self.root,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def start_search(self) -> subprocess.Popen[bytes]:
        """The study as a process; its events go to search.log."""
        command = [sys.executable, "-m", "host", "search", "run", str(self.study), "--json"]
        return self._start(command, self.root / "search.log")

    def start_agent(self) -> subprocess.Popen[bytes]:
        """The agent with its made-up clock as a process."""
        script = HERE / "fixed_clock_agent.py"
        command = [sys.executable, str(script), "--home", str(self.agent_home)]
        return self._start(command, self.agent_log)

    def start_real_agent(self) -> subprocess.Popen[bytes]:
        """The agent as it is shipped, with its own clocks, as a process."""
        command = [sys.executable, "-m", "device_agent", "run", "--home", str(self.agent_home)]
        return self._start(command, self.agent_log)

    def front(self) -> Any:
        """The front of the study, as `genba front show` gives it to programs."""
        shown = self.genba("front", "show", "stripes", "--json")
        assert shown.returncode == 0, shown.stderr
        return json.loads(shown.stdout)

    def measured_by_agent(self) -> int:
        """How many measurements the agent says it made."""
        return self.agent_log.read_text().count(": measured, ") if self.agent_log.exists() else 0

    def stop(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self._environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._running.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "GENBA_WORKSPACE": str(self.workspace)}


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process as a power cut would."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds; fail where it does not in time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def _free_ports() -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [str(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _write_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("good", "striped"):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(60, 120, (40, 40), dtype=np.uint8)
            if name == "striped":
                pixels[:, rng.integers(5, 35) :: 7] = 230
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")


@pytest.fixture
def make_plant(tmp_path: Path) -> Iterator[Callable[[str], Plant]]:
    """Makes plants, each with a workspace of its own and its device enrolled over TLS."""
    plants: list[Plant] = []

    def make(name: str) -> Plant:
        plant = Plant(tmp_path / name)
        plants.append(plant)
        _write_photos(plant.root / "images")
        plant.study.write_text(STUDY)
        gateway_port, enrolment_port = _free_ports()
        address = ["--address", "127.0.0.1", "--bind", "127.0.0.1"]
        ports = ["--gateway-port", gateway_port, "--enrolment-port", enrolment_port]
        assert plant.genba("init", str(plant.workspace), *address, *ports).returncode == 0
        _enrol(plant)
        return plant

    yield make
    for plant in plants:
        plant.stop()


def _enrol(plant: Plant) -> None:
    made = plant.genba("device", "enroll", DEVICE, "--json")
    token = json.loads(made.stdout)["token"]
    gateway = plant._start([sys.executable, "-m", "host", "serve"], plant.root / "gateway.log")
    agent = [sys.executable, "-m", "device_agent", "enroll", "--token", token]
    home = ["--home", str(plant.agent_home)]

    def enrolled() -> bool:
        ran = subprocess.run([*agent, *home], capture_output=True, check=False, timeout=60)
        return ran.returncode == 0

    wait_until(enrolled, "the enrolment")
    gateway.terminate()
    gateway.wait(20)


@pytest.fixture
def power_cut() -> Callable[[subprocess.Popen[bytes]], None]:
    """Ends a process at once, with no chance to tidy up."""
    return kill


@pytest.fixture
def wait() -> Callable[[Callable[[], bool], str], None]:
    """Waits for a condition."""
    return wait_until
