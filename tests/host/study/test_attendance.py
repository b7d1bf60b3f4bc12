"""Devices that are away: waited for, told once, and given up after too long."""

import pytest

from host.measurement import PRESETS, MeasureSpec, ModelRun
from host.store.wait import Waiting
from host.study.attendance import Attendance, LostDeviceError


@pytest.fixture
def attendance(store, recorder, clock):
    return Attendance(store, recorder, patience_seconds=600.0, clock=clock)


def test_a_device_is_given_up_when_it_has_been_away_for_too_long_without_a_break(
    attendance, made_up_device, clock
):
    away = Waiting((), (made_up_device(start=False).device,))
    attendance.say(away)
    clock.seconds = 599.0
    attendance.say(Waiting((), ()))
    attendance.say(away)
    clock.seconds = 1198.0
    attendance.say(away)
    clock.seconds = 1199.0

    with pytest.raises(LostDeviceError, match="panel has been offline for 10 minutes"):
        attendance.say(away)


def test_what_the_others_measured_still_comes_and_the_rest_is_withdrawn(
    attendance, store, made_up_device, recorder, clock, monkeypatch
):
    there, gone = made_up_device("there", start=False), made_up_device("gone", start=False)
    blob = store.blobs.put(b"a model")
    spec = MeasureSpec(ModelRun(blob.sha256, blob.size_bytes), PRESETS["quick"])
    jobs = [store.jobs.submit(d.device.id, spec, purpose="test") for d in (gone, there)]
    looks = iter(range(100))

    def offline(ids):
        clock.seconds = 300.0 * next(looks)
        return [gone.device] if gone.device.id in set(ids) else []

    monkeypatch.setattr(store.devices, "offline", offline)
    there.refuse = lambda _lease: "no such operator"
    outcomes = attendance.outcomes(jobs)
    there.start()

    found = {job.device_id: outcome for job, outcome in outcomes}

    assert list(found) == [there.device.id]
    assert list(attendance.lost) == [gone.device.id]
    assert store.jobs.progress([jobs[0].id])[jobs[0].id].state == "cancelled"
    assert any("goes on with what is known" in said for said in recorder.said)
    assert list(attendance.outcomes(jobs[:1])) == []
