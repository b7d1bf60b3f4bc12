"""What the stored models of a device say of networks, and why they say nothing."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from cost_models.base import Prediction
from cost_models.kernels import NETWORK_INPUT, Kernel, KernelGraph
from host.calibration.catalogue import Quantity, is_current, settings_of
from host.calibration.prediction import Absent, Forecast, NotCalibratedError, Predictor
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.measurement import ModelRun

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)
TWO = Setting("onnx", "onnxruntime", "1.23.2", 2)
OLD = Setting("onnx", "onnxruntime", "1.22.0", 1)


def graph_of(kind, op):
    kernel = Kernel(kind, (op,), 0, 4000, 4000, 0, (NETWORK_INPUT,), (1000,))
    return KernelGraph((kernel,), 4000)


def predicted(
    found: Mapping[Quantity, Forecast], quantity: Quantity = "latency_seconds"
) -> Prediction:
    forecast = found[quantity]
    assert isinstance(forecast, Prediction)
    return forecast


def test_every_target_is_predicted_or_has_a_reason(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    (candidate,) = mobile_candidates(1, seed=77)

    (found,) = Predictor.of(store, device, ONE).predict([candidate.kernels])

    latency = predicted(found)
    assert latency.low < latency.value < latency.high < math.inf
    assert isinstance(found["peak_rss_bytes"], Prediction)
    assert found["energy_joules"] == Absent("no measured energy: calibrate with --energy")
    assert found["power_watts"] == found["energy_joules"]


def test_energy_and_power_are_predicted_where_they_were_calibrated(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE, watts=4.0)
    (candidate,) = mobile_candidates(1, seed=77)

    (found,) = Predictor.of(store, device, ONE).predict([candidate.kernels])

    assert predicted(found, "power_watts").value == pytest.approx(4.0, rel=0.01)
    assert predicted(found, "energy_joules").value == pytest.approx(
        4.0 * predicted(found).value, rel=0.05
    )


def test_a_device_without_models_is_named_with_the_command(store, fleet):
    device = fleet.device("panel")

    with pytest.raises(NotCalibratedError, match=r"panel is not .*`genba device calibrate panel`"):
        Predictor.of(store, device, ONE)


def test_models_of_other_threads_are_named(store, fleet, fit_models):
    device = fleet.device("panel")
    fit_models(store, device.id, ONE)

    with pytest.raises(
        NotCalibratedError, match=r"it is for onnxruntime 1\.23\.2, 1 thread"
    ) as said:
        Predictor.of(store, device, TWO)
    assert "genba device calibrate panel --threads 2" in str(said.value)


def test_models_of_another_version_ask_for_calibration_again(store, fleet, fit_models):
    device = fleet.device("panel")
    fit_models(store, device.id, OLD)

    with pytest.raises(NotCalibratedError, match=r"1\.22\.0.* has .*1\.23\.2.* calibrate again"):
        Predictor.of(store, device, ONE)
    assert settings_of(store, device) == [OLD]
    assert not is_current(OLD, device)


def test_one_damaged_model_does_not_silence_the_others(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    store.cost_models.add(device.id, ONE.target("peak_rss_bytes"), '{"model": 1}', 1)

    predictor = Predictor.of(store, device, ONE)

    assert set(predictor.models) == {"latency_seconds"}
    assert "calibrate again" in predictor.absent["peak_rss_bytes"].because


def test_models_that_cannot_be_read_say_so_where_there_is_no_other(store, fleet):
    device = fleet.device()
    store.cost_models.add(device.id, ONE.target("latency_seconds"), "{", 1)

    with pytest.raises(NotCalibratedError, match="cannot be read by this version"):
        Predictor.of(store, device, ONE)


def test_an_operator_of_unknown_kind_is_flagged_by_its_name(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)

    (found,) = Predictor.of(store, device, ONE).predict([graph_of("unknown", "Whirl")])

    assert predicted(found).flagged == ("Whirl",)
    assert math.isinf(predicted(found).high)
    assert predicted(found).value > 0


def test_an_operator_that_no_calibration_network_had_is_flagged_by_its_name(
    store, fleet, fit_models
):
    device = fleet.device()
    fit_models(store, device.id, ONE, without="pool")
    both = (*graph_of("elementwise", "Relu").kernels, *graph_of("pool", "MaxPool").kernels)
    graph = KernelGraph(both, 4000)

    (found,) = Predictor.of(store, device, ONE).predict([graph])

    assert predicted(found).flagged == ("MaxPool",)
    assert math.isinf(predicted(found).high)


@pytest.fixture
def calibrated(watched, fit_models):
    """A device with sentinels and all four models, which nothing has happened to."""
    watched.calibrate()
    fit_models(watched.store, watched.device.id, ONE, watts=4.0)
    watched.measure_round()
    return watched


def become(watched, ratio, names=("conv", "copy", "tiny")):
    """The device becomes slower, and its sentinels show it."""
    watched.slowness = dict.fromkeys(names, ratio)
    watched.measure_round()
    watched.measure_round()


def test_drift_stretches_latency_and_energy_with_their_intervals_and_says_so(calibrated):
    plain = Predictor.of(calibrated.store, calibrated.device, ONE)
    become(calibrated, 1.2)
    drifted = Predictor.of(calibrated.store, calibrated.device, ONE)
    (candidate,) = mobile_candidates(1, seed=77)

    (before,), (after,) = (one.predict([candidate.kernels]) for one in (plain, drifted))

    scale = drifted.scales["latency_seconds"]
    assert scale.ratio == pytest.approx(1.2, rel=0.01)
    for quantity in ("latency_seconds", "energy_joules"):
        then, now = predicted(before, quantity), predicted(after, quantity)
        assert now.value == pytest.approx(scale.ratio * then.value)
        assert now.low == pytest.approx(scale.interval[0] * then.low)
        assert now.high == pytest.approx(scale.interval[1] * then.high)
    assert after["peak_rss_bytes"] == before["peak_rss_bytes"]
    assert after["power_watts"] == before["power_watts"]
    assert drifted.notes == [scale.sentence(["latency", "energy"])]
    assert plain.notes == []


def test_only_models_that_are_older_than_the_drift_are_scaled(calibrated, fit_models):
    become(calibrated, 1.2)
    fit_models(calibrated.store, calibrated.device.id, ONE)  # latency and memory

    drifted = Predictor.of(calibrated.store, calibrated.device, ONE)

    assert set(drifted.scales) == {"energy_joules"}
    (note,) = drifted.notes
    assert "than when its energy model was made" in note


def test_what_was_measured_before_the_drift_is_compared_as_it_would_be_now(calibrated):
    before = calibrated.measured("conv", ModelRun("0" * 64, 7))
    become(calibrated, 1.2)
    after = calibrated.measured("conv", ModelRun("0" * 64, 7))

    drifted = Predictor.of(calibrated.store, calibrated.device, ONE)

    assert drifted.drift_since("latency_seconds", before) == pytest.approx(1.2, rel=0.01)
    assert drifted.drift_since("energy_joules", before) == pytest.approx(1.2, rel=0.01)
    assert drifted.drift_since("peak_rss_bytes", before) == 1
    assert drifted.drift_since("power_watts", before) == 1
    assert drifted.drift_since("latency_seconds", after) == 1


def test_a_changed_shape_scales_nothing_and_is_doubted(calibrated):
    before = calibrated.measured("conv", ModelRun("0" * 64, 7))
    become(calibrated, 1.4, ("copy",))

    doubtful = Predictor.of(calibrated.store, calibrated.device, ONE)

    assert doubtful.scales == {}
    assert doubtful.drift_since("latency_seconds", before) == 1
    (note,) = doubtful.notes
    assert "calibrate again" in note


def test_predictions_do_not_depend_on_what_is_predicted_beside(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    predictor = Predictor.of(store, device, ONE)
    graphs = [one.kernels for one in mobile_candidates(5, seed=78)]

    together = predictor.predict(graphs)
    alone = [predictor.predict([graph])[0] for graph in graphs]

    assert [predicted(one).value for one in together] == pytest.approx(
        [predicted(one).value for one in alone], rel=1e-12
    )
    assert np.isfinite([predicted(one).high for one in together]).all()


def test_settings_are_those_with_models_and_nothing_else(store, fleet, fit_models):
    device, other = fleet.device("panel"), fleet.device("press")
    fit_models(store, device.id, TWO)
    fit_models(store, device.id, ONE)
    fit_models(store, other.id, OLD)
    store.cost_models.add(device.id, ONE.target("sentinels"), "{}", 3)
    store.cost_models.add(device.id, "latency_seconds", "{}", 3)

    assert settings_of(store, device) == [ONE, TWO]
