"""Waiting for what devices report."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from host.device import Device
from host.job import Job
from host.measurement import Outcome
from host.store.database import StoreError
from host.store.store import Store


class JobCancelledError(StoreError):
    """A job was withdrawn while somebody waited for it."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"job {job.id} was cancelled, or its device removed, while waiting for its outcome:"
            " run the same command again to ask for it anew"
        )
        self.job = job


@dataclass(frozen=True)
class Waiting:
    """What is waited for: the jobs without an outcome, and which of their devices are offline."""

    jobs: tuple[Job, ...]
    offline: tuple[Device, ...]


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
                raise JobCancelledError(left[job_id])
        ready = [job for job in left.values() if progress[job.id].outcome is not None]
        for job in ready:
            outcome = progress[job.id].outcome
            if outcome is not None:
                del left[job.id]
                yield job, outcome
        if left and not ready:
            if on_wait is not None:
                on_wait(_waiting(store, tuple(left.values())))
            sleep(poll_seconds)


def _waiting(store: Store, jobs: tuple[Job, ...]) -> Waiting:
    offline = store.devices.offline(job.device_id for job in jobs)
    return Waiting(jobs, tuple(offline))
