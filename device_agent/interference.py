"""What other programs did to this process while it was timed, as the kernel counts it.

Run delay: Linux Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat: nanoseconds on a
core, nanoseconds runnable without one, number of time slices. Steal: proc(5), /proc/stat.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Protocol

_STEAL_FIELD = 8  # of the line of a core: its name, user, nice, system, idle, iowait, irq, softirq
_LINE_BYTES = 80


class RunDelay(Protocol):
    """Counts the time for which threads were runnable and did not run."""

    def __call__(self) -> int:
        """Nanoseconds of all threads so far."""

    def close(self) -> None:
        """Give back what is open."""


class TaskRunDelay:
    """The run delay of this process's threads; a microsecond or two for each of them.

    Threads that start later are not seen: open it after the first runs of a model.
    """

    def __init__(self, task: Path = Path("/proc/self/task")) -> None:
        self._files: list[int] = []
        for folder in sorted(task.iterdir()) if task.is_dir() else []:
            # A kernel without the file, or a thread that ended this moment.
            with contextlib.suppress(OSError):
                self._files.append(os.open(str(folder / "schedstat"), os.O_RDONLY | os.O_CLOEXEC))

    @property
    def works(self) -> bool:
        """Whether the kernel counts: one that does not says 0 even of a thread that ran."""
        return any(_read_counts(file)[:1] not in ([], [b"0"]) for file in self._files)

    def __call__(self) -> int:
        try:
            return sum(int(os.pread(file, _LINE_BYTES, 0).split()[1]) for file in self._files)
        except (OSError, IndexError):
            self._forget_ended_threads()
            return self()

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _forget_ended_threads(self) -> None:
        """What they waited before is in no later reading either."""
        alive = [file for file in self._files if _read_counts(file)]
        for file in set(self._files) - set(alive):
            os.close(file)
        self._files = alive


def open_run_delay(task: Path = Path("/proc/self/task")) -> RunDelay | None:
    """A counter of this process's run delay, or None where the kernel counts none."""
    counter = TaskRunDelay(task)
    if counter.works:
        return counter
    counter.close()
    return None


def involuntary_switches() -> int:
    """How often this process was taken off a core that it still wanted (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def steal_seconds(cpus: tuple[int, ...], stat: Path = Path("/proc/stat")) -> float | None:
    """Seconds that the hypervisor took from these cores since boot (all where none is named);
    None where the kernel does not count them.
    """
    try:
        lines = stat.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    names = {f"cpu{cpu}" for cpu in cpus} or {"cpu"}
    fields = [line.split() for line in lines if line.split(" ", 1)[0] in names]
    if len(fields) < len(names) or any(len(field) <= _STEAL_FIELD for field in fields):
        return None
    ticks = sum(int(field[_STEAL_FIELD]) for field in fields)
    return float(ticks) / os.sysconf("SC_CLK_TCK")


def _read_counts(file: int) -> list[bytes]:
    try:
        return os.pread(file, _LINE_BYTES, 0).split()
    except OSError:
        return []
