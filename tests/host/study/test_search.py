"""The search from calibration to front, against devices that answer at once."""

import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from host.config import StudyConfig
from host.device import EmulatedDeviceError
from host.measurement import PRESETS, Measurement
from host.proxies.choice import judge
from host.proxies.scoring import View
from host.proxies.work import Batch
from host.spaces.base import Task, sample
from host.spaces.mobile import Mobile
from host.store.devices import UnknownDeviceError
from host.study.feasibility import profiles_with_energy
from host.study.ledger import Ledger, Manner, MissingRuntimeError, study_devices
from host.study.limits import InfeasibleError, limits_of
from host.study.proposal import Proposer
from host.study.scoring import Scorer
from host.study.search import Search
from host.study.spending import Spending
from host.study.surrogates import Surrogates, TooFewMeasurementsError, profile_settings


@cache
def images(shape):
    pixels = np.random.default_rng(0).standard_normal((8, *shape)).astype(np.float32)
    return Batch("images", pixels)


def make_search(store, config, recorder, clock=time.monotonic):
    study = store.studies.create(config.name, config.effective_json(), config.seed)
    devices = study_devices(store, config.devices)
    space = Mobile({name: tuple(kept) for name, kept in config.space.restrict.items()})
    proposer = Proposer(space, Task(channels=1, classes=2))
    limits = limits_of(config)
    manner = Manner(PRESETS["quick"])
    ledger = Ledger(store, study.id, devices, recorder, manner, profiles_with_energy(limits))
    return Search(
        config=config,
        limits=limits,
        proposer=proposer,
        scorer=Scorer(
            store,
            judge(config.search.ensemble, config.search.proxies),
            View(images, config.seed),
            proposer.subject,
        ),
        ledger=ledger,
        surrogates=Surrogates(profile_settings(devices, limits, config.line.rate_hertz)),
        spending=Spending(store, study.id, config.budget, ledger.device_seconds, clock),
        reporter=recorder,
        on_scored=lambda _proposals: None,
    )


def run(search):
    search.calibrate()
    search.explore()
    return search.settle()


def changed(table, **sections):
    return StudyConfig.model_validate(table | sections)


def test_the_front_is_measured_within_limits_and_not_dominated(
    store, made_up_device, study_config, recorder
):
    made_up_device()
    search = make_search(store, study_config, recorder)

    front = run(search)

    scores = search.combined_scores()
    points = []
    for proposal in front:
        measurement = search.ledger.measurement(proposal.key, "panel")
        assert isinstance(measurement, Measurement)
        assert measurement.latency_seconds <= 2e-3
        assert measurement.peak_rss_bytes <= 45e6
        points.append((scores[proposal.key], measurement.latency_seconds))
    assert len(points) >= 2
    assert points == sorted(points, reverse=True)
    assert len({latency for _, latency in points}) == len(points)


def test_the_budget_of_measurements_and_scores_is_kept(
    store, made_up_device, study_config, recorder
):
    device = made_up_device()
    search = make_search(store, study_config, recorder)

    run(search)

    assert len(device.measured) == len(set(device.measured)) <= study_config.budget.measurements
    assert len(search.archive) <= study_config.budget.candidates + study_config.budget.measurements


def test_a_second_run_measures_and_scores_nothing_again_and_finds_the_same_front(
    store, made_up_device, study_config, recorder
):
    device = made_up_device()
    first = run(make_search(store, study_config, recorder))
    measured = len(device.measured)
    again = study_config.model_copy(update={"name": "again"})

    second = run(make_search(store, again, recorder))

    assert [p.key for p in first] == [p.key for p in second]
    assert len(device.measured) == measured


def test_limits_of_two_devices_hold_together(store, made_up_device, study_table, recorder):
    made_up_device("panel")
    made_up_device("slow", speed=0.5)
    config = changed(
        study_table,
        devices=[{"name": "panel"}, {"name": "slow", "max_latency_ms": 3.0}],
    )
    search = make_search(store, config, recorder)

    front = run(search)

    for proposal in front:
        assert search.ledger.complete(proposal.key)
        slow = search.ledger.measurement(proposal.key, "slow")
        assert slow is not None
        assert slow.latency_seconds <= 3e-3


def test_what_nothing_can_meet_is_named_with_its_distance(
    store, made_up_device, study_table, recorder
):
    made_up_device()
    config = changed(study_table, devices=[{"name": "panel", "max_latency_ms": 0.05}])
    search = make_search(store, config, recorder)

    with pytest.raises(
        InfeasibleError, match=r"raise max_latency_ms to .* on panel.* times the limit"
    ):
        run(search)


