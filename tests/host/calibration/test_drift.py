"""Drift of a device: what it is called, what becomes of predictions, and when rounds are due."""

from datetime import timedelta

import numpy as np
import pytest

from cost_models.latency import LatencyModel
from host.calibration.calibration import LeftOut
from host.calibration.drift import (
    IDLE_FOR,
    ROUND_EVERY,
    CalibrationWatch,
    DriftReport,
    Scale,
    Watch,
    drift_of,
    due,
    scale_of,
)
from host.calibration.micrographs import micrographs
from host.calibration.sentinels import References
from host.calibration.stored import load
from host.measurement import Reason, Verdict

ALL = ("conv", "copy", "tiny")
REJECT = Verdict("REJECT", (Reason("THROTTLED", "REJECT", "The CPU was slowed down."),))


def report_of(watched) -> DriftReport:
    return drift_of(watched.store, watched.device, watched.SETTING)


def scale_now(watched) -> Scale | None:
    """By what predictions of the stored latency model are multiplied."""
    model = load(watched.store, watched.device.id, watched.SETTING, LatencyModel)
    assert model is not None
    return scale_of(report_of(watched), model.created_at)


def slower(watched, ratio, names=ALL):
    watched.slowness = dict.fromkeys(names, ratio)


@pytest.fixture
def calibrated(watched, fit_models):
    """Calibrated, with stored models and two rounds that found nothing."""
    watched.calibrate()
    fit_models(watched.store, watched.device.id, watched.SETTING)
    watched.measure_round(0.1)
    watched.measure_round()
    return watched


def test_a_device_that_was_never_calibrated_has_nothing_to_compare_with(watched):
    report = report_of(watched)

    assert report.verdict == "too little to tell"
    assert report.sentence() == "kiosk has no sentinels for onnxruntime 1.23.2, 1 thread"
    assert report.advice() == "calibrate it: `genba device calibrate kiosk`"
    assert due(watched.store, watched.device, watched.SETTING, watched.store.now()) is None
    assert scale_of(report, watched.store.now()) is None


def test_a_steady_device_is_called_steady(calibrated):
    report = report_of(calibrated)

    assert report.verdict == "steady"
    assert report.ratio == 1
    assert report.since is None
    assert report.advice() == ""
    assert scale_now(calibrated) is None


def test_a_common_shift_scales_predictions_and_says_so(calibrated):
    slower(calibrated, 1.25)
    calibrated.measure_round()
    began = calibrated.store.now()
    calibrated.measure_round()

    report = report_of(calibrated)
    scale = scale_now(calibrated)

    assert report.verdict == "shifted"
    assert scale is not None
    assert scale.ratio == pytest.approx(1.25, rel=0.01)
    assert scale.interval[0] < 1.25 < scale.interval[1]
    assert scale.since == began
    alone, both = scale.sentence(["latency"]), scale.sentence(["latency", "energy"])
    assert alone.startswith("kiosk runs everything 25.0% slower than when its latency model was")
    assert "predicted latency is multiplied by that" in alone
    assert "than when its latency and energy models were made" in both
    assert "predicted latency and energy are multiplied by that" in both
    assert "genba device probe kiosk" in report.advice()


def test_a_model_that_was_made_after_the_shift_is_not_scaled_again(calibrated, fit_models):
    slower(calibrated, 1.25)
    calibrated.measure_round()
    calibrated.measure_round()
    fit_models(calibrated.store, calibrated.device.id, calibrated.SETTING)

    assert scale_now(calibrated) is None

    slower(calibrated, 1.0)
    calibrated.measure_round()
    calibrated.measure_round()
    scale = scale_now(calibrated)

    assert scale is not None
    assert scale.ratio == pytest.approx(1 / 1.25, rel=0.01)
    assert "20.0% quicker" in scale.sentence(["latency"])


