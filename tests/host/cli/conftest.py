"""A workspace as the current folder, and a made-up device that answers jobs in its store."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import onnx
import pytest
from onnx import TensorProto, helper

from host.__main__ import main
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.device import Device, DeviceFacts, Runtime
from host.job import Job
from host.measurement import Measurement, MeasureSpec, Outcome
from host.store import Store
from host.workspace import GatewaySettings, Workspace

Answer = Callable[[Job], Outcome]


class MadeUpDevice:
    """Claims jobs and reports what a test says, straight in the store."""

    def __init__(self, workspace: Workspace, device: Device, answer: Answer) -> None:
        self.done: list[Job] = []
        self._workspace, self._device, self._answer = workspace, device, answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._workspace.open_store() as store:
            while not self._stop.wait(0.02):
                store.devices.seen(self._device.id)
                lease = store.jobs.claim(self._device.id, "session", 60.0)
                if lease is None:
                    continue
                outcome = self._answer(lease.job)
                key = f"{lease.job.id}:{lease.attempt}"
                self.done.append(lease.job)
                store.jobs.report(self._device.id, lease.job.id, lease.attempt, key, outcome)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    made = Workspace.create(tmp_path / "plant", GatewaySettings(address="127.0.0.1"))
    monkeypatch.delenv("GENBA_WORKSPACE", raising=False)
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def served(workspace: Workspace) -> Iterator[Workspace]:
    """The workspace, with somebody else serving it: commands start no gateway of their own."""
    with workspace.gateway_lock():
        yield workspace


@pytest.fixture
def plant_store(workspace: Workspace) -> Iterator[Store]:
    """The store of the workspace, with the clock of the machine as commands have it."""
    with workspace.open_store() as opened:
        yield opened


@pytest.fixture
def enrol(plant_store: Store, device_facts: DeviceFacts) -> Callable[[str], Device]:
    """Enrols a device that has both runtimes."""
    facts = replace(
        device_facts,
        runtimes=(
            Runtime("onnx", "onnxruntime", "1.23.2", works=True, why_not=""),
            Runtime("tflite", "ai-edge-litert", "2.1.0", works=True, why_not=""),
            Runtime("ncnn", "ncnn", "1.0.20260526", works=True, why_not=""),
        ),
    )

    def enrolled(name: str) -> Device:
        secret = uuid4().hex
        expires_at = plant_store.now() + timedelta(hours=1)
        plant_store.devices.add_token(name, secret, expires_at)
        return plant_store.devices.enrol(secret, uuid4().hex, facts)

    return enrolled


@pytest.fixture
def start_device(
    served: Workspace, enrol: Callable[[str], Device]
) -> Iterator[Callable[[str, Answer], MadeUpDevice]]:
    """Enrols a device that works until the end of the test."""
    running: list[MadeUpDevice] = []

    def start(name: str, answer: Answer) -> MadeUpDevice:
        running.append(MadeUpDevice(served, enrol(name), answer))
        return running[-1]

    yield start
    for device in running:
        device.close()


@pytest.fixture
def measured_as_asked(
    make_measurement: Callable[..., Measurement],
) -> Callable[[Job], Measurement]:
    """Answers a measure job with 10 ms, without energy."""

    def answer(job: Job) -> Measurement:
        assert isinstance(job.spec, MeasureSpec)
        made = make_measurement(job.device_id, job.spec.run.model_sha256, energies=())
        return replace(
            made, run=job.spec.run, plan=job.spec.plan, energy_absent_because="no powercap zone"
        )

    return answer


@pytest.fixture
def save_model(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a small ONNX model; models of different names differ."""

    def save(name: str) -> Path:
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y"))
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], name, [x], [y])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(made, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def model(save_model: Callable[[str], Path]) -> Path:
    return save_model("model.onnx")


@pytest.fixture
def tflite_model(tmp_path: Path) -> Path:
    """The head of a FlatBuffer with the identifier of TFLite, an empty root table and vtable."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x0c\0\0\0TFL3" + b"\x04\0\x04\0" + b"\x04\0\0\0" + b"\0\0\0\0")
    return path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command prints that ends with that code; where it fails, what it says is wrong."""

    def run(*command: object, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*map(str, command)]) == code
        captured = capsys.readouterr()
        if not code:
            return captured.out
        *_, last = captured.err.splitlines()
        assert last.startswith("genba: ")
        return last

    return run


@pytest.fixture
def loaded(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a command that succeeds prints with --json."""

    def run(*command: object) -> Any:
        capsys.readouterr()
        assert main([*map(str, command), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def kiosk(
    plant_store: Store, enrol: Callable[[str], Device], fit_models: Callable[..., None]
) -> Device:
    """A device whose cost models were fitted for one thread of onnxruntime 1.23.2."""
    device = enrol("kiosk")
    fit_models(plant_store, device.id, Setting("onnx", "onnxruntime", "1.23.2", 1))
    return device


@pytest.fixture
def mobile(tmp_path: Path) -> Path:
    """A candidate of our space that no cost model was fitted on."""
    path = tmp_path / "mobile.onnx"
    path.write_bytes(mobile_candidates(1, seed=99)[0].model_bytes())
    return path


@pytest.fixture
def nominal() -> Callable[[Any, Any], float]:
    """What a network costs by the nominal rates of a model: the truth behind `fit_models`."""

    def cost(model: Any, graph: Any) -> float:
        (row,) = model.features([graph])
        return float(row @ [model.nominal_rates.get(unit, 0.0) for _, unit in model.columns])

    return cost