def test_a_device_that_cannot_run_a_candidate_rules_it_out(
    store, made_up_device, study_config, recorder
):
    device = made_up_device(start=False)
    refused = set()

    def refuse(lease):
        if len(device.measured) % 7 == 3:
            refused.add(lease.job.spec.run.model_sha256)
            return "ended by SIGILL"
        return None

    device.refuse = refuse
    device.start()
    search = make_search(store, study_config, recorder)

    front = run(search)

    assert refused
    assert any("SIGILL" in said for said in recorder.said)
    assert all(search.ledger.complete(proposal.key) for proposal in front)


def test_predictions_are_those_made_before_the_measurement(
    store, made_up_device, study_config, recorder
):
    made_up_device()
    search = make_search(store, study_config, recorder)

    run(search)

    calibration = study_config.budget.calibration
    foretold = {key for key, _, _ in search.foretold}
    assert foretold
    assert len(search.ledger.keys) == calibration + len(foretold)
    for key, device, target in search.foretold:
        assert search.ledger.measurement(key, device) is not None
        assert search.foretold[key, device, target].value > 0


def test_an_emulated_device_is_refused(store, made_up_device, study_config):
    device = made_up_device(start=False).device
    facts = replace(device.facts, emulated=True)
    store.devices.open_session(device.id, "session", agent_version="0.1.0", facts=facts)

    with pytest.raises(EmulatedDeviceError, match="panel is emulated"):
        study_devices(store, study_config.devices)


def test_a_device_without_a_runtime_is_refused_with_the_reason(store, made_up_device, study_config):
    device = made_up_device(start=False)
    store.devices.open_session(
        device.device.id, "session", agent_version="0.1.0", facts=device.facts_without_runtime()
    )

    with pytest.raises(
        MissingRuntimeError, match="panel has no working runtime for ONNX files: no wheel"
    ):
        study_devices(store, study_config.devices)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_size_of_a_file_never_exceeds_its_bound(seed):
    proposer = Proposer(Mobile({"resolution": (32,)}), Task(channels=3, classes=10))
    rng = np.random.default_rng(seed)

    for proposal in proposer.fresh([sample(proposer.space, rng) for _ in range(4)]):
        size = len(proposal.untrained(["onnx"])["onnx"])
        assert size <= proposal.model_bytes <= 1.6 * size


def test_a_device_that_is_not_enrolled_is_named(store, study_config):
    with pytest.raises(UnknownDeviceError, match="no device is named 'panel'"):
        study_devices(store, study_config.devices)


def test_others_stand_in_for_candidates_that_a_device_rejects_while_it_calibrates(
    store, made_up_device, study_config, recorder
):
    rejected: set[str] = set()

    def reject(lease):
        sha256 = lease.job.spec.run.model_sha256
        if sha256 not in rejected and len(rejected) < study_config.budget.calibration:
            rejected.add(sha256)
        return sha256 in rejected

    made_up_device().reject = reject
    search = make_search(store, study_config, recorder)

    search.calibrate()

    assert len(rejected) == study_config.budget.calibration
    assert search.surrogates.models["panel"]["latency_seconds"].n == 9
    assert len(search.ledger.keys) == study_config.budget.calibration + 9


def test_a_device_that_rejects_everything_ends_the_calibration_within_the_budget(
    store, made_up_device, study_config, recorder
):
    made_up_device().reject = lambda _lease: True
    search = make_search(store, study_config, recorder)

    with pytest.raises(TooFewMeasurementsError, match="panel measured only 0 candidates without"):
        search.calibrate()

    assert len(search.ledger.keys) <= study_config.budget.measurements


def two_runtimes(**limits):
    return [
        {"name": "panel", "max_latency_ms": 2.0},
        {"name": "panel-lite", "device": "panel", "runtime": "tflite", "threads": 2} | limits,
    ]


def test_one_device_stands_in_several_profiles_each_with_its_runtime_and_limits(
    store, made_up_device, study_table, recorder
):
    made_up_device()
    config = changed(study_table, devices=two_runtimes(max_latency_ms=1.0))
    search = make_search(store, config, recorder)

    front = run(search)

    for proposal in front:
        onnx, lite = (search.ledger.measurement(proposal.key, n) for n in ("panel", "panel-lite"))
        assert (onnx.runtime, onnx.threads) == ("onnx", 1)
        assert (lite.runtime, lite.threads) == ("tflite", 2)
        assert lite.latency_seconds <= 1e-3