def test_a_changed_shape_asks_for_calibration_and_scales_nothing(calibrated):
    slower(calibrated, 1.4, ("copy",))
    calibrated.measure_round()
    calibrated.measure_round()

    report = report_of(calibrated)

    assert report.verdict == "reshaped"
    assert "its sentinels disagree (conv +0.0%, copy +40.0%, tiny +0.0%)" in report.sentence()
    assert report.advice() == "calibrate again: `genba device calibrate kiosk --again`"
    assert scale_now(calibrated) is None


def test_a_new_calibration_resets_what_was_found(calibrated):
    slower(calibrated, 1.4, ("copy",))
    calibrated.measure_round()
    calibrated.measure_round()

    calibrated.calibrate("february")

    assert report_of(calibrated).verdict == "too little to tell"
    calibrated.measure_round()
    assert report_of(calibrated).verdict == "steady"


def test_throttled_rounds_never_count(calibrated):
    slower(calibrated, 2.0)
    calibrated.verdicts = dict.fromkeys(ALL, REJECT)
    for _ in range(4):
        calibrated.measure_round()

    report = report_of(calibrated)

    assert report.verdict == "steady"
    assert report.drift is not None
    assert report.drift.counted == (True, True, False, False, False, False)


def test_what_was_measured_in_another_state_is_brought_to_the_newest(calibrated):
    before = calibrated.store.now()
    slower(calibrated, 1.25)
    calibrated.measure_round()
    calibrated.measure_round()
    after = calibrated.store.now()

    report = report_of(calibrated)

    assert report.to_now(before) == pytest.approx(1.25, rel=0.01)
    assert report.to_now(before - timedelta(days=1)) == pytest.approx(1.25, rel=0.01)
    assert report.to_now(after) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_commands_that_are_advised_name_the_setting(watched, threads):
    report = DriftReport(
        "kiosk",
        type(watched.SETTING)("tflite", "ai-edge-litert", "2.1.0", threads),
        None,
        (),
        None,
    )

    options = " --runtime tflite" + (" --threads 2" if threads == 2 else "")
    assert report.advice() == f"calibrate it: `genba device calibrate kiosk{options}`"


def why_due(watched):
    return due(watched.store, watched.device, watched.SETTING, watched.store.now())


def test_nothing_is_due_right_after_a_round(calibrated):
    assert why_due(calibrated) is None


def test_a_round_is_due_when_the_agent_was_started_again(calibrated):
    calibrated.start_agent("second")

    assert why_due(calibrated) == "its agent was started again"

    calibrated.measure_round(0.01)
    assert why_due(calibrated) is None


def test_a_restart_between_the_calibration_and_the_first_round_counts_too(watched):
    watched.calibrate()
    watched.start_agent("second")

    assert why_due(watched) == "its agent was started again"


def test_a_round_is_due_when_nothing_was_measured_for_an_hour(calibrated, clock):
    clock.advance(IDLE_FOR.total_seconds() - 60)
    assert why_due(calibrated) is None

    clock.advance(120)
    assert why_due(calibrated) == "nothing was measured for 1 h"


def test_a_round_is_due_after_hours_of_measuring(calibrated, clock, fleet):
    run = fleet.run(b"a candidate")
    for number in range(5):
        clock.advance(ROUND_EVERY.total_seconds() / 5 + 60)
        spec = fleet.spec(b"a candidate")
        job = calibrated.store.jobs.submit(calibrated.device.id, spec, purpose=f"search {number}")
        lease = calibrated.store.jobs.claim(calibrated.device.id, "first", 60.0)
        made = calibrated.measured("conv", run)
        calibrated.store.jobs.report(calibrated.device.id, job.id, lease.attempt, "key", made)

    assert why_due(calibrated) == "the last round is 4 h old"


def test_an_odd_round_is_followed_by_one_more_and_not_by_many(calibrated):
    slower(calibrated, 1.2)
    calibrated.measure_round(0.9)
    assert report_of(calibrated).is_doubtful
    assert why_due(calibrated) == "the newest round is odd"

    slower(calibrated, 1.0)
    calibrated.measure_round(0.01)
    assert why_due(calibrated) is None


def watch_of(watched, said):
    return Watch(watched.store, watched.wait, said.append)


