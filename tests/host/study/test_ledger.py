"""Asking devices for measurements: once each, with patience, and with a word about who is away."""

import pytest

from host.measurement import Measurement
from host.spaces.base import Candidate, Task
from host.spaces.mobile import Mobile
from host.store.wait import Waiting
from host.study.ledger import OFFLINE_GRACE_SECONDS, Ledger, study_devices
from host.study.proposal import Proposer


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
def ledger(store, made_up_device, study_config, recorder, clock):
    made_up_device()
    study = store.studies.create("stripes", "{}", 0)
    devices = study_devices(store, study_config.devices)
    return Ledger(store, study.id, devices, recorder, clock)


def test_a_device_is_called_offline_after_a_while_and_once(ledger, recorder, clock):
    away = Waiting(jobs=(), offline=(ledger.devices[0].device,))

    ledger._say_offline(away)
    early = list(recorder.said)
    clock.seconds = OFFLINE_GRACE_SECONDS
    ledger._say_offline(away)
    ledger._say_offline(away)

    assert early == []
    (said,) = recorder.said
    assert said.startswith("waiting for panel: offline")


def test_coming_back_is_said_only_where_being_away_was(ledger, recorder, clock):
    away, back = Waiting((), (ledger.devices[0].device,)), Waiting((), ())

    ledger._say_offline(away)
    ledger._say_offline(back)
    clock.seconds = 100.0
    ledger._say_offline(away)
    clock.seconds = 200.0
    ledger._say_offline(away)
    ledger._say_offline(back)

    assert [said.split(":")[0] for said in recorder.said] == [
        "waiting for panel",
        "all devices are online again",
    ]


def test_equal_models_under_two_names_are_measured_once(ledger, store, made_up_device):
    space = Mobile({"resolution": (32,)})
    proposer = Proposer(space, Task(channels=1, classes=2))
    (proposal,) = proposer.fresh([Candidate((0,) * len(space.decisions))])
    model = proposal.untrained_onnx()

    found = ledger.measure_models({"one": model, "two": model}, purpose="test", min_seconds=0.1)

    assert isinstance(found["one", "panel"], Measurement)
    assert found["one", "panel"] == found["two", "panel"]
    assert len(store.measurements.of_device(ledger.devices[0].device.id)) == 1
