"""How running studies and jobs are shown: bars on a terminal, lines elsewhere, events as JSON."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
        self._found: dict[str, str] = {}

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

    def found(self, kind: str, facts: Mapping[str, object], text: str) -> None:  # noqa: ARG002
        if self._found.get(kind) != text:
            self._found[kind] = text
            self.say(f"   {text}")

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
        self._found: dict[str, str] = {}

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

    def found(self, kind: str, facts: Mapping[str, object], text: str) -> None:  # noqa: ARG002
        if self._found.get(kind) != text:
            self._found[kind] = text
            self.say(f"   {text}")


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

    def found(self, kind: str, facts: Mapping[str, object], text: str) -> None:
        _emit({"event": kind, "sentence": text, **facts})


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


@dataclass(frozen=True)
class DeviceWork:
    """How far one device is with what is waited for. The seconds are those that it takes at most,
    as the budgets of its jobs say; `doing` is the job that it works on.
    """

    device: str
    doing: str | None
    done: int
    total: int
    left_seconds: float
    total_seconds: float


class JobBars:
    """A bar for each device, with the time left, on standard error."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, works: Sequence[DeviceWork]) -> None:
        for work in works:
            description = f"{work.device}: {work.doing or 'waiting'}"
            left = f"{work.done} of {work.total}, {_at_most(work.left_seconds)}"
            spent = work.total_seconds - work.left_seconds
            if work.device not in self._tasks:
                self._tasks[work.device] = self._progress.add_task(
                    description, total=work.total_seconds, left=left
                )
            task = self._tasks[work.device]
            self._progress.update(task, description=description, completed=spent, left=left)

    def say(self, text: str) -> None:
        self._progress.console.print(f"genba: {text}", highlight=False, markup=False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No bars meanwhile: something is printed."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


class JobLines:
    """A line on standard error whenever a device begins another job."""

    def __init__(self) -> None:
        self._doing: dict[str, str | None] = {}

    def update(self, works: Sequence[DeviceWork]) -> None:
        for work in works:
            if work.doing is not None and self._doing.get(work.device) != work.doing:
                self.say(
                    f"{work.device}: {work.doing} ({work.done + 1} of {work.total},"
                    f" {_at_most(work.left_seconds)})"
                )
            self._doing[work.device] = work.doing

    def say(self, text: str) -> None:
        print(f"genba: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Lines need no pause."""
        yield


JobReporter = JobBars | JobLines


@contextmanager
def job_reporter() -> Iterator[JobReporter]:
    """The reporter that suits standard error: bars on a terminal, or lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield JobLines()
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
        transient=True,
        redirect_stdout=False,  # results go to standard output, wherever that leads
    ) as progress:
        yield JobBars(progress)


def _at_most(seconds: float) -> str:
    if seconds >= 100:
        return f"at most {seconds / 60:.0f} min left"
    return f"at most {seconds:.0f} s left"


def _emit(event: dict[str, object]) -> None:
    print(json.dumps(event, ensure_ascii=False), flush=True)
