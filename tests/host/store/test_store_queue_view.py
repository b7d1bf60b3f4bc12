"""What the lists for people are made of, on whichever database the store is kept in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from host.device import Device
from host.job import ALL_STATES, JobState
from host.measurement import (
    MeasurementFailure,
    MeasureSpec,
    ProbeResult,
    ProbeSpec,
    ReferenceRun,
    Thermal,
)
from host.store import Store
from host.store.queue_view import DeviceQueue, JobQuery, Work

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet


@pytest.fixture
def kiosk(fleet: "Fleet") -> Device:
    return fleet.device("kiosk")


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """The statements that a store sends meanwhile."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = store._database.engine
    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def ask(
    store: Store, fleet: "Fleet", device: Device, model: bytes, study: str | None = None
) -> str:
    study_id = None if study is None else store.studies.by_name(study).id
    spec = MeasureSpec(fleet.run(model))
    return store.jobs.submit(device.id, spec, study_id=study_id, label=model.decode()).id


def probed(store: Store, make_measurement: Any, device: Device, problems: tuple[str, ...]) -> None:
    purpose = f"probe {problems} {store.now()}"
    job = store.jobs.submit(device.id, ProbeSpec(), purpose=purpose, priority=9)
    lease = store.jobs.claim(device.id, "session", 60.0)
    assert lease is not None
    preflight = make_measurement(device.id, "0" * 64).preflight
    run = ReferenceRun("onnx", "onnxruntime", "1.23.2", (0.001,) * 9, (0.001,) * 9, (0.005,) * 3)
    result = ProbeResult(
        device.id, replace(preflight, problems=problems), (run,), Thermal(), None, store.now()
    )
    store.jobs.report(device.id, job.id, lease.attempt, f"{job.id}:1", result)


def test_what_waits_is_counted_by_study(store: Store, fleet: "Fleet", kiosk: Device) -> None:
    store.studies.create("line", "{}", 1)
    store.studies.create("cells", "{}", 1)
    for model, study in ((b"a", "cells"), (b"b", "line"), (b"c", "line"), (b"d", None)):
        ask(store, fleet, kiosk, model, study)

    found = store.queue_view.devices()

    assert found == {kiosk.id: DeviceQueue(None, {"line": 2, "cells": 1, None: 1}, put_off=0)}
    assert found[kiosk.id].waiting_jobs == 4


def test_the_job_that_a_device_works_on_is_named_until_its_lease_runs_out(
    store: Store, fleet: "Fleet", kiosk: Device, clock: "FakeClock"
) -> None:
    job_id = ask(store, fleet, kiosk, b"a.onnx")
    store.jobs.claim(kiosk.id, "session", 60.0)
    since = store.now()

    during = store.queue_view.devices()[kiosk.id]
    clock.advance(61)
    after = store.queue_view.devices()[kiosk.id]

    work = Work(job_id, "measure", "a.onnx", None, since, stopping=False)
    assert during == DeviceQueue(work, {})
    assert after == DeviceQueue(None, {None: 1})


def test_a_withdrawn_job_that_still_runs_is_stopping(
    store: Store, fleet: "Fleet", kiosk: Device
) -> None:
    job_id = ask(store, fleet, kiosk, b"a")
    store.jobs.claim(kiosk.id, "session", 60.0)

    store.jobs.cancel([job_id])

    queue = store.queue_view.devices()[kiosk.id]
    assert queue.work is not None
    assert queue.work.stopping
    assert queue.waiting_jobs == 0


def test_a_job_whose_device_was_not_ready_is_put_off(
    store: Store, fleet: "Fleet", kiosk: Device, clock: "FakeClock"
) -> None:
    job_id = ask(store, fleet, kiosk, b"a")
    lease = store.jobs.claim(kiosk.id, "session", 60.0)
    assert lease is not None
    refusal = MeasurementFailure(kiosk.id, None, "not_ready", "busy: 40 %", store.now())
    store.jobs.report(kiosk.id, job_id, lease.attempt, "key", refusal)

    now = store.queue_view.devices()[kiosk.id]
    (line,) = store.queue_view.jobs(JobQuery())
    clock.advance(3600)
    later = store.queue_view.devices()[kiosk.id]

    assert (now.waiting_jobs, now.put_off) == (1, 1)
    assert (later.waiting_jobs, later.put_off) == (1, 0)
    assert line.not_ready_because == "busy: 40 %"
    assert line.leased_until is None


def test_the_last_probe_counts_even_where_it_failed(
    store: Store, make_measurement: Any, fleet: "Fleet", kiosk: Device, clock: "FakeClock"
) -> None:
    press = fleet.device("press")
    probed(store, make_measurement, kiosk, ())
    probed(store, make_measurement, press, ())
    clock.advance(60)
    probed(store, make_measurement, kiosk, ("busy: 40 %",))
    job = store.jobs.submit(press.id, ProbeSpec(), purpose="again")
    lease = store.jobs.claim(press.id, "session", 60.0)
    assert lease is not None
    failure = MeasurementFailure(press.id, None, "timeout", "it took too long", store.now())
    store.jobs.report(press.id, job.id, lease.attempt, "key", failure)

    found = store.queue_view.last_probes()

    assert set(found) == {kiosk.id, press.id}
    probe = found[kiosk.id]
    assert isinstance(probe, ProbeResult)
    assert probe.preflight.problems == ("busy: 40 %",)
    assert found[press.id] == failure


