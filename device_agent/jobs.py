"""One measurement at a time: a lease and a model file in, an outcome out, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from device_agent.errors import BadAnswerError
from device_agent.processes import Cancellation, Ended, run_worker
from device_agent.work import (
    Failure,
    FailureKind,
    MeasureSpec,
    Outcome,
    Request,
    outcome_from_json,
)

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
_GIB = 1 << 30
LONGEST_SECONDS = 86_400.0
"""No measurement takes longer than a day, whatever a host asks for."""


def default_address_space_bytes(ram_bytes: int) -> int:
    """What a worker may map where nobody set a limit: all memory, and never less than 2 GiB,
    because libraries reserve address space that they never touch.
    """
    return max(ram_bytes, 2 * _GIB)


def run_job(
    spec: MeasureSpec,
    model_path: Path,
    *,
    worker_command: Sequence[str],
    address_space_bytes: int,
    cancellation: Cancellation,
) -> Outcome:
    """Measure in a fresh process. Every way in which that process can end is an outcome."""
    if cancellation.requested:
        return _CANCELLED
    asked = (spec.timeout_seconds, spec.min_seconds, spec.warmup_seconds)
    if not all(0.0 <= seconds <= LONGEST_SECONDS for seconds in asked):
        return Failure(
            FailureKind.RESOURCE,
            f"the job asks for times of {', '.join(f'{s:g}' for s in asked)} s: this agent takes"
            f" 0 to {LONGEST_SECONDS:g} s",
        )
    request = Request(spec, model_path, address_space_bytes, os.getpid())
    try:
        ended = run_worker(
            [*worker_command, "measure", request.to_json()],
            timeout_seconds=spec.timeout_seconds,
            cancellation=cancellation,
        )
    except OSError as error:
        short = error.errno in (errno.ENOMEM, errno.EAGAIN)
        kind = FailureKind.RESOURCE if short else FailureKind.WORKER_CRASHED
        return Failure(kind, f"the worker cannot be started: {error.strerror or error}")
    return _outcome(ended, spec, cancelled=cancellation.requested)


_CANCELLED = Failure(FailureKind.CANCELLED, "the host cancelled the job")


def describe_crash(ended: Ended) -> Failure:
    """What to say of a worker that ended without an answer."""
    last_words = " ".join(ended.stderr.strip().splitlines()[-1:])[:400]
    if any(words in ended.stderr.lower() for words in _OUT_OF_MEMORY):
        return Failure(FailureKind.RESOURCE, f"the worker ran out of memory ({last_words})")
    if ended.status == -signal.SIGKILL:
        return Failure(
            FailureKind.RESOURCE,
            "the worker was killed by SIGKILL: most likely this device ran out of memory",
        )
    if ended.status < 0:
        name = _signal_name(-ended.status)
        return Failure(FailureKind.WORKER_CRASHED, f"the worker was ended by {name}")
    detail = f": {last_words}" if last_words else ""
    return Failure(
        FailureKind.WORKER_CRASHED,
        f"the worker ended with status {ended.status} and without an answer{detail}",
    )


def _outcome(ended: Ended, spec: MeasureSpec, *, cancelled: bool) -> Outcome:
    if ended.status == 0:
        try:
            return outcome_from_json(ended.stdout)
        except BadAnswerError as error:
            return Failure(FailureKind.WORKER_CRASHED, f"the worker's answer is unusable: {error}")
    if cancelled:
        return _CANCELLED
    if ended.timed_out:
        return Failure(
            FailureKind.TIMEOUT,
            f"the measurement did not end within {spec.timeout_seconds:g} s",
        )
    return describe_crash(ended)


def _signal_name(number: int) -> str:
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    meaning = _MEANINGS.get(known)
    return f"{known.name} ({meaning})" if meaning else known.name
