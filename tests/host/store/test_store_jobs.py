"""The queue: every job once, nothing lost, whoever goes away."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.job import Lease
from host.measurement import Measurement, MeasurementFailure, MeasureSpec
from host.store import (
    JobCancelledError,
    Store,
    UnknownBlobError,
    UnknownDeviceError,
    UnknownJobError,
    Waiting,
    wait_for_outcomes,
)

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet

MakeMeasurement = Callable[..., Measurement]


def claimed(store: Store, device_id: str, session: str = "s", seconds: float = 60.0) -> Lease:
    lease = store.jobs.claim(device_id, session, seconds)
    assert lease is not None
    return lease


def failure(device_id: str, spec: MeasureSpec, store: Store, kind: str) -> MeasurementFailure:
    assert kind in ("timeout", "cancelled")
    return MeasurementFailure(
        device_id=device_id,
        model_sha256=spec.model_sha256,
        kind="timeout" if kind == "timeout" else "cancelled",
        message="because",
        failed_at=store.now(),
    )


def test_asking_twice_gives_the_same_job(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()

    first, second = (store.jobs.submit(device.id, spec) for _ in range(2))

    assert first == second
    assert store.jobs.waiting(device.id) == 1


@pytest.mark.parametrize(
    "change",
    [{"threads": 2}, {"min_samples": 31}, {"timeout_seconds": 7.0}, {"protocol": "other/1"}],
)
def test_another_spec_is_another_job(
    store: Store, fleet: "Fleet", change: dict[str, object]
) -> None:
    device, spec = fleet.device(), fleet.spec()
    first = store.jobs.submit(device.id, spec)

    second = store.jobs.submit(device.id, replace(spec, **change))  # type: ignore[arg-type]

    assert second.id != first.id


def test_another_purpose_or_device_is_another_job(store: Store, fleet: "Fleet") -> None:
    spec = fleet.spec()
    kiosk, press = fleet.device("kiosk"), fleet.device("press")

    jobs = [
        store.jobs.submit(kiosk.id, spec),
        store.jobs.submit(kiosk.id, spec, purpose="verify"),
        store.jobs.submit(press.id, spec),
    ]

    assert len({job.id for job in jobs}) == 3


def test_an_updated_runtime_is_measured_anew(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    before = store.jobs.submit(device.id, spec)
    assert device.facts is not None
    runtime = replace(device.facts.runtimes[0], version="1.24.2")
    store.devices.seen(device.id, facts=replace(device.facts, runtimes=(runtime,)))

    after = store.jobs.submit(device.id, spec)

    assert after.id != before.id


def test_a_job_needs_its_device_and_its_model(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()

    with pytest.raises(UnknownDeviceError):
        store.jobs.submit("nobody", spec)
    with pytest.raises(UnknownBlobError, match="0" * 64):
        store.jobs.submit(device.id, replace(spec, model_sha256="0" * 64))


def test_the_highest_priority_comes_first_and_then_the_oldest(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    for model, priority in ((b"a", 0), (b"b", 0), (b"c", 5)):
        store.jobs.submit(device.id, fleet.spec(model), priority=priority)

    order = [store.blobs.get(claimed(store, device.id).job.spec.model_sha256) for _ in range(3)]

    assert order == [b"c", b"a", b"b"]
    assert store.jobs.claim(device.id, "s", 60) is None


def test_a_device_gets_only_its_own_jobs(store: Store, fleet: "Fleet") -> None:
    kiosk, press = fleet.device("kiosk"), fleet.device("press")
    store.jobs.submit(kiosk.id, fleet.spec())

    assert store.jobs.claim(press.id, "s", 60) is None


def test_a_lease_that_is_not_renewed_ends_and_the_job_is_given_again(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    first = claimed(store, device.id)
    assert store.jobs.waiting(device.id) == 0
    clock.advance(61)
    assert store.jobs.waiting(device.id) == 1

    second = claimed(store, device.id)

    assert (second.job.id, second.attempt) == (job.id, 2)
    assert store.jobs.renew(device.id, first.lease_id)
    assert not store.jobs.renew(device.id, second.lease_id)


def test_a_renewed_lease_lives_on(store: Store, fleet: "Fleet", clock: "FakeClock") -> None:
    device = fleet.device()
    store.jobs.submit(device.id, fleet.spec())
    lease = claimed(store, device.id)

    for _ in range(5):
        clock.advance(40)
        assert not store.jobs.renew(device.id, lease.lease_id)

    assert store.jobs.claim(device.id, "s", 60) is None


def test_another_device_cannot_renew_a_lease(store: Store, fleet: "Fleet") -> None:
    kiosk, press = fleet.device("kiosk"), fleet.device("press")
    store.jobs.submit(kiosk.id, fleet.spec())

    assert store.jobs.renew(press.id, claimed(store, kiosk.id).lease_id)


def test_a_restarted_agent_gives_back_what_it_held(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    claimed(store, device.id, "before")

    released = store.jobs.release_sessions_before(device.id, "after")

    assert released == 1
    assert store.jobs.get(job.id).state == "queued"
    assert claimed(store, device.id, "after").attempt == 2
    assert store.jobs.release_sessions_before(device.id, "after") == 0


def test_after_three_lost_attempts_the_job_fails(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())

    for number in range(3):
        claimed(store, device.id, f"session {number}")
        store.jobs.release_sessions_before(device.id, "next")

    outcome = store.jobs.outcome(job.id)
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.kind == "worker_crashed"
    assert outcome.message == "the agent went away 3 times while running this job"
    assert store.jobs.get(job.id).state == "failed"
    assert store.jobs.claim(device.id, "s", 60) is None


def test_a_report_is_kept_with_every_sample(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    measurement = make_measurement(device.id, spec.model_sha256)

    stored = store.jobs.report(device.id, job.id, 1, f"{job.id}:1", measurement)

    assert stored
    assert store.jobs.outcome(job.id) == measurement
    assert store.measurements.of_device(device.id, spec.model_sha256) == [measurement]
    assert store.measurements.of_device(device.id, "0" * 64) == []
    assert store.jobs.get(job.id).state == "done"


def test_a_late_report_counts_whatever_became_of_its_lease(
    store: Store, fleet: "Fleet", clock: "FakeClock", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    clock.advance(61)
    second = claimed(store, device.id)
    measurement = make_measurement(device.id, spec.model_sha256)

    stored = store.jobs.report(device.id, job.id, 1, f"{job.id}:1", measurement)

    assert stored
    assert store.jobs.renew(device.id, second.lease_id), "the second attempt is to stop"
    late = make_measurement(device.id, spec.model_sha256, 9.0)
    assert not store.jobs.report(device.id, job.id, 2, f"{job.id}:2", late)
    assert store.jobs.outcome(job.id) == measurement
    assert store.jobs.queues()[device.id].stopped_job_ids == ()


def test_only_the_device_of_a_job_reports_it(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    kiosk, press, spec = fleet.device("kiosk"), fleet.device("press"), fleet.spec()
    job = store.jobs.submit(kiosk.id, spec)
    measurement = make_measurement(press.id, spec.model_sha256)

    for device_id, job_id in ((press.id, job.id), (kiosk.id, "no job")):
        with pytest.raises(UnknownJobError):
            store.jobs.report(device_id, job_id, 1, "k", measurement)


def test_a_failure_ends_the_job_too(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    failed = failure(device.id, spec, store, "timeout")

    assert store.jobs.report(device.id, job.id, 1, f"{job.id}:1", failed)

    assert store.jobs.outcome(job.id) == failed
    assert store.jobs.submit(device.id, spec).state == "failed"


def test_a_cancelled_job_is_not_given_and_can_be_asked_for_again(
    store: Store, fleet: "Fleet"
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    assert store.jobs.cancel([job.id, "no job"]) == 1
    assert store.jobs.claim(device.id, "s", 60) is None

    again = store.jobs.submit(device.id, spec)

    assert (again.id, again.state) == (job.id, "queued")
    assert claimed(store, device.id).job.id == job.id


def test_the_answer_to_a_cancel_is_no_outcome(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    store.jobs.cancel([job.id])
    assert store.jobs.queues()[device.id].stopped_job_ids == (job.id,)
    stopped = failure(device.id, spec, store, "cancelled")

    stored = store.jobs.report(device.id, job.id, 1, f"{job.id}:1", stopped)

    assert not stored
    assert store.jobs.get(job.id).state == "cancelled"
    assert store.jobs.outcome(job.id) is None
    assert store.jobs.queues()[device.id].stopped_job_ids == ()


def test_a_late_answer_to_a_cancel_does_not_harm_a_job_asked_for_again(
    store: Store, fleet: "Fleet"
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    store.jobs.cancel([job.id])
    store.jobs.submit(device.id, spec)

    store.jobs.report(device.id, job.id, 1, "k", failure(device.id, spec, store, "cancelled"))

    assert store.jobs.get(job.id).state == "queued"
    assert claimed(store, device.id).attempt == 2


def test_a_measurement_of_a_cancelled_job_is_kept(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    store.jobs.cancel([job.id])

    measurement = make_measurement(device.id, spec.model_sha256)
    assert store.jobs.report(device.id, job.id, 1, "k", measurement)

    assert store.jobs.get(job.id).state == "done"
    assert store.jobs.cancel([job.id]) == 0


def test_only_models_of_open_leases_may_be_read(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    before = store.jobs.leased_blobs(device.id)
    claimed(store, device.id)
    during = store.jobs.leased_blobs(device.id)

    measurement = make_measurement(device.id, spec.model_sha256)
    store.jobs.report(device.id, job.id, 1, "k", measurement)

    assert (before, during) == (set(), {spec.model_sha256})
    assert store.jobs.leased_blobs(device.id) == set()


def test_a_removed_device_has_no_jobs_left(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)

    store.devices.remove(device.name)

    assert store.jobs.get(job.id).state == "cancelled"
    with pytest.raises(UnknownDeviceError):
        store.jobs.submit(device.id, spec)


def test_the_jobs_of_a_study_are_those_it_asked_for_first(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    study = store.studies.create("one", "{}", 1)
    jobs = [
        store.jobs.submit(device.id, fleet.spec(model), study_id=study.id) for model in (b"1", b"2")
    ]
    store.jobs.submit(device.id, fleet.spec(b"3"))

    assert store.jobs.of_study(study.id) == jobs


def test_waiting_yields_outcomes_as_they_come(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device = fleet.device()
    specs = [fleet.spec(model) for model in (b"a", b"b", b"c")]
    jobs = [store.jobs.submit(device.id, spec) for spec in specs]
    pending = [2, 0, 1]
    waits: list[Waiting] = []

    def finish_one(_seconds: float) -> None:
        number = pending.pop(0)
        measurement = make_measurement(device.id, specs[number].model_sha256)
        store.jobs.report(device.id, jobs[number].id, 1, "k", measurement)

    outcomes = wait_for_outcomes(store, jobs, on_wait=waits.append, sleep=finish_one)

    assert [job.id for job, _ in outcomes] == [jobs[i].id for i in (2, 0, 1)]
    assert [len(waiting.jobs) for waiting in waits] == [3, 2, 1]
    assert [d.name for d in waits[0].offline] == ["kiosk"]


def test_waiting_for_a_job_that_is_withdrawn_ends(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())

    with pytest.raises(JobCancelledError, match="run the same command again"):
        list(wait_for_outcomes(store, [job], sleep=lambda _: store.devices.remove("kiosk")))


def _meet(folder: Path, who: str) -> None:
    (folder / f"ready-{who}").touch()
    deadline = time.monotonic() + 20
    while len(list(folder.glob(f"ready-{who[0]}*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _claim_all(place: str | Path, folder: Path, device_id: str, session: str) -> list[str]:
    _meet(folder, session)
    with Store.open(place, blobs_folder=folder) as store:
        found = []
        while lease := store.jobs.claim(device_id, session, 60):
            found.append(lease.job.id)
        return found


def _submit_all(place: str | Path, folder: Path, device_id: str, who: str) -> list[str]:
    _meet(folder, who)
    with Store.open(place, blobs_folder=folder) as store:
        specs = [MeasureSpec(store.blobs.put(str(i).encode()).sha256, 1) for i in range(40)]
        return [store.jobs.submit(device_id, spec).id for spec in specs]


def test_processes_that_submit_and_claim_at_once_never_share_an_attempt(
    tmp_path: Path, store: Store, store_place: str | Path, fleet: "Fleet"
) -> None:
    device = fleet.device()
    common = [store_place] * 2, [tmp_path] * 2, [device.id] * 2

    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        submitted = list(pool.map(_submit_all, *common, ["s1", "s2"]))
        given = list(pool.map(_claim_all, *common, ["c1", "c2"]))

    assert submitted[0] == submitted[1]
    assert sorted([*given[0], *given[1]]) == sorted(submitted[0])