def test_energy_and_power_are_limited_by_what_a_meter_says(
    store, made_up_device, study_table, recorder
):
    made_up_device().watts = 6.0
    panel = {"name": "panel", "max_latency_ms": 4.0}
    free = run(make_search(store, changed(study_table, devices=[panel]), recorder))
    largest = max(p.network.macs for p in free)
    config = changed(
        study_table,
        name="frugal",
        devices=[panel | {"max_energy_mj": 7.0, "max_power_w": 2.0 + 100 * 4 * 1.1e-3}],
        line={"rate_hertz": 100},
    )
    search = make_search(store, config, recorder)

    front = run(search)

    assert max(p.network.macs for p in front) < largest
    for proposal in front:
        net, idle = search.ledger.power(proposal.key, "panel")
        assert idle == 2.0
        assert idle + 100 * net <= config.devices[0].max_power_w
        joules = search.ledger.value(proposal.key, "panel", "energy_per_inference_joules")
        assert joules == pytest.approx(1.5 * net)
        assert joules <= 7e-3
    predicted = {target for _, _, target in search.foretold}
    assert predicted >= {"energy_per_inference_joules", "power_watts"}


def test_a_limit_on_energy_where_nothing_measures_it_is_refused_with_the_reason(
    store, made_up_device, study_table, recorder
):
    made_up_device()
    config = changed(study_table, devices=[{"name": "panel", "max_energy_mj": 4.0}])

    with pytest.raises(TooFewMeasurementsError, match="this device has no power source"):
        make_search(store, config, recorder).calibrate()


def test_the_latency_that_nine_of_ten_keep_needs_enough_samples(
    store, made_up_device, study_table, recorder
):
    device = made_up_device()
    panel = {"name": "panel", "max_latency_p90_ms": 1.5}
    config = changed(study_table, devices=[panel])

    with pytest.raises(TooFewMeasurementsError, match=r'measure with more samples \(search = "st'):
        make_search(store, config, recorder).calibrate()

    device.samples = 80
    again = changed(study_table, name="more", seed=4, devices=[panel])
    search = make_search(store, again, recorder)
    for proposal in run(search):
        assert search.ledger.value(proposal.key, "panel", "latency_p90_seconds") <= 1.5e-3


def test_a_search_ends_when_its_front_grows_no_more_and_says_so(
    store, made_up_device, study_table, recorder
):
    made_up_device()
    patient = {"patience": 1, "min_gain": 0.9}
    config = changed(study_table, search=study_table["search"] | patient)
    search = make_search(store, config, recorder)

    run(search)

    assert "hypervolume gained less than 90% in 1 generations" in search.stopped_because
    assert len(search.archive) < config.budget.candidates


def test_the_course_of_the_front_never_falls(store, made_up_device, study_config, recorder):
    made_up_device()
    search = make_search(store, study_config, recorder)

    run(search)

    volumes = search.hypervolumes()
    assert len(volumes) == len(search.marks) >= 2
    assert volumes == sorted(volumes)
    assert 0 < volumes[-1] <= 1
    assert search.stopped_because == "all 40 candidates of the budget have scores"


class Ticking:
    """A clock that advances whenever it is looked at."""

    def __init__(self, step):
        self.step = step
        self.seconds = 0.0

    def __call__(self):
        self.seconds += self.step
        return self.seconds


def test_a_search_whose_time_is_spent_goes_to_its_front_and_so_does_one_that_is_resumed(
    store, made_up_device, study_table, recorder
):
    made_up_device()
    config = changed(study_table, budget=study_table["budget"] | {"minutes": 2.0})
    search = make_search(store, config, recorder, Ticking(20.0))
    front = run(search)

    resumed = Spending(
        store, store.studies.by_name("stripes").id, config.budget, lambda: 0.0, Ticking(0.0)
    )
    again = make_search(store, changed(study_table, name="other"), recorder)
    again.spending, again.config = resumed, config

    assert "2 minutes that is for the search is spent" in search.stopped_because
    assert front
    assert [p.key for p in run(again)] == [p.key for p in front]
    assert again.marks == search.marks


def test_spent_device_minutes_end_the_measuring_not_the_study(
    store, made_up_device, study_table, recorder
):
    made_up_device()
    config = changed(study_table, budget=study_table["budget"] | {"device_minutes": 1e-9})
    search = make_search(store, config, recorder)

    front = run(search)

    assert front
    assert len(search.ledger.keys) == config.budget.calibration


def test_the_best_so_far_is_told_with_what_kind_of_number_it_is(
    store, made_up_device, study_config, recorder
):
    made_up_device()

    run(make_search(store, study_config, recorder))

    found = [facts for kind, facts, _ in recorder.facts if kind == "best"]
    assert found
    assert {facts["kind"] for facts in found} <= {"measured", "predicted"}
    assert all(facts["latency_seconds"]["panel"] <= 2e-3 for facts in found)
    scores = [facts["scored"] for facts in found]
    assert scores == sorted(scores)
