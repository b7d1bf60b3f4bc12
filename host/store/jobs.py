"""The queue: who wants something of a device, who works on it, and what came of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast
from uuid import uuid4

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from host.job import (
    MAX_LOST_ATTEMPTS,
    MAX_REFUSALS,
    Job,
    JobState,
    Lease,
    job_key,
    refusal_delay_seconds,
)
from host.measurement import (
    FailureKind,
    Measurement,
    MeasurementFailure,
    Outcome,
    Spec,
    blobs_of,
)
from host.store.blobs import UnknownBlobError
from host.store.codec import to_plain
from host.store.database import Database, StoreError, insert_absent
from host.store.devices import require_device
from host.store.records import (
    device_from_row,
    failure_from_row,
    failure_to_row,
    job_from_row,
    measurement_from_row,
    measurement_to_row,
    result_from_row,
    result_to_row,
)
from host.store.tables import (
    BlobRow,
    DeviceRow,
    FailureRow,
    JobRow,
    LeaseRow,
    MeasurementRow,
    ResultRow,
)

IDS_A_QUERY = 1000  # below every database's limit of parameters


class UnknownJobError(StoreError):
    """There is no such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r} for this device in this workspace")
        self.job_id = job_id


@dataclass(frozen=True)
class Queue:
    """What a connected device should know: jobs to claim, whether it works, jobs to stop."""

    waiting: int = 0
    working: bool = False
    stopped_job_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where a job stands; the outcome is there once the state is done or failed.

    `not_ready_because` is why its device last refused, while the job waits to be tried again.
    """

    state: JobState
    outcome: Outcome | None
    not_ready_because: str | None = None


class Jobs:
    """The jobs of a workspace. Every method is one transaction."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def submit(
        self,
        device_id: str,
        spec: Spec,
        *,
        study_id: int | None = None,
        purpose: str = "measure",
        priority: int = 0,
        label: str = "",
    ) -> Job:
        """Ask for something; asking twice for the same gives the same job.

        A job that had been cancelled is queued again, and so is one that failed only because its
        device went away or was not ready too often: that says nothing of the model. A higher
        priority is claimed earlier; `label` is for people. Raises UnknownDeviceError for a removed
        or unknown device, and UnknownBlobError where the model or the inputs were not put into the
        store first.
        """
        with self._database.write() as session:
            device = require_device(session, device_id)
            for sha256 in blobs_of(spec):
                if session.get(BlobRow, sha256) is None:
                    raise UnknownBlobError(sha256)
            key = job_key(device_from_row(device), spec, purpose)
            model, inputs = (*blobs_of(spec), None, None)[:2]
            job = {
                "id": uuid4().hex,
                "key": key,
                "device_id": device_id,
                "model_sha256": model,
                "inputs_sha256": inputs,
                "kind": spec.kind,
                "spec": to_plain(spec),
                "label": label,
                "state": "queued",
                "attempt": 0,
                "lost_attempts": 0,
                "refusals": 0,
                "priority": priority,
                "purpose": purpose,
                "study_id": study_id,
                "created_at": self._now(),
            }
            insert_absent(session, JobRow, [job])
            row = session.scalars(select(JobRow).where(JobRow.key == key).with_for_update()).one()
            if row.state == "cancelled" or _says_nothing(session, row):
                self._end_leases(session, LeaseRow.job_id == row.id)
                _queue_anew(row)
            return job_from_row(row)

    def claim(self, device_id: str, session_id: str, lease_seconds: float) -> Lease | None:
        """Give the device its next job: the highest priority first, then the oldest.

        No two claims ever get the same attempt. Leases of this device that ran out end first.
        """
        with self._database.write() as session:
            now = self._now()
            expired = and_(LeaseRow.device_id == device_id, LeaseRow.expires_at <= now)
            self._lose(session, expired, "the agent went away")
            row = session.scalars(_next_job(device_id, now)).first()
            if row is None:
                return None
            row.state = "leased"
            row.attempt += 1
            lease = LeaseRow(
                id=uuid4().hex,
                job_id=row.id,
                device_id=device_id,
                session_id=session_id,
                attempt=row.attempt,
                lease_seconds=lease_seconds,
                taken_at=now,
                expires_at=now + timedelta(seconds=lease_seconds),
                ended_at=None,
            )
            session.add(lease)
            return Lease(lease.id, job_from_row(row), row.attempt, lease_seconds)

    def renew(self, device_id: str, lease_id: str) -> bool:
        """Keep a lease alive; True says that its job is to be stopped."""
        with self._database.write() as session:
            lease = session.get(LeaseRow, lease_id, with_for_update=True)
            if lease is None or lease.device_id != device_id or lease.ended_at is not None:
                return True
            job = session.scalars(select(JobRow).where(JobRow.id == lease.job_id)).one()
            if job.state != "leased":
                return True
            lease.expires_at = self._now() + timedelta(seconds=lease.lease_seconds)
            return False

    def release_sessions_before(self, device_id: str, session_id: str) -> int:
        """End the leases that other sessions of the device hold; their jobs are queued again.

        Returns how many leases ended.
        """
        with self._database.write() as session:
            others = and_(LeaseRow.device_id == device_id, LeaseRow.session_id != session_id)
            return self._lose(session, others, "the agent went away")

    def report(
        self,
        device_id: str,
        job_id: str,
        attempt: int,
        idempotency_key: str,
        outcome: Outcome,
    ) -> bool:
        """Keep the outcome of a job that has none yet, whatever became of its lease.

        Returns whether it was kept: a job has one outcome. A device that was told to stop has
        nothing to tell: its failure `cancelled` only gives the job back. A device that was not
        ready gets the job again after a while, and MAX_REFUSALS times in all. Raises
        UnknownJobError.
        """
        with self._database.write() as session:
            row = session.scalars(
                select(JobRow).where(JobRow.id == job_id).with_for_update()
            ).one_or_none()
            if row is None or row.device_id != device_id:
                raise UnknownJobError(job_id)
            attempted = and_(LeaseRow.job_id == job_id, LeaseRow.attempt == attempt)
            if isinstance(outcome, MeasurementFailure) and outcome.kind == "cancelled":
                self._lose(session, attempted, "the agent stopped")
                return False
            ended = self._end_leases(session, attempted)
            if row.state in ("done", "failed"):
                return False
            if isinstance(outcome, MeasurementFailure) and outcome.kind == "not_ready":
                # Reported twice, or of an attempt that was lost: counted already.
                if not ended or row.state != "leased":
                    return False
                if not self._refused_too_often(row, outcome):
                    return True
            self._keep(session, row, idempotency_key, outcome)
            return True

    def get(self, job_id: str) -> Job:
        """The job. Raises UnknownJobError."""
        with self._database.read() as session:
            row = session.scalars(select(JobRow).where(JobRow.id == job_id)).one_or_none()
            if row is None:
                raise UnknownJobError(job_id)
            return job_from_row(row)

    def outcome(self, job_id: str) -> Outcome | None:
        """What came of the job; None while nothing has."""
        found = self.progress([job_id]).get(job_id)
        return None if found is None else found.outcome

    def not_ready(self, job_id: str) -> str | None:
        """Why the device last refused the job, while it waits to be tried again."""
        found = self.progress([job_id]).get(job_id)
        return None if found is None else found.not_ready_because

    def progress(self, job_ids: Iterable[str]) -> dict[str, Progress]:
        """Where each of the jobs stands; unknown ones are left out."""
        wanted = list(job_ids)
        found: dict[str, Progress] = {}
        with self._database.read() as session:
            for start in range(0, len(wanted), IDS_A_QUERY):
                ids = wanted[start : start + IDS_A_QUERY]
                found |= _progress(session, ids)
        return found

    def cancel(self, job_ids: Iterable[str]) -> int:
        """Withdraw the jobs that have no outcome yet; returns how many were withdrawn.

        A device that works on one is told to stop.
        """
        wanted = list(job_ids)
        cancelled = 0
        with self._database.write() as session:
            for start in range(0, len(wanted), IDS_A_QUERY):
                ids = wanted[start : start + IDS_A_QUERY]
                for row in session.scalars(
                    select(JobRow)
                    .where(JobRow.id.in_(ids), JobRow.state.in_(("queued", "leased")))
                    .with_for_update()
                ):
                    row.state, row.finished_at = "cancelled", self._now()
                    cancelled += 1
        return cancelled

    def waiting(self, device_id: str) -> int:
        """How many jobs the device could claim now."""
        with self._database.read() as session:
            return _waiting(session, self._now()).get(device_id, 0)

    def queues(self) -> dict[str, Queue]:
        """What each device that may connect should know now, by device id."""
        now = self._now()
        with self._database.read() as session:
            devices = session.scalars(select(DeviceRow.id).where(DeviceRow.removed_at.is_(None)))
            waiting = _waiting(session, now)
            open_leases = session.execute(
                select(LeaseRow.device_id, LeaseRow.job_id, JobRow.state)
                .join(JobRow, JobRow.id == LeaseRow.job_id)
                .where(LeaseRow.ended_at.is_(None), LeaseRow.expires_at > now)
            ).all()
            return {
                device_id: Queue(
                    waiting=waiting.get(device_id, 0),
                    working=any(d == device_id and s == "leased" for d, _, s in open_leases),
                    stopped_job_ids=tuple(
                        job for d, job, s in open_leases if d == device_id and s != "leased"
                    ),
                )
                for device_id in devices
            }

    def leased_blobs(self, device_id: str) -> set[str]:
        """The hashes of the files that the device may read: those of its open leases."""
        with self._database.read() as session:
            statement = (
                select(JobRow.model_sha256, JobRow.inputs_sha256)
                .join(LeaseRow, LeaseRow.job_id == JobRow.id)
                .where(LeaseRow.device_id == device_id, LeaseRow.ended_at.is_(None))
            )
            return {sha256 for row in session.execute(statement) for sha256 in row if sha256}

    def leased(self, device_id: str, lease_id: str) -> Job | None:
        """The job of an open lease of the device; None where it holds no such lease."""
        with self._database.read() as session:
            statement = (
                select(JobRow)
                .join(LeaseRow, LeaseRow.job_id == JobRow.id)
                .where(
                    LeaseRow.id == lease_id,
                    LeaseRow.device_id == device_id,
                    LeaseRow.ended_at.is_(None),
                )
            )
            row = session.scalars(statement).one_or_none()
            return None if row is None else job_from_row(row)

    def of_study(self, study_id: int) -> list[Job]:
        """The jobs that this study was the first to ask for, in that order."""
        with self._database.read() as session:
            statement = select(JobRow).where(JobRow.study_id == study_id).order_by(JobRow.number)
            return [job_from_row(row) for row in session.scalars(statement)]

    def _end_leases(self, session: Session, which: ColumnElement[bool]) -> list[LeaseRow]:
        leases = session.scalars(
            select(LeaseRow).where(which, LeaseRow.ended_at.is_(None)).with_for_update()
        ).all()
        for lease in leases:
            lease.ended_at = self._now()
        return list(leases)

    def _lose(self, session: Session, which: ColumnElement[bool], why: str) -> int:
        """End these leases without an outcome: queue their jobs again, or give up."""
        leases = self._end_leases(session, which)
        for lease in leases:
            job = session.scalars(
                select(JobRow).where(JobRow.id == lease.job_id).with_for_update()
            ).one()
            if job.state != "leased":
                continue
            job.lost_attempts += 1
            if job.lost_attempts < MAX_LOST_ATTEMPTS:
                job.state = "queued"
                continue
            message = f"{why} {job.lost_attempts} times while running this job"
            self._keep(session, job, None, self._failure(job, "worker_crashed", message))
        session.flush()
        return len(leases)

    def _refused_too_often(self, job: JobRow, refusal: MeasurementFailure) -> bool:
        """Queue the job for later, unless its device was not ready MAX_REFUSALS times."""
        job.refusals += 1
        if job.refusals >= MAX_REFUSALS:
            return True
        job.state, job.not_ready_because = "queued", refusal.message
        job.not_before = self._now() + timedelta(seconds=refusal_delay_seconds(job.refusals))
        return False

    def _failure(self, job: JobRow, kind: FailureKind, message: str) -> MeasurementFailure:
        return MeasurementFailure(job.device_id, job.model_sha256, kind, message, self._now())

    def _keep(
        self, session: Session, job: JobRow, idempotency_key: str | None, outcome: Outcome
    ) -> None:
        """End the job; no idempotency key means that the host found out by itself."""
        now = self._now()
        if isinstance(outcome, MeasurementFailure):
            session.add(failure_to_row(job.id, idempotency_key, outcome))
        elif isinstance(outcome, Measurement):
            session.add(measurement_to_row(job.id, idempotency_key or "", outcome))
        else:
            session.add(result_to_row(job.id, idempotency_key or "", outcome, now))
        job.state = "failed" if isinstance(outcome, MeasurementFailure) else "done"
        job.finished_at = now
        job.not_before = job.not_ready_because = None


