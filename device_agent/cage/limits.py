"""Limits of the kernel on one process and on what it starts (setrlimit(2))."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Mapping
from pathlib import Path

from device_agent.errors import ResourceError
from device_agent.requests import Confinement

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_OPEN_FILES = 256
# With the threads of a runtime; a bomb of them ends here.
_TASKS = 512
# From this kernel on tasks are counted for each user namespace by itself.
_COUNTED_APART_SINCE = (5, 14)
# Libraries otherwise start one thread for each core that they see.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def forbid_core_dumps() -> None:
    """A crash leaves no file behind: cards of small devices are small and wear out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_resources(limits: Confinement) -> None:
    """Bound address space, CPU time, files, locked memory and queues, pin to cores, and be the
    first to go when memory runs out.

    Raises ResourceError where this process may not run on the cores.
    """
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"
    # Systems with hardened kernels keep this file; the other limits do not depend on it.
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000", encoding="ascii")
    forbid_core_dumps()
    _pin(limits.cpus)
    bounds: Mapping[int, int] = {
        resource.RLIMIT_FSIZE: limits.max_file_bytes,
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_MEMLOCK: 0,
        _message_queues(): 0,
        resource.RLIMIT_AS: limits.address_space_bytes,
    }
    for kind, bound in bounds.items():
        _limit(kind, bound)


def limit_tasks(release: str = os.uname().release) -> None:
    """Bound the threads, for a process in a user namespace of its own.

    Older kernels count all tasks of the user together, who may run a whole desktop beside the
    agent: no number is right for all of them, so there only the agent's watch bounds threads.
    """
    major, minor = (int(part) for part in release.split(".")[:2])
    if (major, minor) >= _COUNTED_APART_SINCE:
        _limit(resource.RLIMIT_NPROC, _TASKS)


def _limit(kind: int, bound: int) -> None:
    """Bound it for good; where it is bounded lower already, leave it so."""
    _, hard = resource.getrlimit(kind)
    lower = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(kind, (lower, lower))


def _message_queues() -> int:
    # Not named in every build; the number is that of asm-generic/resource.h.
    return getattr(resource, "RLIMIT_MSGQUEUE", 12)


def _pin(cpus: tuple[int, ...]) -> None:
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, OverflowError, ValueError) as error:
        names = ", ".join(str(cpu) for cpu in cpus)
        raise ResourceError(f"this process may not run on the cores {names} ({error})") from error
