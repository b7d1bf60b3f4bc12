"""Questions to worker processes: an answer, or an error that says how the worker ended."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass
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
from device_agent.surroundings import Deadline
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
    """How workers of one job are started, and when they have to be done."""

    command: Sequence[str]
    address_space_bytes: int
    parent_pid: int
    deadline: Deadline

    def confinement(self, cpus: tuple[int, ...] = (), max_file_bytes: int = 0) -> Confinement:
        """The limits of one worker; without `cpus` it may run on every core."""
        return Confinement(self.address_space_bytes, self.parent_pid, cpus, max_file_bytes)

    def ask(self, question: str, request: Request, answer: type[T]) -> T:
        """Let a fresh worker answer.

        Raises WorkerFailedError where it says why it cannot, WorkerCrashedError or ResourceError
        where it ends without an answer, JobTimeoutError and JobCancelledError.
        """
        self.deadline.check()
        try:
            ended = run_worker(
                [*self.command, question, to_json(request)],
                timeout_seconds=self.deadline.left_seconds(),
                cancellation=self.deadline.cancellation,
            )
        except OSError as error:
            raise _not_started(error) from error
        if ended.status != 0:
            raise self._reason(ended)
        try:
            told = from_tagged_json((answer, Failure), ended.stdout)
        except BadAnswerError as error:
            raise WorkerCrashedError(f"the worker's answer is unusable: {error}") from error
        if isinstance(told, Failure):
            raise WorkerFailedError(told)
        if not isinstance(told, answer):
            raise WorkerCrashedError(f"the worker's answer is no {answer.__name__}")
        return told

    def _reason(self, ended: Ended) -> AgentError:
        if self.deadline.cancellation.requested:
            return JobCancelledError()
        if ended.timed_out:
            return JobTimeoutError(self.deadline.timeout_seconds)
        if ended.answer_too_long:
            return WorkerCrashedError("the worker's answer does not end")
        return explain_crash(ended)


def explain_crash(ended: Ended) -> WorkerCrashedError | ResourceError:
    """What to say of a worker that ended without an answer."""
    last_words = " ".join(ended.stderr.strip().splitlines()[-1:])[:_LAST_WORDS]
    noise = ended.stderr.lower()
    if any(words in noise for words in _OUT_OF_MEMORY):
        return ResourceError(f"the worker ran out of memory ({last_words})")
    if ended.status == -signal.SIGXFSZ or _TOO_LARGE in noise:
        return ResourceError("the worker wrote more to a file than the job allows")
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
