"""The queue: who wants a measurement, who works on it, and what came of it."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from host.job import MAX_LOST_ATTEMPTS, Job, JobState, Lease, job_key
from host.measurement import Measurement, MeasurementFailure, MeasureSpec, Outcome
from host.store.blobs import UnknownBlobError
from host.store.database import Database, StoreError, insert_absent
from host.store.devices import UnknownDeviceError
from host.store.records import (
    device_from_row,
    failure_from_row,
    failure_to_row,
    job_from_row,
    measurement_from_row,
    measurement_to_row,
)
from host.store.tables import BlobRow, DeviceRow, FailureRow, JobRow, LeaseRow, MeasurementRow

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
    """Where a job stands; the outcome is there once the state is done or failed."""

    state: JobState
    outcome: Outcome | None


class Jobs:
    """The jobs of a workspace. Every method is one transaction."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def submit(
        self,
        device_id: str,
        spec: MeasureSpec,
        *,
        study_id: int | None = None,
        purpose: str = "measure",
        priority: int = 0,
    ) -> Job:
        """Ask for a measurement; asking twice for the same one gives the same job.

        A job that had been cancelled is queued again, and so is one that failed only because its
        device went away too often: that says nothing of the model. A higher priority is claimed
        earlier. Raises UnknownDeviceError for a removed or unknown device, and UnknownBlobError
        where the model was not put into the store first.
        """
        with self._database.write() as session:
            device = session.get(DeviceRow, device_id)
            if device is None or device.removed_at is not None:
                raise UnknownDeviceError(f"no device with the id {device_id} is enrolled")
            if session.get(BlobRow, spec.model_sha256) is None:
                raise UnknownBlobError(spec.model_sha256)
            key = job_key(device_from_row(device), spec, purpose)
            job = {
                "id": uuid4().hex,
                "key": key,
                "device_id": device_id,
                "model_sha256": spec.model_sha256,
                "spec": asdict(spec),
                "state": "queued",
                "attempt": 0,
                "lost_attempts": 0,
                "priority": priority,
                "purpose": purpose,
                "study_id": study_id,
                "created_at": self._now(),
            }
            insert_absent(session, JobRow, [job])
            row = session.scalars(select(JobRow).where(JobRow.key == key).with_for_update()).one()
            if row.state == "cancelled" or _was_lost(session, row):
                self._end_leases(session, LeaseRow.job_id == row.id)
                row.state, row.lost_attempts, row.finished_at = "queued", 0, None
            return job_from_row(row)

    def claim(self, device_id: str, session_id: str, lease_seconds: float) -> Lease | None:
        """Give the device its next job: the highest priority first, then the oldest.

        No two claims ever get the same attempt. Leases of this device that ran out end first.
        """
        with self._database.write() as session:
            now = self._now()
            expired = and_(LeaseRow.device_id == device_id, LeaseRow.expires_at <= now)
            self._lose(session, expired, "the agent went away")
            row = session.scalars(_next_job(device_id)).first()
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
        nothing to tell: its failure `cancelled` only gives the job back. Raises UnknownJobError.
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
            if row.state in ("done", "failed"):
                self._end_leases(session, attempted)
                return False
            session.add(_outcome_row(job_id, idempotency_key, outcome))
            row.state = "done" if isinstance(outcome, Measurement) else "failed"
            row.finished_at = self._now()
            self._end_leases(session, attempted)
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
        """The hashes of the models that the device may read: those of its open leases."""
        with self._database.read() as session:
            statement = (
                select(JobRow.model_sha256)
                .join(LeaseRow, LeaseRow.job_id == JobRow.id)
                .where(LeaseRow.device_id == device_id, LeaseRow.ended_at.is_(None))
            )
            return set(session.scalars(statement))

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
            job.state, job.finished_at = "failed", self._now()
            failure = MeasurementFailure(
                device_id=job.device_id,
                model_sha256=job.model_sha256,
                kind="worker_crashed",
                message=f"{why} {job.lost_attempts} times while running this job",
                failed_at=self._now(),
            )
            session.add(failure_to_row(job.id, None, failure))
        session.flush()
        return len(leases)


def _next_job(device_id: str) -> Select[JobRow]:
    return (
        select(JobRow)
        .where(JobRow.device_id == device_id, JobRow.state == "queued")
        .order_by(JobRow.priority.desc(), JobRow.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _claimable(now: datetime) -> ColumnElement[bool]:
    live = exists().where(
        LeaseRow.job_id == JobRow.id, LeaseRow.ended_at.is_(None), LeaseRow.expires_at > now
    )
    return or_(JobRow.state == "queued", and_(JobRow.state == "leased", ~live))


def _was_lost(session: Session, row: JobRow) -> bool:
    """Whether the job failed without a word from its device; then the failure is forgotten."""
    if row.state != "failed":
        return False
    failure = session.scalars(select(FailureRow).where(FailureRow.job_id == row.id)).one()
    if failure.idempotency_key is not None:
        return False
    session.delete(failure)
    session.flush()
    return True


def _waiting(session: Session, now: datetime) -> dict[str, int]:
    rows = session.execute(
        select(JobRow.device_id, func.count()).where(_claimable(now)).group_by(JobRow.device_id)
    )
    return {device_id: count for device_id, count in rows}  # noqa: C416 - a Row is no typed pair


def _outcome_row(
    job_id: str, idempotency_key: str, outcome: Outcome
) -> MeasurementRow | FailureRow:
    if isinstance(outcome, Measurement):
        return measurement_to_row(job_id, idempotency_key, outcome)
    return failure_to_row(job_id, idempotency_key, outcome)


def _progress(session: Session, job_ids: list[str]) -> dict[str, Progress]:
    outcomes: dict[str, Outcome] = {}
    for measured in session.scalars(
        select(MeasurementRow).where(MeasurementRow.job_id.in_(job_ids))
    ):
        outcomes[measured.job_id] = measurement_from_row(measured)
    for failed in session.scalars(select(FailureRow).where(FailureRow.job_id.in_(job_ids))):
        outcomes[failed.job_id] = failure_from_row(failed)
    rows = session.scalars(select(JobRow).where(JobRow.id.in_(job_ids)))
    jobs = [job_from_row(row) for row in rows]
    return {job.id: Progress(job.state, outcomes.get(job.id)) for job in jobs}
