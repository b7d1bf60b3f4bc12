"""Asking devices for measurements: once each, with patience, and with a word about who is away."""

import numpy as np
import pytest

from host.calibration.measuring import MAX_REPEATS
from host.calibration.sentinels import KINDS, SentinelModel, measure_references
from host.calibration.setting import Setting
from host.device import MeterBinding
from host.measurement import PRESETS, Measurement, MeasureSpec, ModelRun
from host.spaces.base import Candidate, Task, sample
from host.spaces.mobile import Mobile
from host.store.wait import Waiting, wait_for_outcomes
from host.study.attendance import OFFLINE_GRACE_SECONDS
from host.study.ledger import Ledger, Manner, study_devices
from host.study.proposal import Proposer

QUICK = Manner(PRESETS["quick"])
SETTING = Setting("onnx", "onnxruntime", "1.23.2", 1)


@pytest.fixture
def panel(made_up_device):
    return made_up_device()


@pytest.fixture
def ledger(store, panel, study_config, recorder, clock):
    study = store.studies.create("stripes", "{}", 0)
    devices = study_devices(store, study_config.devices)
    return Ledger(store, study.id, devices, recorder, QUICK, clock=clock)


def test_a_device_is_called_offline_after_a_while_and_once(ledger, recorder, clock):
    away = Waiting(jobs=(), offline=(ledger.devices[0].device,))

    ledger.say_waiting(away)
    early = list(recorder.said)
    clock.seconds = OFFLINE_GRACE_SECONDS
    ledger.say_waiting(away)
    ledger.say_waiting(away)

    assert early == []
    (said,) = recorder.said
    assert said.startswith("waiting for panel: offline")


def test_coming_back_is_said_only_where_being_away_was(ledger, recorder, clock):
    away, back = Waiting((), (ledger.devices[0].device,)), Waiting((), ())

    ledger.say_waiting(away)
    ledger.say_waiting(back)
    clock.seconds = 100.0
    ledger.say_waiting(away)
    clock.seconds = 200.0
    ledger.say_waiting(away)
    ledger.say_waiting(back)

    assert [said.split(":")[0] for said in recorder.said] == [
        "waiting for panel",
        "all devices are online again",
    ]


@pytest.fixture
def model():
    space = Mobile({"resolution": (32,)})
    proposer = Proposer(space, Task(channels=1, classes=2))
    (proposal,) = proposer.fresh([Candidate((0,) * len(space.decisions))])
    return proposal.untrained(["onnx"])["onnx"]


def test_equal_models_under_two_names_are_measured_once(ledger, store, model):
    found = ledger.measure_models(
        {"one": {"onnx": model}, "two": {"onnx": model}}, purpose="test", manner=QUICK
    )

    assert isinstance(found["one", "panel"], Measurement)
    assert found["one", "panel"] == found["two", "panel"]
    assert len(store.measurements.of_device(ledger.devices[0].device.id)) == 1


def test_what_the_verdict_rejects_is_measured_again(ledger, panel, model):
    panel.reject = lambda lease: lease.job.purpose == "test"

    found = ledger.measure_models({"one": {"onnx": model}}, purpose="test", manner=QUICK)

    assert len(panel.measured) == 2
    assert found["one", "panel"].verdict.level == "OK"


def test_a_model_that_is_always_rejected_keeps_its_last_measurement(ledger, panel, model):
    panel.reject = lambda _lease: True

    found = ledger.measure_models({"one": {"onnx": model}}, purpose="test", manner=QUICK)

    assert len(panel.measured) == 1 + MAX_REPEATS
    assert found["one", "panel"].verdict.level == "REJECT"