def test_a_probe_after_a_failed_one_counts(
    store: Store, make_measurement: Any, kiosk: Device, clock: "FakeClock"
) -> None:
    job = store.jobs.submit(kiosk.id, ProbeSpec(), purpose="first")
    lease = store.jobs.claim(kiosk.id, "session", 60.0)
    assert lease is not None
    failure = MeasurementFailure(kiosk.id, None, "timeout", "it took too long", store.now())
    store.jobs.report(kiosk.id, job.id, lease.attempt, "key", failure)
    clock.advance(60)
    probed(store, make_measurement, kiosk, ())

    assert isinstance(store.queue_view.last_probes()[kiosk.id], ProbeResult)


def test_however_many_devices_there_are_the_questions_are_as_many(
    store: Store, make_measurement: Any, fleet: "Fleet", kiosk: Device
) -> None:
    def all_questions() -> int:
        with counted(store) as sent:
            store.queue_view.devices()
            store.queue_view.last_probes()
            store.queue_view.jobs(JobQuery(states=ALL_STATES))
        return len(sent)

    probed(store, make_measurement, kiosk, ())
    ask(store, fleet, kiosk, b"model")
    with_one = all_questions()
    for number in range(20):
        device = fleet.device(f"m{number}")
        probed(store, make_measurement, device, ())
        ask(store, fleet, device, b"model")

    assert all_questions() == with_one


def test_open_jobs_come_in_the_order_in_which_a_device_claims_them(
    store: Store, fleet: "Fleet", kiosk: Device
) -> None:
    for study in ("line", "cells"):
        store.studies.create(study, "{}", 1)
    for model, study in ((b"a", "line"), (b"b", "line"), (b"c", "cells"), (b"d", "line")):
        ask(store, fleet, kiosk, model, study)
    urgent = store.jobs.submit(kiosk.id, fleet.spec(b"now"), priority=1).id

    listed = [line.id for line in store.queue_view.jobs(JobQuery())]
    claimed = []
    while (lease := store.jobs.claim(kiosk.id, "session", 60.0)) is not None:
        claimed.append(lease.job.id)
        outcome = MeasurementFailure(kiosk.id, None, "worker_crashed", "it crashed", store.now())
        store.jobs.report(kiosk.id, lease.job.id, lease.attempt, lease.job.id, outcome)

    assert listed[0] == urgent
    assert listed == claimed


def test_a_job_line_tells_what_came_of_it(
    store: Store, make_measurement: Any, fleet: "Fleet", kiosk: Device
) -> None:
    for model in (b"good", b"bad"):
        job_id = ask(store, fleet, kiosk, model)
        lease = store.jobs.claim(kiosk.id, "session", 60.0)
        assert lease is not None
        sha256 = fleet.run(model).model_sha256
        store.jobs.report(
            kiosk.id,
            job_id,
            lease.attempt,
            job_id,
            make_measurement(kiosk.id, sha256)
            if model == b"good"
            else MeasurementFailure(kiosk.id, sha256, "timeout", "it never ended", store.now()),
        )

    bad, good = store.queue_view.jobs(JobQuery(states=ALL_STATES))

    assert (good.label, good.state, good.failure_kind) == ("good", "done", None)
    assert good.measurement_number is not None
    assert (bad.label, bad.state, bad.failure_message) == ("bad", "failed", "it never ended")
    failed: tuple[JobState, ...] = ("failed",)
    assert store.queue_view.jobs(JobQuery(states=failed)) == [bad]
    assert store.queue_view.jobs(JobQuery(states=ALL_STATES, id_prefix=bad.id[:8])) == [bad]
    assert store.queue_view.jobs(JobQuery(states=ALL_STATES), limit=1) == [bad]


def test_an_id_is_taken_by_its_letters(store: Store, fleet: "Fleet", kiosk: Device) -> None:
    ask(store, fleet, kiosk, b"a")

    assert store.queue_view.jobs(JobQuery(id_prefix="%")) == []
    assert store.queue_view.jobs(JobQuery(id_prefix="_")) == []


def test_the_audit_log_is_searched_by_device_action_and_time(
    store: Store, clock: "FakeClock"
) -> None:
    store.audit.note("token", "kiosk", {})
    clock.advance(60)
    store.audit.note("enrol", "kiosk", {}, actor="device kiosk")
    store.audit.note("job", "press", {})
    store.audit.note("export", "cells", {}, actor="device kiosk")
    numbers = {"kiosk": [1, 2, 4], "press": [3], "nobody": []}

    found = {name: store.queue_view.audit(device=name) for name in numbers}

    assert {name: [e.number for e in entries] for name, entries in found.items()} == numbers
    assert [e.number for e in store.queue_view.audit(action="job")] == [3]
    assert [e.number for e in store.queue_view.audit(last=2)] == [3, 4]
    since = store.now() - timedelta(seconds=1)
    assert [e.number for e in store.queue_view.audit(since=since)] == [2, 3, 4]


def test_a_head_is_in_the_chain_while_its_entry_is(store: Store) -> None:
    store.audit.note("token", "kiosk", {})
    head = store.audit.verify().head_sha256

    assert store.queue_view.is_in_chain(head)
    assert store.queue_view.is_in_chain("0" * 64)
    assert not store.queue_view.is_in_chain("1" * 64)
