"""The agent's eye on a worker: its time, its memory, its threads, and what it says."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.attention import Attention, Inattentive
from device_agent.errors import AgentError, ResourceError, WorkerCrashedError
from device_agent.stages import Mark, Stage, StageTimeoutError

LOOK_SECONDS = 1.0

_MEBI = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# More than any runtime starts; a bomb of processes or threads ends here.
_MAX_TASKS = 1024
# One for each block of the largest job, and some.
_MAX_MARKS = 100_000


@dataclass(frozen=True)
class Watch:
    """What the agent looks at while a worker runs: its own duties, how long each stage may take
    (for ever where none is set), and how much memory may be resident.
    """

    attention: Attention = field(default_factory=Inattentive)
    stage_seconds: Mapping[Stage, float] = field(default_factory=dict)
    rss_bytes: int | None = None


class Vigil:
    """One worker's, from its start. `reason` is why it must be killed, None while it may go on."""

    def __init__(self, watch: Watch, pid: int, timeout_seconds: float, ear: int) -> None:
        self._watch = watch
        self._pid = pid
        self._ear = ear
        self._until = time.monotonic() + timeout_seconds
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._marks = 0
        self._enter(Stage.START)
        self.timed_out = False
        self.reason: AgentError | None = None

    def wait_seconds(self) -> float:
        """How long the agent may sleep before it looks again."""
        return max(0.0, min(self._until, self._stage_until, self._look_at) - time.monotonic())

    def heed(self, mark: Mark) -> None:
        """Follow what the worker says, as far as that costs little."""
        self._marks += 1
        if self._marks > _MAX_MARKS:
            self.reason = WorkerCrashedError("the worker's answer does not end")
        elif mark.stage is None:
            self._between_blocks()
        elif mark.stage.order > self._stage.order:
            # A stage that came before would give its time again, for ever.
            self._enter(mark.stage)

    def is_over(self) -> bool:
        """Look, if it is time; whether the worker must be killed now."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._watch.attention.alive()
            self._look_at_memory()
        if now >= self._until:
            self.timed_out = True
        elif now >= self._stage_until and self.reason is None:
            seconds = self._watch.stage_seconds[self._stage]
            self.reason = StageTimeoutError(self._stage, seconds)
        return self.timed_out or self.reason is not None

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        seconds = self._watch.stage_seconds.get(stage, float("inf"))
        self._stage_until = time.monotonic() + seconds

    def _between_blocks(self) -> None:
        began = time.monotonic()
        self._watch.attention.between_blocks()
        # It is no time of the worker's.
        self._stage_until += time.monotonic() - began
        try:
            os.write(self._ear, b"\n")
        except BlockingIOError:
            self.reason = WorkerCrashedError("the worker says that it pauses, and does not")
        except BrokenPipeError:
            pass  # it has ended, or will not listen

    def _look_at_memory(self) -> None:
        resident, tasks = _family(self._pid)
        limit = self._watch.rss_bytes
        if limit is not None and resident > limit:
            self.reason = ResourceError(
                f"the worker held {resident / _MEBI:.0f} MiB of memory and may hold"
                f" {limit / _MEBI:.0f} MiB on this device"
            )
        elif tasks > _MAX_TASKS:
            self.reason = ResourceError(
                f"the worker ran {tasks} threads and processes and may run {_MAX_TASKS}"
            )


def _family(pid: int) -> tuple[int, int]:
    """Resident bytes, and threads, of a process and all that descend from it."""
    resident, tasks = 0, 0
    waiting = [pid]
    while waiting and tasks <= _MAX_TASKS:
        folder = Path(f"/proc/{waiting.pop()}")
        # Any of them may end at any moment.
        with contextlib.suppress(OSError):
            resident += int((folder / "statm").read_bytes().split()[1]) * _PAGE_BYTES
            threads = list((folder / "task").iterdir())
            tasks += len(threads)
            for thread in threads:
                # A kernel without CONFIG_PROC_CHILDREN has no such file.
                children = (thread / "children").read_bytes().split()
                waiting += [int(child) for child in children]
    return resident, tasks
