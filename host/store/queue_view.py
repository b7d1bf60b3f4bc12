"""What the lists for people show, in a few queries however many devices and jobs there are."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from host.job import OPEN_STATES, JobState
from host.measurement import FailureKind, MeasurementFailure, ProbeResult
from host.store.audit import GENESIS_SHA256, Action, AuditEntry, entry_from_row
from host.store.codec import unpack
from host.store.database import Database
from host.store.records import failure_from_row
from host.store.tables import (
    AuditRow,
    DeviceRow,
    FailureRow,
    JobRow,
    LeaseRow,
    MeasurementRow,
    ResultRow,
    StudyRow,
)


@dataclass(frozen=True)
class Work:
    """The job that a device works on; `stopping` where it is withdrawn already."""

    job_id: str
    kind: str
    label: str
    study: str | None
    since: datetime
    stopping: bool


@dataclass(frozen=True)
class DeviceQueue:
    """What a device works on, and how many jobs wait for it by the name of their study.

    Of those that wait, `put_off` are tried again later because the device was not ready.
    """

    work: Work | None = None
    waiting: Mapping[str | None, int] = field(default_factory=dict)
    put_off: int = 0

    @property
    def waiting_jobs(self) -> int:
        """All that wait."""
        return sum(self.waiting.values())


@dataclass(frozen=True)
class JobQuery:
    """Which jobs; None stands for any. An empty `id_prefix` fits every id."""

    device_id: str | None = None
    study_id: int | None = None
    states: Collection[JobState] = OPEN_STATES
    id_prefix: str = ""


@dataclass(frozen=True)
class JobLine:
    """A job, the attempt that goes on, and what came of it.

    `leased_until` is None where no device holds it; a lease that ran out is still named. `number`
    of a measurement is the one that `genba measurements show` takes.
    """

    id: str
    device: str
    kind: str
    label: str
    model_sha256: str | None
    study: str | None
    purpose: str
    priority: int
    state: JobState
    attempt: int
    refusals: int
    not_before: datetime | None
    not_ready_because: str | None
    created_at: datetime
    finished_at: datetime | None
    leased_at: datetime | None
    leased_until: datetime | None
    measurement_number: int | None
    failure_kind: FailureKind | None
    failure_message: str | None


class QueueView:
    """The fleet, its queues and what was done to it, to be looked at; it changes nothing."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def devices(self) -> dict[str, DeviceQueue]:
        """What each device that has or awaits work does, by device id; the others are left out."""
        now = self._now()
        with self._database.read() as session:
            work = _work(session, now)
            waiting: dict[str, dict[str | None, int]] = {}
            put_off: dict[str, int] = {}
            for device_id, study, jobs, later in session.execute(_waiting(now)):
                waiting.setdefault(device_id, {})[study] = jobs
                put_off[device_id] = put_off.get(device_id, 0) + later
        return {
            device_id: DeviceQueue(
                work.get(device_id), waiting.get(device_id, {}), put_off.get(device_id, 0)
            )
            for device_id in work.keys() | waiting.keys()
        }

    def last_probes(self) -> dict[str, ProbeResult | MeasurementFailure]:
        """What came of the last probe of each device that was probed, by device id."""
        found: dict[str, tuple[datetime, ProbeResult | MeasurementFailure]] = {}
        with self._database.read() as session:
            newest = _newest(ResultRow.id, ResultRow.device_id, ResultRow.kind == "probe")
            for result in session.scalars(select(ResultRow).where(ResultRow.id.in_(newest))):
                probe = unpack(ProbeResult, result.content)
                found[result.device_id] = result.reported_at, probe
            # Of all jobs only a probe has no model.
            newest = _newest(FailureRow.id, FailureRow.device_id, FailureRow.model_sha256.is_(None))
            for failed in session.scalars(select(FailureRow).where(FailureRow.id.in_(newest))):
                before = found.get(failed.device_id)
                if before is None or before[0] < failed.failed_at:
                    found[failed.device_id] = failed.failed_at, failure_from_row(failed)
        return {device_id: probe for device_id, (_, probe) in found.items()}

    def jobs(self, query: JobQuery, *, limit: int | None = None) -> list[JobLine]:
        """The first `limit` of those jobs.

        Open jobs come by device, and those of a device in the order in which it will claim them;
        where others are asked for as well, all come newest first.
        """
        statement = _job_lines().where(*_conditions(query)).limit(limit)
        if set(query.states) <= set(OPEN_STATES):
            statement = statement.order_by(
                DeviceRow.name,
                case((JobRow.state == "leased", 0), else_=1),
                JobRow.priority.desc(),
                JobRow.turn,
                JobRow.number,
            )
        else:
            statement = statement.order_by(JobRow.number.desc())
        with self._database.read() as session:
            return [JobLine(**values) for values in session.execute(statement).mappings()]

    def audit(
        self,
        *,
        device: str | None = None,
        action: Action | None = None,
        since: datetime | None = None,
        last: int | None = None,
    ) -> list[AuditEntry]:
        """The newest `last` entries of the audit log that fit, oldest first.

        Those of a device are what was done to it and what it did, by its name.
        """
        conditions: list[ColumnElement[bool]] = []
        if device is not None:
            did = AuditRow.actor == f"device {device}"
            conditions.append(or_(AuditRow.subject == device, did))
        if action is not None:
            conditions.append(AuditRow.action == action)
        if since is not None:
            conditions.append(AuditRow.at >= since)
        statement = select(AuditRow).where(*conditions).order_by(AuditRow.number.desc()).limit(last)
        with self._database.read() as session:
            entries = [entry_from_row(row) for row in session.scalars(statement)]
        return entries[::-1]

    def is_in_chain(self, sha256: str) -> bool:
        """Whether an entry of the audit log has that hash; the empty log's head always is."""
        if sha256 == GENESIS_SHA256:
            return True
        with self._database.read() as session:
            return bool(session.scalar(select(exists().where(AuditRow.sha256 == sha256))))


