"""How far a long computation is, with the time left: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

Clock = Callable[[], float]
_LINE_EVERY_SECONDS = 10.0
_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


class Pace:
    """The time that a computation leaves, from what it has done since it began."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._what: str | None = None
        self._began_at = 0.0
        self._had = 0.0

    def left_seconds(self, what: str, share: float) -> float | None:
        """For the share that is done; None before anything is.

        What was there from the first took no time and says nothing.
        """
        if what != self._what:
            self._what, self._began_at, self._had = what, self._clock(), share
        if share <= self._had:
            return None
        return (self._clock() - self._began_at) / (share - self._had) * (1.0 - share)


def left(seconds: float | None) -> str:
    """The time left in its two largest units, such as "3 min 20 s left"; empty where unknown."""
    if seconds is None:
        return ""
    rest = float(round(seconds))
    parts: list[str] = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count:.0f} {unit}")
    return f"{' '.join(parts[:2]) or '0 s'} left"


class Countdown(Protocol):
    """Told how far it is."""

    def update(self, what: str, done: int, total: int, share: float) -> None:
        """Of what is done, `share` is how much of the time it takes."""
        ...


class BarCountdown:
    """One bar at a time, on standard error."""

    def __init__(self, progress: Progress, pace: Pace) -> None:
        self._progress = progress
        self._pace = pace
        self._task: tuple[str, TaskID] | None = None

    def update(self, what: str, done: int, total: int, share: float) -> None:
        if self._task is None or self._task[0] != what:
            if self._task is not None:
                self._progress.remove_task(self._task[1])
            self._task = what, self._progress.add_task(what, total=total, left="")
        remaining = left(self._pace.left_seconds(what, share))
        self._progress.update(self._task[1], completed=done, total=total, left=remaining)


class LineCountdown:
    """A line on standard error now and then, and in the end of each computation."""

    def __init__(self, pace: Pace, clock: Clock = time.monotonic) -> None:
        self._pace = pace
        self._clock = clock
        self._what: str | None = None
        self._next_line_at = 0.0

    def update(self, what: str, done: int, total: int, share: float) -> None:
        now = self._clock()
        remaining = left(self._pace.left_seconds(what, share))
        if what == self._what and done < total and now < self._next_line_at:
            return
        self._what, self._next_line_at = what, now + _LINE_EVERY_SECONDS
        line = f"genba: {what}: {done} of {total}"
        print(f"{line}, {remaining}" if remaining and done < total else line, file=sys.stderr)


@contextmanager
def countdown() -> Iterator[Countdown]:
    """The one that suits standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LineCountdown(Pace())
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
        transient=True,
        redirect_stdout=False,  # results go to standard output, wherever that leads
    ) as progress:
        yield BarCountdown(progress, Pace())
