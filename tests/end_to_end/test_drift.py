"""Drift with everything real but the clock of the worker: a device measures its sentinels again."""

import json

import pytest

from host.calibration.sentinels import KINDS, SentinelModel, measure_references
from host.calibration.setting import Setting
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.spaces.base import Candidate, Task
from host.spaces.mobile import Mobile
from host.workspace import Workspace

BUSY = ("--on-busy", "flag", "--wait-quiet", "0")


@pytest.fixture
def calibrated(make_plant, monkeypatch):
    """A plant whose device measured three networks, which are its sentinels from then on."""
    plant = make_plant("plant")
    plant.start_agent()
    space = Mobile({"resolution": (32,)})
    files = []
    for classes in (2, 3, 4):
        network = space.build(Candidate((0,) * len(space.decisions)), Task(1, classes))
        files.append(plant.root / f"{classes}.onnx")
        files[-1].write_bytes(onnx_bytes(network, random_weights(network, seed=0)))
    command = ("measure", *map(str, files), "--device", "panel", "--preset", "quick", *BUSY)
    ran = plant.genba(*command)
    assert ran.returncode == 0, ran.stderr

    # One measurement is reference enough on a machine whose clock is made up.
    monkeypatch.setattr("host.calibration.sentinels.REFERENCE_ROUNDS", 1)
    with Workspace.open(plant.workspace).open_store() as store:
        device = store.devices.by_name("panel")
        measured = store.measurements.of_device(device.id)
        setting = Setting.of_measurement(measured[0])
        models = [SentinelModel(kind, kind, one) for kind, one in zip(KINDS, measured, strict=True)]
        measure_references(store, device, setting, models, lambda _: {}, token="calibration")
    return plant


@pytest.mark.slow
def test_a_device_that_did_not_change_is_called_steady(calibrated, tmp_path):
    picture = tmp_path / "drift.png"

    ran = calibrated.genba("device", "drift", "panel", "--json", "-o", str(picture), *BUSY)
    known = calibrated.genba("device", "drift", "panel", "--no-measure")

    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["verdict"] == "steady"
    assert found["rounds"][0]["ratios"] == pytest.approx([1.0] * 3, abs=0.02)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert known.returncode == 0
    assert "panel is as fast as when it was calibrated" in known.stdout
