"""Processes that left a worker's group and outlived it, found by the limits that they carry.

A limit of the kernel goes from a process to all that it starts, wherever they flee, and can be
lowered but never raised again without a privilege that no worker has. The worker of another agent
on the same machine has that agent as its parent; whoever fled has none of its own any more, and
became the child of one of our forebears (init, or the subreaper that prctl(2) describes).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# All of them at once, as cage.limits sets them; nothing else on a machine runs like this.
_ZERO = ("Max core file size", "Max locked memory", "Max msgqueue size")
_BOUNDED = ("Max cpu time",)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Each round kills what a bomb started during the round before.
_MAX_ROUNDS = 50


def boot_seconds() -> float:
    """Now, as the kernel counts the moments at which processes start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def kill_stragglers(since_boot_seconds: float, proc: Path = Path("/proc")) -> int:
    """Kill every caged process that was started since then and has lost its agent; how many there
    were.

    Must be called when no worker of this agent should be running.
    """
    killed = 0
    for _ in range(_MAX_ROUNDS):
        found = _stragglers(since_boot_seconds, proc)
        for pid in found:
            # It may have ended, or belong to another user.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        if not found:
            break
    return killed


def _stragglers(since_boot_seconds: float, proc: Path) -> list[int]:
    parents: dict[int, int] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit() and _is_caged(folder):
            stat = _stat(folder)
            # Starts are counted in ticks, so up to one too early.
            if (
                stat is not None
                and stat.started_ticks + 1 >= since_boot_seconds * _TICKS_PER_SECOND
            ):
                parents[int(folder.name)] = stat.parent
    forebears = _forebears(proc) if parents else set()
    return [pid for pid in parents if _first_free_forebear(pid, parents) in forebears]


def _first_free_forebear(pid: int, caged_parents: Mapping[int, int]) -> int:
    while pid in caged_parents:
        pid = caged_parents[pid]
    return pid


def _forebears(proc: Path) -> set[int]:
    """This process and all above it, up to what lies outside of a container."""
    found = {0, 1}
    pid = os.getpid()
    while pid not in found:
        found.add(pid)
        stat = _stat(proc / str(pid))
        pid = 0 if stat is None else stat.parent
    return found


@dataclass(frozen=True)
class _Stat:
    parent: int
    started_ticks: int


def _stat(folder: Path) -> _Stat | None:
    """Of a process that lives, by proc_pid_stat(5): its name stands in brackets and may hold
    anything; field 3 is the state, 4 the parent, 22 the start.
    """
    try:
        text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else _Stat(int(fields[1]), int(fields[19]))


def _is_caged(folder: Path) -> bool:
    try:
        limits = (folder / "limits").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    hard = dict(re.findall(r"^(Max [a-z ]+?)\s{2,}\S+\s+(\S+)", limits, re.MULTILINE))
    return all(hard.get(name) == "0" for name in _ZERO) and all(
        hard.get(name, "unlimited") != "unlimited" for name in _BOUNDED
    )
