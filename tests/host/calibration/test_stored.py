"""Cost models in the store: what is kept, what may take the place of what, what others know."""

import json

import numpy as np
import pytest

from cost_models.base import ModelFormatError
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from host.calibration.setting import Setting
from host.calibration.stored import (
    Calibrated,
    Example,
    keep,
    keep_of_study,
    load,
    models_elsewhere,
)

SETTING = Setting("onnx", "onnxruntime", "1.23.2", 1)


def fitted(kind=LatencyModel, n=12, slowness=1.0):
    rng = np.random.default_rng(0)
    model = kind()
    rows = rng.uniform(1e3, 1e6, (n, len(model.feature_names)))
    return model.fit_rows(rows, slowness * rows.sum(axis=1) * 1e-9)


def examples(model):
    return [Example(f"network {i}", "0" * 64, i) for i in range(model.n)]


def loaded(store, device_id) -> Calibrated[LatencyModel]:
    found = load(store, device_id, SETTING, LatencyModel)
    assert found is not None
    return found


@pytest.fixture
def device_id(fleet):
    return fleet.device().id


def test_what_is_kept_is_loaded_with_its_examples(store, device_id):
    model = fitted()

    keep(store, device_id, SETTING, model, examples(model))
    found = loaded(store, device_id)

    assert found.model.to_json() == model.to_json()
    assert found.examples == tuple(examples(model))
    assert found.origin == "calibration"


@pytest.mark.parametrize(
    "other",
    [
        Setting("onnx", "onnxruntime", "1.23.2", 2),
        Setting("onnx", "onnxruntime", "1.24.0", 1),
        Setting("tflite", "ai-edge-litert", "1.23.2", 1),
    ],
)
def test_another_setting_has_a_model_of_its_own(store, device_id, other):
    model = fitted()

    keep(store, device_id, SETTING, model, examples(model))

    assert load(store, device_id, other, LatencyModel) is None
    assert load(store, device_id, SETTING, PeakMemoryModel) is None


def test_there_must_be_an_example_for_each_row(store, device_id):
    model = fitted()

    with pytest.raises(ValueError, match="11 examples for 12 rows"):
        keep(store, device_id, SETTING, model, examples(model)[1:])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {}, "examples": []}', "null"])
def test_a_damaged_row_is_said_to_be_damaged(store, device_id, text):
    store.cost_models.add(device_id, SETTING.target("latency_seconds"), text, 12)

    with pytest.raises(ModelFormatError):
        load(store, device_id, SETTING, LatencyModel)


def test_a_study_never_takes_the_place_of_a_calibration(store, device_id):
    calibrated, of_study = fitted(n=10), fitted(n=40)
    keep(store, device_id, SETTING, calibrated, examples(calibrated))

    kept = keep_of_study(store, device_id, SETTING, of_study, examples(of_study), "panels")

    assert kept is None
    assert loaded(store, device_id).model.n == 10


def test_a_calibration_takes_the_place_of_what_a_study_fitted(store, device_id):
    calibrated, of_study = fitted(n=10), fitted(n=40)
    keep_of_study(store, device_id, SETTING, of_study, examples(of_study), "panels")
    assert loaded(store, device_id).origin == "study panels"

    keep(store, device_id, SETTING, calibrated, examples(calibrated))

    assert loaded(store, device_id).origin == "calibration"


def test_the_same_model_of_a_study_is_stored_once(store, device_id):
    model = fitted()

    first = keep_of_study(store, device_id, SETTING, model, examples(model), "panels")
    second = keep_of_study(store, device_id, SETTING, model, examples(model), "panels")

    assert first == second


def test_a_study_takes_the_place_of_a_model_that_cannot_be_read(store, device_id):
    model = fitted()
    old = json.dumps({"model": "latency_seconds", "version": 1})
    store.cost_models.add(device_id, SETTING.target("latency_seconds"), old, 12)

    assert keep_of_study(store, device_id, SETTING, model, examples(model), "panels") is not None


def test_other_devices_with_the_same_library_and_threads_may_help(store, fleet):
    here, there, third = (fleet.device(name).id for name in ("here", "there", "third"))
    newer = Setting("onnx", "onnxruntime", "1.24.0", 1)
    two = Setting("onnx", "onnxruntime", "1.23.2", 2)
    for device_id, setting, slowness in (
        (here, SETTING, 1.0),
        (there, SETTING, 2.0),
        (there, newer, 3.0),
        (third, two, 4.0),
    ):
        model = fitted(slowness=slowness)
        keep(store, device_id, setting, model, examples(model))
    store.cost_models.add(third, SETTING.target("latency_seconds"), "damaged", 12)

    found = models_elsewhere(store, here, SETTING, LatencyModel)

    assert [model.measured_values.tolist() for model in found] == [
        fitted(slowness=3.0).measured_values.tolist()
    ]


def test_a_library_whose_name_begins_like_another_is_another(store, fleet):
    other = Setting("onnx", "onnxruntime-openvino", "1.23.2", 1)
    model = fitted()
    keep(store, fleet.device("there").id, other, model, examples(model))

    assert models_elsewhere(store, fleet.device("here").id, SETTING, LatencyModel) == []
