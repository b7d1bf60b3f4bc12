"""A plant in the current folder with a real agent on it, and one whose device is made up."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.gateway.server import ensure_gateway, start_in_thread
from host.pki import Token
from host.workspace import GatewaySettings, Workspace
from tests.host.conftest import FACTS
from tests.host.study.conftest import MadeUpDevice
from tests.host.study.conftest import enrol as enrolled

AGENT = Path(__file__).resolve().parents[2] / "end_to_end" / "fixed_clock_agent.py"
DEVICE = "line-3"
WAIT_SECONDS = 60.0
STUDY = """
name = "stripes"
seed = 3
[data]
folder = "{folder}"
[[devices]]
name = "panel"
max_latency_ms = 2.0
max_peak_memory_mb = 45
[space]
name = "mobile"
restrict.resolution = [32]
restrict.width = [0.25, 0.35]
restrict.kernel = [3]
[search]
proxies = ["flops", "depth"]
batch_size = 8
population = 12
[budget]
candidates = 24
measurements = 14
calibration = 11
[finalists]
count = 1
trials = 1
epochs = 2
batch_size = 16
"""


def free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


@pytest.fixture(scope="module")
def real_plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace in the folder `plant`, a model beside it, and an agent that dials in.

    The agent's worker has a made-up clock: the same file always takes the same time.
    """
    root = tmp_path_factory.mktemp("api")
    gateway_port, enrolment_port = free_ports()
    made = Workspace.create(
        root / "plant",
        GatewaySettings(
            address="127.0.0.1",
            bind="127.0.0.1",
            gateway_port=gateway_port,
            enrolment_port=enrolment_port,
        ),
    )
    (root / "net.onnx").write_bytes(mobile_candidates(1, seed=99)[0].model_bytes())
    home = root / "agent"
    enrol(made, home)
    with (root / "agent.log").open("wb") as log:
        command = [sys.executable, str(AGENT), "--home", str(home)]
        agent = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    yield made
    agent.terminate()
    agent.wait(20)


def enrol(workspace: Workspace, home: Path) -> None:
    """As a person would, by a token."""
    with workspace.open_store() as store:
        gateway = start_in_thread(workspace, store)
        fingerprint = workspace.authority().fingerprint
        token = Token.make("127.0.0.1", gateway.enrolment_port, fingerprint)
        store.devices.add_token(DEVICE, token.secret_sha256, store.now() + timedelta(hours=1))
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "device_agent", "enroll"),
                *("--token", str(token), "--home", str(home)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_SECONDS,
        )
        gateway.stop()
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def plant(real_plant: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The current folder is the one that holds it, as the examples have it."""
    monkeypatch.delenv("GENBA_WORKSPACE", raising=False)
    monkeypatch.chdir(real_plant.root.parent)
    return real_plant


@pytest.fixture
def calibrated(plant: Workspace, fit_models: Callable[..., None]) -> Workspace:
    """The device has connected and told its runtimes, and has cost models for one thread."""
    with plant.open_store() as store, ensure_gateway(plant, store):
        deadline = time.monotonic() + WAIT_SECONDS
        while not store.devices.is_online(device := store.devices.by_name(DEVICE)):
            assert time.monotonic() < deadline, "the agent did not connect"
            time.sleep(0.05)
        fit_models(store, device.id, Setting.of_device(device, "onnx", 1))
    return plant


@pytest.fixture
def absent(plant: Workspace) -> str:
    """The name of a device that never connects."""
    name = f"absent-{uuid4().hex[:8]}"
    with plant.open_store() as store:
        secret = uuid4().hex
        store.devices.add_token(name, secret, store.now() + timedelta(hours=1))
        store.devices.enrol(secret, uuid4().hex, replace(FACTS, hostname=name))
    return name


@pytest.fixture
def studied(
    tmp_path: Path,
    study_photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Workspace]:
    """A workspace in the folder `plant` that somebody else serves, a study's file beside it, and a
    device that answers at once with what is made up.
    """
    made = Workspace.create(tmp_path / "plant", GatewaySettings(address="127.0.0.1"))
    (tmp_path / "study.toml").write_text(STUDY.format(folder=study_photos), encoding="utf-8")
    monkeypatch.delenv("GENBA_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    with made.gateway_lock(), made.open_store() as store:
        device = MadeUpDevice(store, enrolled(store, "panel"))
        device.start()
        yield made
        device.stop()


@pytest.fixture(scope="session")
def study_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of small grey images: bright stripes are defects."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("good", "striped"):
        (root / name).mkdir()
        for number in range(30):
            pixels = rng.integers(60, 120, (40, 40), dtype=np.uint8)
            if name == "striped":
                pixels[:, rng.integers(5, 35) :: 7] = 230
            Image.fromarray(pixels).save(root / name / f"{number:03}.png")
    return root
