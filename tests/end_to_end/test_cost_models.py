"""Cost models with everything real: predicted, put to the test on a device, exchanged."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from cost_models.latency import LatencyModel
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.calibration.stored import Example, keep
from host.workspace import Workspace

BUSY = ("--on-busy", "flag", "--wait-quiet", "0")


@pytest.fixture
def plant(make_plant):
    made: Any = make_plant("plant")
    made.start_real_agent()
    return made


@pytest.fixture
def model(plant) -> str:
    """The smallest of a few candidates that no model was fitted on."""
    smallest = min(mobile_candidates(20, seed=99), key=lambda one: one.kernels.macs)
    (plant.root / "mobile.onnx").write_bytes(smallest.model_bytes())
    return "mobile.onnx"


@pytest.fixture
def calibrated(plant) -> None:
    """Gives the device a latency model of some other machine."""
    networks = mobile_candidates(12, seed=5)
    model = LatencyModel()
    rows = model.features([one.kernels for one in networks])
    rates = [model.nominal_rates.get(unit, 0.0) for _, unit in model.columns]
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, len(rows)))
    model.fit_rows(rows, rows @ rates * noise)
    examples = [
        Example(one.name, hashlib.sha256(one.model_bytes()).hexdigest(), None) for one in networks
    ]
    with Workspace.open(plant.workspace).open_store() as store:
        device = store.devices.by_name("panel")
        keep(store, device.id, Setting.of_device(device, "onnx", 1), model, examples)


@pytest.mark.slow
@pytest.mark.usefixtures("calibrated")
def test_a_model_is_predicted_then_measured_and_predicted_alike_after_an_exchange(plant, model):
    def found(*arguments: str) -> Any:
        ran = plant.genba("cost", *arguments)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    (before,) = json.loads(found("predict", model, "--device", "panel", "--json"))
    validation = json.loads(found("validate", "panel", model, "--json", *BUSY))
    found("export", "panel", "panel.json")
    found("import", "panel.json", "--device", "panel")
    (after,) = json.loads(found("predict", model, "--device", "panel", "--json"))

    checks = validation["quantities"]["latency_seconds"]["models"]
    named = [*checks, *validation["left_out"]]  # a busy machine may have every figure rejected
    assert [one["model"] for one in named] == ["mobile.onnx"]
    assert all(one["predicted"] == before["latency_seconds"]["value"] for one in checks)
    assert all(one["measured"] > 0 for one in checks)
    assert validation["holds"] is None
    assert after["latency_seconds"] == before["latency_seconds"]
