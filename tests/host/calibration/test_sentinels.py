"""Sentinels: which networks they are, what their references are, and which readings count."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from cost_models.drift import NOISE_FLOOR
from cost_models.latency import LatencyModel
from host.calibration.micrographs import micrographs
from host.calibration.sentinels import (
    KINDS,
    MOST_REFERENCE_ROUNDS,
    REFERENCE_ROUNDS,
    NoReferencesError,
    References,
    choose,
    rounds_of,
    token_of,
    why_not_counted,
)
from host.measurement import MeasurementFailure, ModelRun, Reason, Thermal, Verdict


def rejected(*codes):
    return Verdict("REJECT", tuple(Reason(code, "REJECT", f"{code}.") for code in codes))


def rounds(watched):
    references = References.of(watched.store, watched.device, watched.SETTING)
    assert references is not None
    return rounds_of(watched.store, watched.device, watched.SETTING, references)


@pytest.fixture(scope="module")
def measured_networks(request):
    return micrographs()[::3]


def fitted(made_up, networks):
    rows = list(made_up(networks).values())
    seconds = np.array([r.measurement.latency_seconds for r in rows])
    model = LatencyModel().fit([one.kernels for one in networks], seconds)
    return model, [r.name for r in rows], [r.measurement for r in rows]


def test_one_sentinel_of_each_kind_is_chosen(made_up, measured_networks):
    model, names, measurements = fitted(made_up, measured_networks)

    compute, memory, overhead = choose(model, names, measurements)

    assert [compute.kind, memory.kind, overhead.kind] == list(KINDS)
    assert len({compute.name, memory.name, overhead.name}) == 3
    graphs = {one.name: one.kernels for one in measured_networks}
    intensity = {name: graph.macs / max(1, moved(graph)) for name, graph in graphs.items()}
    assert intensity[compute.name] > 5 * intensity[memory.name]
    a_kernel = {
        name: (moved(graph) + graph.macs) / len(graph.kernels) for name, graph in graphs.items()
    }
    assert a_kernel[overhead.name] < min(a_kernel[compute.name], a_kernel[memory.name]) / 5


def moved(graph):
    return sum(k.input_bytes + k.output_bytes + k.weight_bytes for k in graph.kernels)


def test_networks_that_are_timed_too_coarsely_are_no_sentinels(made_up, measured_networks):
    model, names, measurements = fitted(made_up, measured_networks)

    chosen = choose(model, names, measurements)

    assert all(0.0002 <= one.measurement.latency_seconds <= 0.2 for one in chosen)


def test_two_networks_are_too_few_to_choose_from(made_up):
    model, names, measurements = fitted(made_up, micrographs()[:2])

    with pytest.raises(ValueError, match="2 rows"):
        choose(model, names, measurements)


def test_references_are_medians_and_the_calibration_counts_as_one(watched):
    references = watched.calibrate()

    assert [one.name for one in references.sentinels] == list(watched.SECONDS)
    for one in references.sentinels:
        assert one.reference_seconds == pytest.approx(watched.SECONDS[one.name])
        assert one.repeats == REFERENCE_ROUNDS
        assert one.noise.round >= NOISE_FLOOR
    assert len(watched.jobs) == 3 * (REFERENCE_ROUNDS - 1)
    assert References.of(watched.store, watched.device, watched.SETTING) == references


def test_references_of_the_same_calibration_are_measured_once(watched):
    first = watched.calibrate("january")
    watched.jobs.clear()

    assert watched.calibrate("january") == first
    assert watched.jobs == []

    assert watched.calibrate("february").id != first.id
    assert watched.jobs


def test_a_rejected_reference_is_measured_again_and_a_sentinel_without_one_is_left_out(watched):
    watched.verdicts["tiny"] = rejected("IMPRECISE")

    references = watched.calibrate()

    assert [one.name for one in references.sentinels] == ["conv", "copy"]
    tries = [job for job in watched.jobs if job.label == "sentinel tiny"]
    assert len(tries) == MOST_REFERENCE_ROUNDS


def test_a_device_that_rejects_everything_has_no_references(watched):
    watched.verdicts = dict.fromkeys(watched.SECONDS, rejected("CONTENDED"))

    with pytest.raises(NoReferencesError, match=r"drift cannot be seen: .*REJECT CONTENDED"):
        watched.calibrate()
    assert References.of(watched.store, watched.device, watched.SETTING) is None


def test_rounds_are_ratios_to_the_references_oldest_first(watched):
    watched.calibrate()
    watched.measure_round()
    watched.slowness = {"conv": 1.2, "copy": 1.1}
    watched.measure_round()

    first, second = rounds(watched)

    assert [reading.ratio for reading in first.readings] == pytest.approx([1, 1, 1])
    assert [reading.ratio for reading in second.readings] == pytest.approx([1.2, 1.1, 1])
    assert second.log_ratios == pytest.approx((math.log(1.2), math.log(1.1), 0), abs=1e-9)
    assert first.at < second.at
    assert second.session == "first"


def test_a_new_calibration_begins_anew(watched):
    watched.calibrate("january")
    watched.measure_round()

    watched.calibrate("february")

    assert rounds(watched) == ()


def test_a_sentinel_that_failed_is_missing_from_its_round(watched):
    watched.calibrate()
    watched.fails = {"copy"}
    watched.measure_round()

    (found,) = rounds(watched)

    assert found.readings[1].ratio is None
    assert found.readings[1].not_counted_because == "not measured"
    assert math.isnan(found.log_ratios[1])


@pytest.mark.parametrize(
    ("verdict", "thermal", "because"),
    [
        (Verdict("OK"), Thermal(), ""),
        (Verdict("WARN", (Reason("BUSY", "WARN", "Busy."),)), Thermal(), ""),
        (rejected("CONTENDED", "IMPRECISE"), Thermal(), "REJECT CONTENDED IMPRECISE"),
        (rejected("THROTTLED"), Thermal(), "THROTTLED"),
        (Verdict("WARN", (Reason("HOT", "WARN", "Hot."),)), Thermal(), "HOT"),
        (Verdict("OK"), Thermal(throttle_events=2), "THROTTLED"),
        (Verdict("OK"), Thermal(throttled=("frequency capped",)), "THROTTLED"),
        # That the device changed is what sentinels are there to find.
        (rejected("DEVICE_CHANGED", "CLOCK_CHANGED"), Thermal(), ""),
        (rejected("DEVICE_CHANGED", "UNSTABLE"), Thermal(), "REJECT UNSTABLE"),
    ],
)
def test_throttled_and_rejected_readings_do_not_count_and_are_named(
    watched, verdict, thermal, because
):
    watched.calibrate()
    watched.verdicts, watched.thermals = {"conv": verdict}, {"conv": thermal}
    watched.measure_round()

    (found,) = rounds(watched)

    assert found.readings[0].not_counted_because == because
    assert math.isnan(found.log_ratios[0]) == bool(because)
    assert found.readings[1].not_counted_because == ""


def test_another_version_of_the_runtime_does_not_count(watched):
    measured = watched.measured("conv", ModelRun("0" * 64, 7))
    other = replace(measured, runtime_version="1.24.0")

    assert why_not_counted(measured, watched.SETTING) == ""
    assert why_not_counted(other, watched.SETTING) == "measured with onnxruntime 1.24.0, 1 thread"


def test_a_failure_says_what_failed(watched):
    failure = MeasurementFailure("d", "0" * 64, "worker_crashed", "it died.", watched.store.now())

    assert why_not_counted(failure, watched.SETTING) == "worker crashed: it died"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"token": "t", "sentinels": [{"kind": 1}]}'])
def test_references_that_cannot_be_read_are_none(watched, text):
    references = watched.calibrate()
    target = watched.SETTING.target("drift-sentinels")
    watched.store.cost_models.add(watched.device.id, target, text or "no JSON", 3)

    assert references.sentinels
    assert References.of(watched.store, watched.device, watched.SETTING) is None


def test_sentinels_are_asked_for_before_what_waits(watched, fleet):
    watched.calibrate()
    watched.store.jobs.submit(watched.device.id, fleet.spec(), purpose="search")

    watched.measure_round()

    (found,) = rounds(watched)
    assert all(reading.ratio is not None for reading in found.readings)


def test_tokens_of_other_calibrations_differ():
    assert token_of("calibrate") == token_of("calibrate")
    assert token_of("calibrate") != token_of("calibrate 2")
    assert json.dumps(token_of("x"))
