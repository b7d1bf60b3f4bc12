"""Asking devices for measurements: once each, with patience, and with a word about who is away."""

import pytest

from host.measurement import PRESETS, Measurement
from host.spaces.base import Candidate, Task
from host.spaces.mobile import Mobile
from host.store.wait import Waiting
from host.study.ledger import MAX_REPEATS, OFFLINE_GRACE_SECONDS, Ledger, Manner, study_devices
from host.study.proposal import Proposer

QUICK = Manner(PRESETS["quick"])


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def panel(made_up_device):
    return made_up_device()


@pytest.fixture
def ledger(store, panel, study_config, recorder, clock):
    study = store.studies.create("stripes", "{}", 0)
    devices = study_devices(store, study_config.devices)
    return Ledger(store, study.id, devices, recorder, QUICK, clock)


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
    return proposal.untrained_onnx()


def test_equal_models_under_two_names_are_measured_once(ledger, store, model):
    found = ledger.measure_models({"one": model, "two": model}, purpose="test", manner=QUICK)

    assert isinstance(found["one", "panel"], Measurement)
    assert found["one", "panel"] == found["two", "panel"]
    assert len(store.measurements.of_device(ledger.devices[0].device.id)) == 1


def test_what_the_verdict_rejects_is_measured_again(ledger, panel, model):
    panel.reject = lambda lease: lease.job.purpose == "test"

    found = ledger.measure_models({"one": model}, purpose="test", manner=QUICK)

    assert len(panel.measured) == 2
    assert found["one", "panel"].verdict.level == "OK"


def test_a_model_that_is_always_rejected_keeps_its_last_measurement(ledger, panel, model):
    panel.reject = lambda _lease: True

    found = ledger.measure_models({"one": model}, purpose="test", manner=QUICK)

    assert len(panel.measured) == 1 + MAX_REPEATS
    assert found["one", "panel"].verdict.level == "REJECT"
