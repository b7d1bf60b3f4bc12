"""How a running study is shown: bars on a terminal, lines elsewhere, events as JSON."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Clock = Callable[[], float]
_LINE_EVERY_SECONDS = 10.0


class StageClock:
    """Notes how long each stage takes."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stages: list[tuple[str, float]] = []

    def begin(self, name: str) -> None:
        """A stage begins, and the one before it ends."""
        self._stages.append((name, self._clock()))

    def seconds(self) -> list[tuple[str, float]]:
        """The time of each stage until the next, of the last until now."""
        ends = [start for _, start in self._stages[1:]] + [self._clock()]
        return [(name, end - start) for (name, start), end in zip(self._stages, ends, strict=True)]


class BarReporter:
    """Progress bars with the time left, on standard error."""

    def __init__(self, console: Console, progress: Progress, stages: StageClock) -> None:
        self._console = console
        self._progress = progress
        self._stages = stages
        self._tasks: dict[str, TaskID] = {}

    def stage(self, name: str) -> None:
        self._stages.begin(name)
        self._clear()
        self._console.print(f"[bold]== {name}[/bold]")

    def progress(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=min(done, total), total=total)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _clear(self) -> None:
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()


class LineReporter:
    """Plain lines on standard error, for logs: every stage, and progress now and then."""

    def __init__(self, stages: StageClock, clock: Clock = time.monotonic) -> None:
        self._stages = stages
        self._clock = clock
        self._next_line = 0.0

    def stage(self, name: str) -> None:
        self._stages.begin(name)
        self._next_line = 0.0
        self.say(f"== {name}")

    def progress(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if done >= total or now >= self._next_line:
            self._next_line = now + _LINE_EVERY_SECONDS
            self.say(f"   {what}: {min(done, total)} of {total}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class EventReporter:
    """One JSON object a line on standard output."""

    def __init__(self, stages: StageClock) -> None:
        self._stages = stages

    def stage(self, name: str) -> None:
        self._stages.begin(name)
        _emit({"event": "stage", "stage": name})

    def progress(self, what: str, done: int, total: int) -> None:
        _emit({"event": "progress", "what": what, "done": done, "total": total})

    def say(self, text: str) -> None:
        _emit({"event": "message", "text": text})


@contextmanager
def reporter(
    stages: StageClock, *, as_json: bool
) -> Iterator[BarReporter | LineReporter | EventReporter]:
    """The reporter that suits the output: events, bars on a terminal, or lines."""
    console = Console(stderr=True)
    if as_json:
        yield EventReporter(stages)
    elif not console.is_terminal:
        yield LineReporter(stages)
    else:
        with Progress(
            TextColumn("   {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as progress:
            yield BarReporter(console, progress, stages)


def _emit(event: dict[str, object]) -> None:
    print(json.dumps(event, ensure_ascii=False), flush=True)
