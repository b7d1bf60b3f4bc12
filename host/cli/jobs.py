"""Asking devices for something and waiting for what comes of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from host.api.asking import Asked
from host.cli.console import note
from host.cli.progress import Clock, DeviceWork, JobReporter, job_reporter
from host.errors import GenbaError
from host.job import refusal_delay_seconds

if TYPE_CHECKING:
    from host.measurement import Outcome
    from host.store import Progress, Store, Waiting
    from host.workspace import Workspace

_LOOK_EVERY_SECONDS = 0.5
_OFFLINE_AFTER_SECONDS = 1.0


class NoResultError(GenbaError):
    """Nothing came back in time. `left` says what waits on."""

    def __init__(self, what: str, left: str) -> None:
        super().__init__(f"{what}: {left}, and the same command shows the result later")
        self.what = what


class WithdrawnError(GenbaError):
    """Nothing came back in time, and nothing is waited for any more."""


def await_outcomes(
    workspace: "Workspace",
    store: "Store",
    asked: Sequence[Asked],
    on_outcome: "Callable[[Asked, Outcome], None]",
    *,
    timeout: float | None,
    findable: bool = True,
) -> int:
    """Hand over each outcome as it comes; returns how many were known before.

    Serves the workspace meanwhile where nobody else does. Raises NoResultError after `timeout`
    seconds, JobCancelledError and GatewayError. The jobs then stay queued where the same command
    finds them again (`findable`), and are withdrawn otherwise.
    """
    by_job: dict[str, list[Asked]] = {}
    for one in asked:
        by_job.setdefault(one.job.id, []).append(one)
    known = {
        job_id: progress.outcome
        for job_id, progress in store.jobs.progress(by_job).items()
        if progress.outcome is not None
    }
    for job_id, outcome in known.items():
        for one in by_job[job_id]:
            on_outcome(one, outcome)
    waiting = [one for job_id, ones in by_job.items() if job_id not in known for one in ones]
    if waiting:
        leave = _kept_on_interrupt() if findable else _withdrawn(store, waiting)
        with leave:
            _await_new(workspace, store, waiting, on_outcome, timeout)
    return len(known)


def _await_new(
    workspace: "Workspace",
    store: "Store",
    asked: Sequence[Asked],
    on_outcome: "Callable[[Asked, Outcome], None]",
    timeout: float | None,
) -> None:
    from host.gateway.server import ensure_gateway
    from host.store import wait_for_outcomes

    jobs = {one.job.id: one.job for one in asked}
    with ensure_gateway(workspace, store), job_reporter() as reporter:
        watch = JobWatch(store, asked, reporter, timeout=timeout)
        for job, outcome in wait_for_outcomes(store, list(jobs.values()), on_wait=watch):
            watch.ended(job.id)
            with reporter.paused():
                for one in asked:
                    if one.job.id == job.id:
                        on_outcome(one, outcome)


@contextmanager
def _kept_on_interrupt() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note(
            "what was asked for stays queued and its result is kept: the same command shows it"
            " later"
        )
        raise


@contextmanager
def _withdrawn(store: "Store", asked: Sequence[Asked]) -> Iterator[None]:
    """No later command would find these jobs, and a device should not work for nobody."""
    try:
        yield
    except (KeyboardInterrupt, NoResultError) as stop:
        store.jobs.cancel([one.job.id for one in asked])
        if isinstance(stop, NoResultError):
            raise WithdrawnError(f"{stop.what}: what was asked for is withdrawn") from stop
        note("what was asked for is withdrawn")
        raise


class JobWatch:
    """Tells what the devices do while somebody waits for them."""

    def __init__(
        self,
        store: "Store",
        asked: Sequence[Asked],
        reporter: JobReporter,
        *,
        timeout: float | None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._asked = {one.job.id: one for one in asked}
        self._left = set(self._asked)
        self._reporter = reporter
        self._timeout = timeout
        self._clock = clock
        self._started = clock()
        self._next_look = self._started
        self._begun: dict[str, float] = {}
        self._told_offline: set[str] = set()
        self._told_refusals: dict[str, tuple[str, int]] = {}

    def ended(self, job_id: str) -> None:
        """The job has its outcome."""
        self._left.discard(job_id)

    def __call__(self, waiting: "Waiting") -> None:
        """Called again and again while nothing comes. Raises NoResultError after the timeout."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY_SECONDS
            self._look(now)
        if now - self._started > _OFFLINE_AFTER_SECONDS:
            self._tell_offline(waiting)
        if self._timeout is not None and now - self._started >= self._timeout:
            count = "1 job stays" if len(self._left) == 1 else f"{len(self._left)} jobs stay"
            raise NoResultError(f"no result within {self._timeout:g} s", f"{count} queued")

    def _look(self, now: float) -> None:
        found = self._store.jobs.progress(self._left)
        for job_id, progress in found.items():
            if progress.state == "leased":
                self._begun.setdefault(job_id, now)
            else:
                self._begun.pop(job_id, None)
                self._tell_refusal(job_id, progress)
        self._reporter.update(self._works(now))

    def _works(self, now: float) -> list[DeviceWork]:
        names = dict.fromkeys(one.device.name for one in self._asked.values())
        return [self._work(name, now) for name in names]

    def _work(self, device: str, now: float) -> DeviceWork:
        asked = [one for one in self._asked.values() if one.device.name == device]
        left = [one for one in asked if one.job.id in self._left]
        begun = [one for one in left if one.job.id in self._begun]
        spent = {one.job.id: now - self._begun[one.job.id] for one in begun}
        return DeviceWork(
            device=device,
            doing=begun[0].doing if begun else None,
            done=len(asked) - len(left),
            total=len(asked),
            left_seconds=sum(max(0.0, one.seconds - spent.get(one.job.id, 0.0)) for one in left),
            total_seconds=sum(one.seconds for one in asked),
        )

    def _tell_refusal(self, job_id: str, progress: "Progress") -> None:
        if progress.not_ready_because is None:
            return
        told = (progress.not_ready_because, self._store.jobs.get(job_id).attempt)
        if self._told_refusals.get(job_id) == told:
            return
        self._told_refusals[job_id] = told
        # Attempts may also have been lost, so this is the longest that it can take.
        wait = refusal_delay_seconds(max(1, told[1]))
        one = self._asked[job_id]
        self._reporter.say(
            f"{one.device.name} is not ready: {told[0]}; trying again within {wait:.0f} s"
        )

    def _tell_offline(self, waiting: "Waiting") -> None:
        new = [device for device in waiting.offline if device.id not in self._told_offline]
        if not new:
            return
        self._told_offline |= {device.id for device in new}
        names = ", ".join(device.name for device in new)
        verb = "is" if len(new) == 1 else "are"
        self._reporter.say(
            f"waiting for {names}, which {verb} offline: is genba-agent running there?"
        )
