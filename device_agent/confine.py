"""Limits that a worker puts on itself before it touches a model or a large library."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from pathlib import Path
from typing import Any

from device_agent.errors import ResourceError
from device_agent.requests import Confinement

_OOM_SCORE = Path("/proc/self/oom_score_adj")
# linux/prctl.h, linux/sched.h
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
# Libraries otherwise start one thread for each core that they see.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def forbid_core_dumps() -> None:
    """A crash leaves no file behind: cards of small devices are small and wear out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine(limits: Confinement) -> None:
    """Limit this process: its cores, address space, size of files, no core dump, first to go when
    memory runs out, no new privileges, no network where the kernel allows that, dead when its
    parent is.

    Must run before the first thread starts and before numpy is imported. Raises ResourceError
    where this process may not run on the cores.
    """
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"
    # Systems with hardened kernels keep this file; the other limits do not depend on it.
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000", encoding="ascii")
    forbid_core_dumps()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.max_file_bytes, limits.max_file_bytes))
    _pin(limits.cpus)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = limits.address_space_bytes
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    libc = _libc()
    if libc is not None:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # A new user namespace clears the death signal, so the order matters.
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != limits.parent_pid:
        raise SystemExit("the agent went away before its worker began")


def _pin(cpus: tuple[int, ...]) -> None:
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, OverflowError, ValueError) as error:
        names = ", ".join(str(cpu) for cpu in cpus)
        raise ResourceError(f"this process may not run on the cores {names} ({error})") from error


def _libc() -> Any:
    """The C library, or None in a Python built without ctypes."""
    try:
        import ctypes
    except ImportError:
        return None
    return ctypes.CDLL(None)