def _enrolled() -> Select[Any]:
    """The ids by which both big tables are indexed."""
    return select(DeviceRow.id).where(DeviceRow.removed_at.is_(None))


def _newest(
    number: InstrumentedAttribute[int],
    device_id: InstrumentedAttribute[str],
    condition: ColumnElement[bool],
) -> Select[Any]:
    return select(func.max(number)).where(condition).group_by(device_id)


def _work(session: Session, now: datetime) -> dict[str, Work]:
    statement = (
        select(
            LeaseRow.device_id,
            JobRow.id,
            JobRow.kind,
            JobRow.label,
            StudyRow.name,
            LeaseRow.taken_at,
            JobRow.state,
        )
        .join(JobRow, JobRow.id == LeaseRow.job_id)
        .outerjoin(StudyRow, StudyRow.id == JobRow.study_id)
        .where(
            LeaseRow.device_id.in_(_enrolled()),
            LeaseRow.ended_at.is_(None),
            LeaseRow.expires_at > now,
        )
        .order_by(LeaseRow.taken_at)
    )
    return {
        device_id: Work(job_id, kind, label, study, since, stopping=state != "leased")
        for device_id, job_id, kind, label, study, since, state in session.execute(statement)
    }


def _waiting(now: datetime) -> Select[*tuple[Any, ...]]:
    """Jobs by device and study; one whose lease ran out waits again."""
    held = exists().where(
        LeaseRow.job_id == JobRow.id, LeaseRow.ended_at.is_(None), LeaseRow.expires_at > now
    )
    later = case((and_(JobRow.state == "queued", JobRow.not_before > now), 1), else_=0)
    return (
        select(JobRow.device_id, StudyRow.name, func.count(), func.sum(later))
        .outerjoin(StudyRow, StudyRow.id == JobRow.study_id)
        .where(
            JobRow.device_id.in_(_enrolled()),
            JobRow.state.in_(OPEN_STATES),
            or_(JobRow.state == "queued", ~held),
        )
        .group_by(JobRow.device_id, StudyRow.name)
        .order_by(JobRow.device_id, func.count().desc(), StudyRow.name.nulls_last())
    )


def _job_lines() -> Select[*tuple[Any, ...]]:
    open_lease = and_(LeaseRow.job_id == JobRow.id, LeaseRow.ended_at.is_(None))
    return (
        select(
            JobRow.id,
            DeviceRow.name.label("device"),
            JobRow.kind,
            JobRow.label,
            JobRow.model_sha256,
            StudyRow.name.label("study"),
            JobRow.purpose,
            JobRow.priority,
            JobRow.state,
            JobRow.attempt,
            JobRow.refusals,
            JobRow.not_before,
            JobRow.not_ready_because,
            JobRow.created_at,
            JobRow.finished_at,
            LeaseRow.taken_at.label("leased_at"),
            LeaseRow.expires_at.label("leased_until"),
            MeasurementRow.id.label("measurement_number"),
            FailureRow.kind.label("failure_kind"),
            FailureRow.message.label("failure_message"),
        )
        .join(DeviceRow, DeviceRow.id == JobRow.device_id)
        .outerjoin(StudyRow, StudyRow.id == JobRow.study_id)
        .outerjoin(LeaseRow, open_lease)
        .outerjoin(MeasurementRow, MeasurementRow.job_id == JobRow.id)
        .outerjoin(FailureRow, FailureRow.job_id == JobRow.id)
    )


def _conditions(query: JobQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [JobRow.state.in_(tuple(query.states))]
    if query.device_id is not None:
        conditions.append(JobRow.device_id == query.device_id)
    if query.study_id is not None:
        conditions.append(JobRow.study_id == query.study_id)
    if query.id_prefix:
        conditions.append(JobRow.id.startswith(query.id_prefix, autoescape=True))
    return conditions