def _is_due(now: datetime) -> ColumnElement[bool]:
    return or_(JobRow.not_before.is_(None), JobRow.not_before <= now)


def _next_job(device_id: str, now: datetime) -> Select[JobRow]:
    return (
        select(JobRow)
        .where(JobRow.device_id == device_id, JobRow.state == "queued", _is_due(now))
        .order_by(JobRow.priority.desc(), JobRow.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _claimable(now: datetime) -> ColumnElement[bool]:
    live = exists().where(
        LeaseRow.job_id == JobRow.id, LeaseRow.ended_at.is_(None), LeaseRow.expires_at > now
    )
    return or_(and_(JobRow.state == "queued", _is_due(now)), and_(JobRow.state == "leased", ~live))


def _queue_anew(row: JobRow) -> None:
    row.state, row.finished_at = "queued", None
    row.lost_attempts = row.refusals = 0
    row.not_before = row.not_ready_because = None


def _says_nothing(session: Session, row: JobRow) -> bool:
    """Whether the job failed without a word from its device, or because that was not ready;
    then the failure is forgotten.
    """
    if row.state != "failed":
        return False
    failure = session.scalars(select(FailureRow).where(FailureRow.job_id == row.id)).one()
    if failure.idempotency_key is not None and failure.kind != "not_ready":
        return False
    session.delete(failure)
    session.flush()
    return True


def _waiting(session: Session, now: datetime) -> dict[str, int]:
    rows = session.execute(
        select(JobRow.device_id, func.count()).where(_claimable(now)).group_by(JobRow.device_id)
    )
    return {device_id: count for device_id, count in rows}  # noqa: C416 - a Row is no typed pair


def _progress(session: Session, job_ids: list[str]) -> dict[str, Progress]:
    outcomes: dict[str, Outcome] = {}
    for measured in session.scalars(
        select(MeasurementRow).where(MeasurementRow.job_id.in_(job_ids))
    ):
        outcomes[measured.job_id] = measurement_from_row(measured)
    for result in session.scalars(select(ResultRow).where(ResultRow.job_id.in_(job_ids))):
        outcomes[result.job_id] = result_from_row(result)
    for failed in session.scalars(select(FailureRow).where(FailureRow.job_id.in_(job_ids))):
        outcomes[failed.job_id] = failure_from_row(failed)
    rows = session.scalars(select(JobRow).where(JobRow.id.in_(job_ids)))
    return {
        row.id: Progress(
            state=cast("JobState", row.state),
            outcome=outcomes.get(row.id),
            not_ready_because=row.not_ready_because if row.state == "queued" else None,
        )
        for row in rows
    }
