"""How attempts end: their leases, and what becomes of their jobs."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from host.job import MAX_LOST_ATTEMPTS, OPEN_STATES
from host.measurement import MeasurementFailure
from host.store.records import failure_values
from host.store.tables import FailureRow, JobRow, LeaseRow


def end_leases(session: Session, now: datetime, which: ColumnElement[bool]) -> Sequence[LeaseRow]:
    """End those of the leases that are open; returns them."""
    leases = session.scalars(
        select(LeaseRow)
        .where(which, LeaseRow.ended_at.is_(None))
        .order_by(LeaseRow.id)
        .with_for_update()
    ).all()
    for lease in leases:
        lease.ended_at = now
    return leases


def lose_leases(session: Session, now: datetime, which: ColumnElement[bool], why: str) -> int:
    """End those of the leases that are open without an outcome, and queue their jobs again.

    A job that is lost for the MAX_LOST_ATTEMPTS-th time has failed, because of `why`. Returns how
    many leases ended.
    """
    leases = end_leases(session, now, which)
    jobs = session.scalars(
        select(JobRow)
        .where(JobRow.id.in_([lease.job_id for lease in leases]), JobRow.state == "leased")
        .order_by(JobRow.number)  # everybody locks jobs in this order, so nobody waits in a circle
        .with_for_update()
    ).all()
    for job in jobs:
        job.lost_attempts += 1
        if job.lost_attempts < MAX_LOST_ATTEMPTS:
            job.state = "queued"
            continue
        message = f"{why} {job.lost_attempts} times while running this job"
        failure = MeasurementFailure(
            job.device_id, job.model_sha256, "worker_crashed", message, now
        )
        session.add(FailureRow(**failure_values(job.id, None, failure)))
        job.state, job.finished_at = "failed", now
        job.not_before = job.not_ready_because = None
    session.flush()
    return len(leases)


def cancel_jobs_of(session: Session, now: datetime, device_id: str) -> int:
    """Cancel what a device has not finished and end its leases; returns how many jobs that were.

    Nothing is left open for a device that may not connect any more.
    """
    end_leases(session, now, LeaseRow.device_id == device_id)
    jobs = session.scalars(
        select(JobRow)
        .where(JobRow.device_id == device_id, JobRow.state.in_(OPEN_STATES))
        .order_by(JobRow.number)
        .with_for_update()
    ).all()
    for job in jobs:
        job.state, job.finished_at = "cancelled", now
    return len(jobs)
