"""The queue: who wants something of a device, who works on it, and what came of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, or_, select
from sqlalchemy.orm import Session

from host.errors import GenbaError
from host.job import OPEN_STATES, Job, JobState, Lease, job_key
from host.measurement import Outcome, Spec, blobs_of
from host.store.acts import (
    Act,
    Answer,
    Claim,
    Renewal,
    Report,
    UnknownJobError,
    is_due,
    lock_devices,
    settle,
)
from host.store.audit import Audit
from host.store.blobs import UnknownBlobError
from host.store.codec import to_plain
from host.store.database import Database, insert_absent, retried
from host.store.devices import require_device
from host.store.leases import end_leases
from host.store.records import (
    device_from_row,
    failure_from_row,
    job_from_row,
    measurement_from_row,
    result_from_row,
)
from host.store.tables import (
    BlobRow,
    DeviceRow,
    FailureRow,
    JobRow,
    LeaseRow,
    MeasurementRow,
    ResultRow,
    StudyRow,
    UtcDateTime,
)

_NOW = bindparam("now", type_=UtcDateTime())
_MAY_CONNECT = and_(DeviceRow.removed_at.is_(None), DeviceRow.revoked_at.is_(None))
_HELD = and_(LeaseRow.device_id == DeviceRow.id, LeaseRow.ended_at.is_(None))
_AT_WORK = (_HELD, JobRow.id == LeaseRow.job_id, JobRow.state == "leased")
# Made once, as the gateway asks many times a second. The conditions on the tables that grow are
# such that an index answers them for each device.
_CALLERS = select(DeviceRow.id, DeviceRow.spki_sha256, DeviceRow.session_id).where(_MAY_CONNECT)
_TO_CLAIM = select(DeviceRow.id).where(
    _MAY_CONNECT,
    or_(
        exists().where(JobRow.device_id == DeviceRow.id, JobRow.state == "queued", is_due(_NOW)),
        exists().where(*_AT_WORK, LeaseRow.expires_at <= _NOW),
    ),
    ~exists().where(*_AT_WORK, LeaseRow.expires_at > _NOW),
)
_TO_STOP = (
    select(LeaseRow.device_id, LeaseRow.job_id)
    .join(JobRow, JobRow.id == LeaseRow.job_id)
    .where(
        LeaseRow.device_id.in_(select(DeviceRow.id).where(_MAY_CONNECT)),
        LeaseRow.ended_at.is_(None),
        LeaseRow.expires_at > _NOW,
        JobRow.state != "leased",
    )
)
IDS_A_QUERY = 1000  # below every database's limit of parameters


@dataclass(frozen=True)
class Caller:
    """A device that may connect: the hash of its public key, and the session it opened last."""

    spki_sha256: str
    session_id: str | None


@dataclass(frozen=True)
class RollCall:
    """What connected devices should be told at one moment, by device id.

    `to_claim` are those that do not work while a job waits, and `to_stop` names the jobs under
    open leases that were withdrawn.
    """

    to_claim: frozenset[str]
    to_stop: Mapping[str, tuple[str, ...]]


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

    def __init__(self, database: Database, now: Callable[[], datetime], audit: Audit) -> None:
        self._database = database
        self._now = now
        self._audit = audit

    @retried
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
        priority is claimed earlier; of one priority, studies take turns on a device. `label` is
        for people. Raises UnknownDeviceError for a removed or unknown device, RevokedDeviceError,
        and UnknownBlobError where the model or the inputs were not put into the store first.
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
                "turn": 0,
                "purpose": purpose,
                "study_id": study_id,
                "created_at": self._now(),
            }
            insert_absent(session, JobRow, [job])
            row = session.scalars(select(JobRow).where(JobRow.key == key).with_for_update()).one()
            is_new = row.id == job["id"]
            if is_new or row.state == "cancelled" or _says_nothing(session, row):
                end_leases(session, self._now(), LeaseRow.job_id == row.id)
                _queue_anew(row)
                row.turn = _turn(session, row)
                self._note_job(session, row, device.name)
            return job_from_row(row)

    def is_answered(self, device_id: str, spec: Spec, purpose: str = "measure") -> bool:
        """Whether the same was asked for before and has an outcome, so that no device is needed."""
        with self._database.read() as session:
            device = session.get(DeviceRow, device_id)
            if device is None:
                return False
            key = job_key(device_from_row(device), spec, purpose)
            state = session.scalar(select(JobRow.state).where(JobRow.key == key))
            return state in {"done", "failed"}

    @retried
    def settle(self, acts: Sequence[Act]) -> list[Answer]:
        """Do what several devices ask for, all in one transaction.

        Each has its answer: a claim the lease or None, a renewal whether to stop, a report whether
        it was kept. Where one is refused its answer is the error that `claim` or `report` raises.
        """
        with self._database.write() as session:
            return settle(session, self._now(), acts)

    def claim(self, device_id: str, session_id: str, lease_seconds: float) -> Lease | None:
        """Give the device its next job: the highest priority first, then by turns of the studies.

        No two claims ever get the same attempt, but a device that holds a lease of the same session
        gets that one again: it did not hear the answer. Leases of this device that ran out end
        first. Raises SessionSupersededError where the device has opened another session, and
        UnknownDeviceError where it may not connect.
        """
        return cast("Lease | None", self._one(Claim(device_id, session_id, lease_seconds)))

    def renew(self, device_id: str, lease_id: str) -> bool:
        """Keep a lease alive; True says that its job is to be stopped."""
        return bool(self._one(Renewal(device_id, lease_id)))

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
        job = device_id, job_id, attempt
        return bool(self._one(Report.of(job, idempotency_key, outcome, self._now())))

    def _one(self, act: Act) -> Answer:
        (answer,) = self.settle([act])
        if isinstance(answer, GenbaError):
            raise answer
        return answer

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

    @retried
    def cancel(self, job_ids: Iterable[str]) -> int:
        """Withdraw the jobs that have no outcome yet; returns how many were withdrawn.

        A device that works on one is told to stop.
        """
        wanted = list(job_ids)
        cancelled: dict[str, list[str]] = {}
        with self._database.write() as session:
            for start in range(0, len(wanted), IDS_A_QUERY):
                for row in self._open_jobs(session, wanted[start : start + IDS_A_QUERY]):
                    row.state, row.finished_at = "cancelled", self._now()
                    cancelled.setdefault(row.device_id, []).append(row.id)
            session.flush()
            for device_id, ids in sorted(cancelled.items()):
                name = session.scalars(
                    select(DeviceRow.name).where(DeviceRow.id == device_id)
                ).one()
                details = {"jobs": str(len(ids)), "job_ids": " ".join(ids)}
                self._audit.note_in(session, "cancel", name, details)
        return sum(map(len, cancelled.values()))

    def _open_jobs(self, session: Session, ids: Sequence[str]) -> Sequence[JobRow]:
        """Those of the jobs that have no outcome yet, locked."""
        theirs = select(JobRow.device_id).where(JobRow.id.in_(ids)).distinct()
        lock_devices(session, session.scalars(theirs).all())
        return session.scalars(
            select(JobRow)
            .where(JobRow.id.in_(ids), JobRow.state.in_(OPEN_STATES))
            .order_by(JobRow.number)
            .with_for_update()
        ).all()

    def waiting(self, device_id: str) -> int:
        """How many jobs the device could claim now."""
        with self._database.read() as session:
            return _waiting(session, self._now()).get(device_id, 0)

    def callers(self) -> dict[str, Caller]:
        """All devices that may connect, by id."""
        with self._database.read() as session:
            callers = session.execute(_CALLERS).all()
        return {device_id: Caller(spki, last) for device_id, spki, last in callers}

    def roll_call(self) -> RollCall:
        """What connected devices should be told now."""
        now = self._now()
        with self._database.read() as session:
            to_claim = session.scalars(_TO_CLAIM, {"now": now}).all()
            stopped = session.execute(_TO_STOP, {"now": now}).all()
        to_stop: dict[str, tuple[str, ...]] = {}
        for device_id, job_id in stopped:
            to_stop[device_id] = (*to_stop.get(device_id, ()), job_id)
        return RollCall(frozenset(to_claim), to_stop)

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

    def device_seconds(self, study_id: int) -> dict[str, float]:
        """How long each device has worked on jobs that this study was the first to ask for, by the
        device's id; attempts that were lost count too.
        """
        statement = (
            select(LeaseRow.device_id, LeaseRow.taken_at, LeaseRow.ended_at)
            .join(JobRow, JobRow.id == LeaseRow.job_id)
            .where(JobRow.study_id == study_id)
        )
        found: dict[str, float] = {}
        with self._database.read() as session:
            for device_id, taken_at, ended_at in session.execute(statement):
                if ended_at is None:
                    continue
                seconds = (ended_at - taken_at).total_seconds()
                found[device_id] = found.get(device_id, 0.0) + seconds
        return found

    def _note_job(self, session: Session, job: JobRow, device: str) -> None:
        details = {"job_id": job.id, "kind": job.kind, "label": job.label}
        if job.model_sha256 is not None:
            details["model_sha256"] = job.model_sha256
        if job.study_id is not None:
            details["study"] = session.scalars(
                select(StudyRow.name).where(StudyRow.id == job.study_id)
            ).one()
        session.flush()
        self._audit.note_in(session, "job", device, details)


def _turn(session: Session, job: JobRow) -> int:
    """When it is the job's turn among those of its priority on its device.

    Start-time fair queueing (Goyal, Vin, Cheng 1996) with every job of the same length: behind the
    last waiting job of its own study, but never before what the device has begun by now, so that
    a study which comes later neither waits for all that others asked for nor overtakes it.
    """
    on_device = and_(JobRow.device_id == job.device_id, JobRow.priority == job.priority)
    own = and_(JobRow.study_id.is_not_distinct_from(job.study_id), JobRow.id != job.id)
    last = [
        session.scalar(
            select(JobRow.turn)
            .where(on_device, JobRow.state == state, *conditions)
            .order_by(JobRow.turn.desc())
            .limit(1)
        )
        for state, conditions in (
            ("queued", (own,)),
            ("leased", (JobRow.id != job.id,)),
            ("done", ()),
            ("failed", ()),
        )
    ]
    return max(turn or 0 for turn in last) + 1


def _claimable(now: datetime) -> ColumnElement[bool]:
    live = exists().where(
        LeaseRow.job_id == JobRow.id, LeaseRow.ended_at.is_(None), LeaseRow.expires_at > now
    )
    return or_(and_(JobRow.state == "queued", is_due(now)), and_(JobRow.state == "leased", ~live))


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
