"""Waiting for what devices report."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from host.device import Device
from host.job import Job
from host.measurement import Outcome
from host.store.database import StoreError
from host.store.jobs import Progress
from host.store.store import Store


class JobCancelledError(StoreError):
    """A job was withdrawn while somebody waited for it."""

    def __init__(self, job: Job, device: Device | None, shut_out: str | None) -> None:
        """`shut_out` says what was done to the device, if that is why."""
        name = job.device_id if device is None else device.name
        super().__init__(
            f"{name} was {shut_out} while waiting for its outcome: enrol it again with"
            f" `genba device enroll {name}` and run the same command again"
            if shut_out is not None
            else f"job {job.id} on {name} was cancelled while waiting for its outcome: run the same"
            " command again to ask for it anew"
        )
        self.job = job


@dataclass(frozen=True)
class Waiting:
    """What is waited for: the jobs without an outcome, and which of their devices are offline.

    `not_ready` says, by job id, why a device refused a job that it will be given again.
    """

    jobs: tuple[Job, ...]
    offline: tuple[Device, ...]
    not_ready: Mapping[str, str] = field(default_factory=dict)


def wait_for_outcomes(
    store: Store,
    jobs: Sequence[Job],
    *,
    on_wait: Callable[[Waiting], None] | None = None,
    poll_seconds: float = 0.1,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[Job, Outcome]]:
    """Yield each job with its outcome as the outcomes come, in order of `jobs` within one poll.

    `on_wait` is called before each pause; it may raise to stop waiting: the jobs stay queued.
    Raises JobCancelledError where a job is withdrawn.
    """
    left = {job.id: job for job in jobs}
    while left:
        progress = store.jobs.progress(left)
        for job_id, found in progress.items():
            if found.state == "cancelled":
                raise _withdrawn(store, left[job_id])
        ready = [job for job in left.values() if progress[job.id].outcome is not None]
        for job in ready:
            outcome = progress[job.id].outcome
            if outcome is not None:
                del left[job.id]
                yield job, outcome
        if left and not ready:
            if on_wait is not None:
                on_wait(_waiting(store, tuple(left.values()), progress))
            sleep(poll_seconds)


def _withdrawn(store: Store, job: Job) -> JobCancelledError:
    device = store.devices.by_id(job.device_id)
    present = any(found.id == job.device_id for found in store.devices.all())
    if device is not None and device.revoked_at is not None:
        return JobCancelledError(job, device, "revoked")
    return JobCancelledError(job, device, None if present else "removed from this workspace")


def _waiting(store: Store, jobs: tuple[Job, ...], progress: Mapping[str, Progress]) -> Waiting:
    offline = store.devices.offline(job.device_id for job in jobs)
    told = {job.id: progress[job.id].not_ready_because for job in jobs}
    return Waiting(jobs, tuple(offline), {job: why for job, why in told.items() if why is not None})
