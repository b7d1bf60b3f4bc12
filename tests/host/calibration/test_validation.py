"""Validation: fresh networks, honest comparison, and when intervals are said to hold."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from cost_models.base import Prediction
from host.calibration.calibration import LeftOut, Row
from host.calibration.micrographs import micrographs
from host.calibration.prediction import Predictor
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.calibration.validation import (
    LONGEST_SECONDS,
    SEED_OFFSET,
    Check,
    Foretold,
    TooFewFreshError,
    binomial_range,
    checks_of,
    foretell,
    fresh_specimens,
    is_quick_enough,
    known_models,
    measured_value,
    summary_of,
)
from host.measurement import ModelRun

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)


def check(measured, low=0.9, high=1.1, value=1.0, name="a"):
    return Check(name, Prediction(value, low, high, 0.9, 24), measured)


def predicted_seconds(foretold: Foretold) -> float:
    latency = foretold.forecasts["latency_seconds"]
    assert isinstance(latency, Prediction)
    return latency.value


def hashes(specimens):
    return [hashlib.sha256(one.model_bytes()).hexdigest() for one in specimens]


def test_fresh_networks_are_none_that_a_model_was_fitted_on(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    known = known_models(Predictor.of(store, device, ONE))

    fresh = fresh_specimens(12, 3, known)

    assert len(known) > 10
    assert len(set(hashes(fresh))) == 12
    assert not known & set(hashes(fresh))
    assert {one.kind for one in fresh} == {"micro-graph", "candidate"}


def test_known_networks_are_passed_over_and_the_count_is_kept():
    first = fresh_specimens(6, 3, frozenset())

    second = fresh_specimens(6, 3, frozenset(hashes(first)))

    assert len(second) == 6
    assert not set(hashes(first)) & set(hashes(second))


def test_a_seed_draws_the_same_and_another_seed_others():
    names = [[one.name for one in fresh_specimens(6, seed, frozenset())] for seed in (1, 1, 2)]

    assert names[0] == names[1]
    assert names[0] != names[2]


def test_a_calibrations_own_candidates_are_not_drawn_by_the_same_seed():
    calibrated = {one.name for one in mobile_candidates(60, seed=0)}

    assert not calibrated & {one.name for one in fresh_specimens(10, 0, frozenset())}


def test_too_few_fresh_networks_are_an_error(monkeypatch):
    few = micrographs()[:3]
    monkeypatch.setattr("host.calibration.validation.micrographs", lambda _: few)
    # One network needs two candidates at least: those, and all that is synthetic, are known.
    everything = [*few, *mobile_candidates(2, 1 + SEED_OFFSET)]

    with pytest.raises(TooFewFreshError, match="only 0 networks"):
        fresh_specimens(1, 1, frozenset(hashes(everything)))


def test_networks_that_the_device_runs_too_rarely_are_passed_over(store, fleet, fit_models):
    slow = fleet.device("slow")
    fit_models(store, slow.id, ONE, slowness=300.0)
    predictor = Predictor.of(store, slow, ONE)

    fresh = fresh_specimens(8, 1, frozenset(), lambda one: is_quick_enough(predictor, one))

    seconds = [predicted_seconds(one) for one in foretell(predictor, fresh)]
    everything = foretell(predictor, fresh_specimens(8, 1, frozenset()))
    assert max(seconds) <= LONGEST_SECONDS
    assert max(predicted_seconds(one) for one in everything) > LONGEST_SECONDS


def test_rejected_and_failed_networks_do_not_count(store, fleet, fit_models, make_measurement):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    predictor = Predictor.of(store, device, ONE)
    specimens = fresh_specimens(3, 1, frozenset())
    foretold = foretell(predictor, specimens)
    measurement = make_measurement(device.id, "0" * 64, 0.02)
    outcomes: dict[str, Row | LeftOut] = {
        specimens[0].name: Row(specimens[0].name, "micro-graph", measurement, 1),
        specimens[1].name: LeftOut(specimens[1].name, "candidate", "rejected 3 times"),
        specimens[2].name: Row(specimens[2].name, "micro-graph", measurement, 2),
    }

    found = checks_of(predictor, "latency_seconds", foretold, outcomes)

    assert [one.name for one in found] == [specimens[0].name, specimens[2].name]
    assert [one.measured for one in found] == pytest.approx([0.02, 0.02])


def test_what_was_measured_in_another_state_is_brought_to_the_newest(watched, fit_models):
    watched.calibrate()
    fit_models(watched.store, watched.device.id, ONE)
    watched.measure_round()
    before = watched.measured("conv", ModelRun("0" * 64, 7))
    watched.slowness = dict.fromkeys(watched.SECONDS, 1.25)
    watched.measure_round()
    watched.measure_round()
    predictor = Predictor.of(watched.store, watched.device, ONE)
    foretold = foretell(predictor, micrographs()[:2])
    outcomes: dict[str, Row | LeftOut] = {
        one.specimen.name: Row(one.specimen.name, "micro-graph", measurement, 1)
        for one, measurement in zip(
            foretold, (before, watched.measured("conv", before.run)), strict=True
        )
    }

    first, second = checks_of(predictor, "latency_seconds", foretold, outcomes)

    assert first.measured == pytest.approx(second.measured, rel=0.01)
    assert second.measured == pytest.approx(1.25 * watched.SECONDS["conv"])


def test_energy_is_that_of_the_source_of_the_calibration_and_above_idle(make_measurement):
    measurement = make_measurement("d", "0" * 64)
    (rapl,) = measurement.energies
    both = replace(measurement, energies=(replace(rapl, source="meter", net_joules=9.0), rapl))

    assert measured_value(both, "energy_joules", "rapl") == rapl.net_joules
    assert measured_value(both, "power_watts", "rapl") == rapl.power_watts - rapl.idle_watts
    assert measured_value(both, "energy_joules", "ina219") is None
    assert measured_value(replace(both, energies=()), "power_watts", "rapl") is None


def test_a_figure_that_cannot_be_told_from_idle_does_not_count(make_measurement):
    measurement = make_measurement("d", "0" * 64)
    (rapl,) = measurement.energies
    idle = replace(measurement, energies=(replace(rapl, net_joules=-0.01, power_watts=2.0),))

    assert measured_value(idle, "energy_joules", "rapl") is None
    assert measured_value(idle, "power_watts", "rapl") is None


def test_figures_follow_from_the_checks():
    measured = [1.0, 1.05, 1.2, 0.7, 2.0]
    found = summary_of([check(m, name=str(i)) for i, m in enumerate(measured)])

    assert found.n == found.judged == 5
    assert found.inside == 2
    assert found.median_error == pytest.approx(1 - 1 / 1.2)
    assert found.within_10_percent == 0.4
    assert found.within_25_percent == 0.6
    assert found.rho is None  # predictions are all equal


def test_an_interval_that_is_open_above_could_not_fail_and_is_not_counted():
    checks = [check(1.0) for _ in range(8)] + [check(50.0, high=math.inf) for _ in range(4)]

    found = summary_of(checks)

    assert (found.n, found.judged, found.inside) == (12, 8, 8)
    assert checks[-1].is_inside is None


@pytest.mark.parametrize(("inside", "holds"), [(12, True), (8, True), (7, False), (0, False)])
def test_intervals_hold_where_as_many_do_as_chance_allows(inside, holds):
    checks = [check(1.0) for _ in range(inside)] + [check(9.0) for _ in range(12 - inside)]

    assert summary_of(checks).holds is holds


def test_too_few_intervals_say_nothing():
    assert summary_of([check(1.0)] * 4).holds is None
    assert summary_of([check(1.0, high=math.inf)] * 20).holds is None


def test_nothing_to_summarise_is_an_error():
    with pytest.raises(ValueError, match="nothing"):
        summary_of([])


@given(st.integers(0, 200), st.floats(0.5, 0.99))
def test_the_range_of_a_binomial_number_is_that_of_scipy(n, probability):
    low, high = binomial_range(n, probability)

    assert 0 <= low <= high <= n
    assert binom.cdf(low - 1, n, probability) <= 0.025 + 1e-9
    assert binom.cdf(low, n, probability) > 0.025 - 1e-9
    assert binom.sf(high, n, probability) <= 0.025 + 1e-9
    assert binom.sf(high - 1, n, probability) > 0.025 - 1e-9 or high == 0


def test_predictions_are_made_from_nothing_but_the_network(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    predictor = Predictor.of(store, device, ONE)
    specimens = fresh_specimens(4, 1, frozenset())

    foretold = foretell(predictor, specimens)

    assert [one.specimen for one in foretold] == specimens
    values = np.array([predicted_seconds(one) for one in foretold])
    assert (values > 0).all()