def test_a_watch_measures_what_is_due_and_says_each_change_once(calibrated):
    said: list[str] = []
    watch = watch_of(calibrated, said)
    watch.look(calibrated.device, calibrated.SETTING)
    assert said == []

    slower(calibrated, 1.3)
    calibrated.start_agent("second")
    report = watch.look(calibrated.device, calibrated.SETTING)
    watch.look(calibrated.device, calibrated.SETTING)

    assert report.verdict == "shifted"
    assert said[:2] == [
        "kiosk measures its sentinels first: its agent was started again",
        "kiosk measures its sentinels first: the newest round is odd",
    ]
    assert said[2].startswith("kiosk runs everything 30.0% slower than when it was calibrated")
    assert len(said) == 3


def test_a_changed_shape_is_said_once_with_what_to_do(calibrated):
    said: list[str] = []
    watch = watch_of(calibrated, said)
    slower(calibrated, 1.5, ("conv",))
    calibrated.start_agent("second")

    watch.look(calibrated.device, calibrated.SETTING)
    calibrated.start_agent("third")
    watch.look(calibrated.device, calibrated.SETTING)

    told = [one for one in said if "calibrate again" in one]
    assert len(told) == 1
    assert "genba device calibrate kiosk --again" in told[0]


def test_that_a_device_changed_back_is_said_too(calibrated):
    said: list[str] = []
    watch = watch_of(calibrated, said)
    slower(calibrated, 1.3)
    calibrated.start_agent("second")
    watch.look(calibrated.device, calibrated.SETTING)

    slower(calibrated, 1.0)
    calibrated.start_agent("third")
    watch.look(calibrated.device, calibrated.SETTING)

    assert said[-1] == "kiosk is as fast as when it was calibrated"


def test_a_device_that_cannot_measure_is_asked_once(calibrated):
    said: list[str] = []
    calibrated.fails = set(ALL)
    calibrated.start_agent("second")
    calibrated.jobs.clear()

    report = watch_of(calibrated, said).look(calibrated.device, calibrated.SETTING)

    assert len(calibrated.jobs) == 3
    assert report.verdict == "steady"


def test_a_watch_of_a_device_without_sentinels_does_nothing(watched):
    said: list[str] = []

    report = watch_of(watched, said).look(watched.device, watched.SETTING)

    assert report.references is None
    assert watched.jobs == []
    assert said == []


def rows_of(watched, made_up):
    """What a calibration has measured by now, at this moment."""
    networks = micrographs()[::8]
    rows = [row for row in made_up(networks).values() if not isinstance(row, LeftOut)]
    return networks, rows


def test_a_calibration_measures_its_sentinels_once_there_is_a_model(watched, made_up, store):
    networks, rows = rows_of(watched, made_up)
    seconds = np.array([row.measurement.latency_seconds for row in rows])
    model = LatencyModel().fit([one.kernels for one in networks], seconds)
    watched.SECONDS = {row.name: row.measurement.latency_seconds for row in rows}
    said: list[str] = []
    watch = CalibrationWatch(
        watched.store, watched.device, watched.SETTING, watched.wait, said.append, "january"
    )
    placed = []
    for row, one in zip(rows, networks, strict=True):
        blob = store.blobs.put(one.model_bytes())
        run = type(row.measurement.run)(blob.sha256, blob.size_bytes)
        placed.append(type(row)(row.name, row.kind, watched.measured(row.name, run), row.number))

    assert watch.references_left == 12
    assert watch.after_batch(placed, model) is False
    assert watch.references_left == 0
    references = References.of(watched.store, watched.device, watched.SETTING)
    assert references is not None
    assert {one.name for one in references.sentinels} <= {row.name for row in rows}

    watched.slowness = dict.fromkeys(watched.SECONDS, 1.5)
    watched.start_agent("second")
    assert watch.after_batch(placed, model) is True

    first = placed[0].measurement
    assert watch.latency_of(first) == pytest.approx(1.5 * first.latency_seconds, rel=0.01)
    assert watch.after_batch(placed, model) is False
    assert any("are multiplied by the ratio of its sentinels" in one for one in said)