def with_sentinels(store, panel, monkeypatch):
    """Calibrate the panel on three small models."""
    panel.stamps_time = True
    panel.session = "first"
    monkeypatch.setattr("host.calibration.sentinels.REFERENCE_ROUNDS", 2)
    chosen = proposals(3, seed=5)
    device = store.devices.by_name(panel.device.name)
    models = []
    for kind, proposal in zip(KINDS, chosen, strict=True):
        blob = store.blobs.put(proposal.untrained(["onnx"])["onnx"])
        run = ModelRun(blob.sha256, blob.size_bytes)
        job = store.jobs.submit(device.id, MeasureSpec(run), purpose=f"calibrate {kind}")
        ((_, outcome),) = wait_for_outcomes(store, [job], poll_seconds=0.02)
        assert isinstance(outcome, Measurement)
        models.append(SentinelModel(kind, kind, outcome))

    def wait(jobs):
        names = {job.id: name for name, job in jobs.items()}
        found = wait_for_outcomes(store, list(jobs.values()), poll_seconds=0.02)
        return {names[job.id]: outcome for job, outcome in found}

    measure_references(store, device, SETTING, models, wait, token="calibration")


def proposals(count, seed=4):
    space = Mobile({"resolution": (32,)})
    rng = np.random.default_rng(seed)
    proposer = Proposer(space, Task(channels=1, classes=2))
    return proposer.fresh([sample(space, rng) for _ in range(count)])


def test_a_device_that_came_back_slower_has_its_older_latencies_brought_to_now(
    ledger, store, panel, recorder, monkeypatch
):
    with_sentinels(store, panel, monkeypatch)
    first, second = proposals(2)
    ledger.measure([first])
    before = ledger.value(first.key, "panel", "latency_seconds")
    peak = ledger.value(first.key, "panel", "peak_rss_bytes")

    panel.speed, panel.session = 0.5, "after a restart"
    ledger.measure([second])

    assert ledger.value(first.key, "panel", "latency_seconds") == pytest.approx(
        2 * before, rel=0.01
    )
    assert ledger.value(first.key, "panel", "peak_rss_bytes") == peak
    newer = ledger.measurement(second.key, "panel").latency_seconds
    assert ledger.value(second.key, "panel", "latency_seconds") == newer
    assert [said.split(":")[0] for said in recorder.said[:2]] == [
        "panel measures its sentinels first"
    ] * 2
    assert "panel runs everything 100.0% slower than when it was calibrated" in recorder.said[2]
    assert recorder.said[3].startswith("1 latencies that panel measured before are multiplied by 2")


def test_what_is_known_already_needs_no_sentinels(ledger, store, panel, recorder, monkeypatch):
    with_sentinels(store, panel, monkeypatch)
    models = {one.key: one.untrained(["onnx"]) for one in proposals(2)}
    ledger.measure_models(models, purpose="test", manner=QUICK)
    count = len(panel.measured)

    panel.session = "after a restart"
    ledger.measure_models(models, purpose="test", manner=QUICK)

    assert len(panel.measured) == count
    assert recorder.said == []


def test_without_sentinels_latencies_are_as_measured(ledger):
    (one,) = proposals(1)

    ledger.measure([one])

    measured = ledger.measurement(one.key, "panel").latency_seconds
    assert ledger.value(one.key, "panel", "latency_seconds") == measured
    assert ledger.value("unknown", "panel", "latency_seconds") is None


class SlowMeter:
    """One that is worth a reading every two seconds; there is none on this machine."""

    interval_seconds = 2.0

    def close(self) -> None:
        pass


def test_energy_windows_are_as_long_as_the_meter_of_the_device_needs(
    store, panel, study_config, recorder, model, monkeypatch
):
    monkeypatch.setattr("host.calibration.timing.open_meter", lambda _binding: SlowMeter())
    store.meters.bind(panel.device.id, MeterBinding("nut://192.0.2.7/ups"))
    study = store.studies.create("frugal", "{}", 0)
    devices = study_devices(store, study_config.devices)
    ledger = Ledger(store, study.id, devices, recorder, QUICK, {"panel"})

    ledger.measure_models({"one": {"onnx": model}}, purpose="test", manner=QUICK)

    (job,) = store.jobs.of_study(study.id)
    assert isinstance(job.spec, MeasureSpec)
    assert job.spec.plan.energy_window_seconds == 60.0
    assert job.spec.timeout_seconds > 2 * 10 * 60.0
    assert job.purpose.startswith("test by meter ")
