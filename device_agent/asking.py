"""Questions to worker processes: an answer, or an error that says how the worker ended."""

from __future__ import annotations

import errno
import math
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from device_agent.codec import from_tagged_json, to_json
from device_agent.errors import (
    AgentError,
    BadAnswerError,
    JobCancelledError,
    JobTimeoutError,
    ResourceError,
    WorkerCrashedError,
)
from device_agent.processes import Ended, run_worker
from device_agent.requests import Confinement, Request
from device_agent.scan_limits import ScanLimits
from device_agent.stages import Stage
from device_agent.surroundings import Deadline
from device_agent.vigil import Watch
from device_agent.work import Failure

T = TypeVar("T")

_MEANINGS = {
    signal.SIGILL: "illegal instruction: this build needs a newer CPU",
    signal.SIGSEGV: "invalid memory access",
    signal.SIGBUS: "invalid memory access",
    signal.SIGFPE: "arithmetic error",
    signal.SIGABRT: "the runtime gave up",
}
_OUT_OF_MEMORY = (
    "memoryerror",
    "bad_alloc",
    "cannot allocate memory",
    "memory allocation",
    "out of memory",
    # numpy's OpenBLAS ends the process with status 1 when its threads get no stack.
    "openblas blas_thread_init",
)
_TOO_LARGE = "file too large"  # strerror(EFBIG)
_LAST_WORDS = 400


class WorkerFailedError(AgentError):
    """A worker said itself why there is no result."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Workers:
    """How workers of one job are started and watched, and when they have to be done. `hidden` is
    what they must not read, `rss_bytes` what they may hold in memory, `least_file_bytes` what each
    may write to a file whatever it does.
    """

    command: Sequence[str]
    address_space_bytes: int
    parent_pid: int
    deadline: Deadline
    scan: ScanLimits
    rss_bytes: int
    hidden: tuple[Path, ...] = ()
    stage_seconds: Mapping[Stage, float] = field(default_factory=dict)
    least_file_bytes: int = 0

    def confinement(
        self, cpus: tuple[int, ...] = (), max_file_bytes: int = 0, scratch: Path | None = None
    ) -> Confinement:
        """The limits of one worker; without `cpus` it may run on every core."""
        cores = len(cpus) or os.cpu_count() or 1
        return Confinement(
            self.address_space_bytes,
            self.parent_pid,
            cpus,
            max(max_file_bytes, self.least_file_bytes),
            self.scan,
            # A last bound, where the agent is gone; the agent's own clock ends workers before it.
            cpu_seconds=math.ceil(self.deadline.left_seconds() + 1.0) * cores,
            scratch=scratch,
            hidden=self.hidden,
        )

    def ask(self, question: str, request: Request, answer: type[T]) -> T:
        """Let a fresh worker answer.

        Raises WorkerFailedError where it says why it cannot, WorkerCrashedError or ResourceError
        where it ends without an answer, JobTimeoutError, StageTimeoutError and JobCancelledError.
        """
        self.deadline.check()
        try:
            ended = run_worker(
                [*self.command, question, to_json(request)],
                timeout_seconds=self.deadline.left_seconds(),
                cancellation=self.deadline.cancellation,
                watch=Watch(self.deadline.attention, self.stage_seconds, self.rss_bytes),
            )
        except OSError as error:
            raise _not_started(error) from error
        reason = self._reason(ended)
        if reason is not None:
            raise reason
        try:
            told = from_tagged_json((answer, Failure), ended.stdout)
        except BadAnswerError as error:
            raise WorkerCrashedError(f"the worker's answer is unusable: {error}") from error
        if isinstance(told, Failure):
            raise WorkerFailedError(told)
        if not isinstance(told, answer):
            raise WorkerCrashedError(f"the worker's answer is no {answer.__name__}")
        return told

    def _reason(self, ended: Ended) -> AgentError | None:
        """Why there is no answer, None where there may be one."""
        if ended.reason is None and not ended.timed_out and ended.status == 0:
            return None
        if self.deadline.cancellation.requested:
            return JobCancelledError()
        if ended.reason is not None:
            return ended.reason
        if ended.timed_out:
            return JobTimeoutError(self.deadline.timeout_seconds)
        return explain_crash(ended)


def explain_crash(ended: Ended) -> WorkerCrashedError | ResourceError:
    """What to say of a worker that ended without an answer."""
    last_words = " ".join(ended.stderr.strip().splitlines()[-1:])[:_LAST_WORDS]
    noise = ended.stderr.lower()
    if any(words in noise for words in _OUT_OF_MEMORY):
        return ResourceError(f"the worker ran out of memory ({last_words})")
    if ended.status == -signal.SIGXFSZ or _TOO_LARGE in noise:
        return ResourceError("the worker wrote more to a file than the job allows")
    if ended.status == -signal.SIGXCPU:
        return ResourceError("the worker used more CPU time than the whole job may take")
    if ended.status == -signal.SIGKILL:
        return ResourceError(
            "the worker was killed by SIGKILL: most likely this device ran out of memory"
        )
    if ended.status < 0:
        return WorkerCrashedError(f"the worker was ended by {_signal_name(-ended.status)}")
    detail = f": {last_words}" if last_words else ""
    return WorkerCrashedError(
        f"the worker ended with status {ended.status} and without an answer{detail}"
    )


def _not_started(error: OSError) -> AgentError:
    text = f"the worker cannot be started: {error.strerror or error}"
    if error.errno in (errno.ENOMEM, errno.EAGAIN):
        return ResourceError(text)
    return WorkerCrashedError(text)


def _signal_name(number: int) -> str:
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    meaning = _MEANINGS.get(known)
    return f"{known.name} ({meaning})" if meaning else known.name
