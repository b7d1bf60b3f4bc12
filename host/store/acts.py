"""What devices do with jobs: claim, renew, report. Of many devices in one transaction, because
waiting for the disk is what a transaction costs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import uuid4

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, delete, insert, or_, select
from sqlalchemy.orm import Session, aliased, load_only

from host.errors import GenbaError
from host.job import MAX_REFUSALS, Lease, refusal_delay_seconds
from host.measurement import Measurement, MeasurementFailure, Outcome
from host.store.codec import StoredValueError
from host.store.database import StoreError
from host.store.devices import UnknownDeviceError, why_shut_out
from host.store.leases import lose_leases
from host.store.records import (
    failure_values,
    job_from_row,
    measurement_values,
    result_values,
)
from host.store.tables import (
    DeviceRow,
    FailureRow,
    JobRow,
    LeaseRow,
    MeasurementRow,
    ResultRow,
    UtcDateTime,
)

OutcomeTable = type[MeasurementRow] | type[FailureRow] | type[ResultRow]


class UnknownJobError(StoreError):
    """There is no such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r} for this device in this workspace")
        self.job_id = job_id


class SessionSupersededError(StoreError):
    """The device has opened another session since."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} has opened another session since: only one agent may run with its key"
        )


@dataclass(frozen=True)
class Claim:
    """A device asks for its next job, and has given up the job of that lease, if any."""

    device_id: str
    session_id: str
    lease_seconds: float
    given_up_lease_id: str | None = None


@dataclass(frozen=True)
class Renewal:
    """A device still works under a lease."""

    device_id: str
    lease_id: str


@dataclass(frozen=True)
class Report:
    """What came of an attempt at a job, as it is going to be kept."""

    device_id: str
    job_id: str
    attempt: int
    failure: MeasurementFailure | None
    table: OutcomeTable
    values: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(
        cls,
        job: tuple[str, str, int],
        idempotency_key: str,
        outcome: Outcome,
        reported_at: datetime,
    ) -> Self:
        """The report of the attempt `job`: device id, job id, number of the attempt.

        Packs the outcome, which takes a while: not for the inside of a transaction.
        """
        device_id, job_id, attempt = job
        table: OutcomeTable
        failure = outcome if isinstance(outcome, MeasurementFailure) else None
        if isinstance(outcome, MeasurementFailure):
            table, values = FailureRow, failure_values(job_id, idempotency_key, outcome)
        elif isinstance(outcome, Measurement):
            table, values = MeasurementRow, measurement_values(job_id, idempotency_key, outcome)
        else:
            values = result_values(job_id, idempotency_key, outcome, reported_at)
            table = ResultRow
        return cls(device_id, job_id, attempt, failure, table, values)


Act = Claim | Renewal | Report
Answer = Lease | bool | None | GenbaError


def is_due(
    now: datetime | BindParameter[datetime], job: type[JobRow] = JobRow
) -> ColumnElement[bool]:
    """Whether a queued job may be given now."""
    return or_(job.not_before.is_(None), job.not_before <= now)


def _next_jobs() -> Select[JobRow]:
    """Of each device the job that is next."""
    waiting = aliased(JobRow)
    due = is_due(bindparam("now", type_=UtcDateTime()), waiting)
    first = (
        select(waiting.number)
        .where(waiting.device_id == DeviceRow.id, waiting.state == "queued", due)
        .order_by(waiting.priority.desc(), waiting.turn, waiting.number)
        .limit(1)
        .correlate(DeviceRow)
        .scalar_subquery()
    )
    return (
        select(JobRow)
        .where(
            JobRow.number.in_(select(first).where(DeviceRow.id.in_(_IDS))),
            JobRow.state == "queued",
        )
        .order_by(JobRow.number)
        .with_for_update()
    )


# Made once: to put a statement together takes longer than to run it.
_IDS: BindParameter[Sequence[str]] = bindparam("ids", expanding=True)
_DEVICES = (
    select(DeviceRow)
    .options(
        load_only(DeviceRow.name, DeviceRow.session_id, DeviceRow.removed_at, DeviceRow.revoked_at)
    )
    .where(DeviceRow.id.in_(_IDS))
    .order_by(DeviceRow.id)
    .with_for_update(key_share=True)  # new rows may refer to the device all the same
)
_HELD = (
    select(LeaseRow, JobRow)
    .join(JobRow, JobRow.id == LeaseRow.job_id)
    .where(LeaseRow.device_id.in_(_IDS), LeaseRow.ended_at.is_(None))
    .order_by(LeaseRow.taken_at)
    .with_for_update(of=LeaseRow)
)
_NEXT_JOBS = _next_jobs()
_RENEWED = (
    select(LeaseRow, JobRow.state)
    .join(JobRow, JobRow.id == LeaseRow.job_id)
    .where(LeaseRow.id.in_(_IDS))
    .order_by(LeaseRow.id)
    .with_for_update(of=LeaseRow)
)
_REPORTED = select(JobRow).where(JobRow.id.in_(_IDS)).order_by(JobRow.number).with_for_update()
_ATTEMPTS = (
    select(LeaseRow)
    .where(LeaseRow.job_id.in_(_IDS), LeaseRow.ended_at.is_(None))
    .order_by(LeaseRow.id)
    .with_for_update()
)


def lock_devices(session: Session, device_ids: Iterable[str]) -> dict[str, DeviceRow]:
    """Have no other transaction change jobs of these devices meanwhile; gives their rows by id.

    Whoever changes jobs calls it first: so two gateways never give a device two jobs, and since
    everybody locks devices by id and jobs after them, nobody waits in a circle.
    """
    rows = session.scalars(_DEVICES, {"ids": sorted(set(device_ids))})
    return {row.id: row for row in rows}


def settle(session: Session, now: datetime, acts: Sequence[Act]) -> list[Answer]:
    """Do what the devices ask for. Each act has its answer: a claim the lease or None, a renewal
    whether to stop, a report whether it was kept; the error where an act was refused.
    """
    devices = lock_devices(session, {act.device_id for act in acts})
    answers: dict[int, Answer] = {}
    # Reports come first: a device that has reported is free to claim.
    answers |= _settled(acts, Report, lambda some: _report(session, now, some))
    answers |= _settled(acts, Renewal, lambda some: _renew(session, now, some))
    answers |= _settled(acts, Claim, lambda some: _claim(session, now, devices, some))
    return [answers[number] for number in range(len(acts))]


def _settled(
    acts: Sequence[Act], kind: type[Any], do: Callable[[Sequence[Any]], Sequence[Answer]]
) -> dict[int, Answer]:
    numbers = [number for number, act in enumerate(acts) if isinstance(act, kind)]
    if not numbers:
        return {}
    return dict(zip(numbers, do([acts[number] for number in numbers]), strict=True))


def _claim(
    session: Session, now: datetime, devices: Mapping[str, DeviceRow], claims: Sequence[Claim]
) -> list[Answer]:
    refused = {claim: _refusal(devices.get(claim.device_id), claim) for claim in claims}
    asking = {claim.device_id: claim for claim in claims if refused[claim] is None}
    given = _held(session, now, asking)
    free = [device_id for device_id in asking if device_id not in given]
    waiting = session.scalars(_NEXT_JOBS, {"ids": free, "now": now}).all() if free else ()
    for job in waiting:
        given[job.device_id] = _lease(session, now, job, asking[job.device_id])
    session.flush()
    return [refused[claim] or given.get(claim.device_id) for claim in claims]


def _refusal(device: DeviceRow | None, claim: Claim) -> GenbaError | None:
    if device is None:
        return UnknownDeviceError(f"no device with the id {claim.device_id} is enrolled")
    shut_out = why_shut_out(device)
    if shut_out is not None:
        return shut_out
    if device.session_id not in (None, claim.session_id):
        return SessionSupersededError(device.name)
    return None


def _held(session: Session, now: datetime, claims: Mapping[str, Claim]) -> dict[str, Answer]:
    """The open leases that devices hold: whoever asks again did not hear the answer. Those that
    do not hold any longer end.
    """
    rows = session.execute(_HELD, {"ids": list(claims)}).all()
    held: dict[str, Answer] = {}
    gone: list[str] = []
    given_up: list[str] = []
    for lease, job in rows:
        claim = claims[lease.device_id]
        if lease.id == claim.given_up_lease_id:
            given_up.append(lease.id)
        elif _holds(lease, job, claim, now) and lease.device_id not in held:
            lease.lease_seconds = claim.lease_seconds
            lease.expires_at = now + timedelta(seconds=claim.lease_seconds)
            held[lease.device_id] = _as_lease(lease, job)
        else:
            gone.append(lease.id)
    for ids, why in ((gone, "the agent went away"), (given_up, "the agent gave up")):
        if ids:
            lose_leases(session, now, LeaseRow.id.in_(ids), why)
    return held


def _holds(lease: LeaseRow, job: JobRow, claim: Claim, now: datetime) -> bool:
    return (
        job.state == "leased"
        and job.attempt == lease.attempt
        and lease.expires_at > now
        and lease.session_id == claim.session_id
    )


def _lease(session: Session, now: datetime, job: JobRow, claim: Claim) -> Answer:
    job.state = "leased"
    job.attempt += 1
    lease = LeaseRow(
        id=uuid4().hex,
        job_id=job.id,
        device_id=job.device_id,
        session_id=claim.session_id,
        attempt=job.attempt,
        lease_seconds=claim.lease_seconds,
        taken_at=now,
        expires_at=now + timedelta(seconds=claim.lease_seconds),
        ended_at=None,
    )
    session.add(lease)
    return _as_lease(lease, job)


def _as_lease(lease: LeaseRow, job: JobRow) -> Lease | StoredValueError:
    """What is damaged is told to its own device only; there the lease runs out."""
    try:
        return Lease(lease.id, job_from_row(job), lease.attempt, lease.lease_seconds)
    except StoredValueError as error:
        return error


def _renew(session: Session, now: datetime, renewals: Sequence[Renewal]) -> list[Answer]:
    ids = sorted({renewal.lease_id for renewal in renewals})
    rows = session.execute(_RENEWED, {"ids": ids}).all()
    alive = {
        (lease.device_id, lease.id): lease
        for lease, state in rows
        if lease.ended_at is None and state == "leased"
    }
    for lease in alive.values():
        lease.expires_at = now + timedelta(seconds=lease.lease_seconds)
    session.flush()
    return [(renewal.device_id, renewal.lease_id) not in alive for renewal in renewals]


def _report(session: Session, now: datetime, reports: Sequence[Report]) -> list[Answer]:
    ids = sorted({report.job_id for report in reports})
    jobs = {row.id: row for row in session.scalars(_REPORTED, {"ids": ids})}
    leases = session.scalars(_ATTEMPTS, {"ids": ids}).all()
    kept: dict[OutcomeTable, list[Mapping[str, Any]]] = {}
    answers: list[Answer] = []
    for report in reports:
        job = jobs.get(report.job_id)
        if job is None or job.device_id != report.device_id:
            answers.append(UnknownJobError(report.job_id))
            continue
        attempted = [
            lease
            for lease in leases
            if (lease.job_id, lease.attempt) == (job.id, report.attempt) and lease.ended_at is None
        ]
        stored = _settle_report(session, now, job, report, attempted)
        if stored and job.state in ("done", "failed"):
            kept.setdefault(report.table, []).append(report.values)
        answers.append(stored)
    session.flush()
    for table, values in kept.items():
        session.execute(insert(table), values)
    return answers


def _settle_report(
    session: Session, now: datetime, job: JobRow, report: Report, attempted: Sequence[LeaseRow]
) -> bool:
    """End the attempt, and the job where this is its outcome; whether it counts."""
    failure = report.failure
    if failure is not None and failure.kind == "cancelled":
        ids = [lease.id for lease in attempted]
        lose_leases(session, now, LeaseRow.id.in_(ids), "the agent stopped")
        return False
    for lease in attempted:
        lease.ended_at = now
    if job.state == "done" or (job.state == "failed" and not _was_guessed(session, job)):
        return False
    if failure is not None and failure.kind == "not_ready":
        # Reported twice, or of an attempt that was lost: counted already.
        if not attempted or job.state != "leased":
            return False
        if not _refused_too_often(job, failure, now):
            return True
    if job.state == "failed":
        # What the device says counts more than what the host made of its silence.
        session.execute(delete(FailureRow).where(FailureRow.job_id == job.id))
    job.state = "done" if failure is None else "failed"
    job.finished_at = now
    job.not_before = job.not_ready_because = None
    return True


def _was_guessed(session: Session, job: JobRow) -> bool:
    """Whether the host itself gave the failed job up, without a word from the device."""
    statement = select(FailureRow.idempotency_key).where(FailureRow.job_id == job.id)
    return session.scalars(statement).one_or_none() is None


def _refused_too_often(job: JobRow, refusal: MeasurementFailure, now: datetime) -> bool:
    """Queue the job for later, unless its device was not ready MAX_REFUSALS times."""
    job.refusals += 1
    if job.refusals >= MAX_REFUSALS:
        return True
    job.state, job.not_ready_because = "queued", refusal.message
    job.not_before = now + timedelta(seconds=refusal_delay_seconds(job.refusals))
    return False
