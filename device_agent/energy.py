"""What an energy worker does while others read the meters: rest, load and inferences in phases."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
import time
from dataclasses import dataclass
from typing import Callable

from device_agent.work import Phase, PhaseKind

_HASHED_BYTES = 1 << 16


@dataclass(frozen=True)
class Step:
    """The mark by which the lag of a meter is found: full load between two rests."""

    rest_seconds: float = 3.0
    load_seconds: float = 5.0


@dataclass(frozen=True)
class Timer:
    """`clock` tells seconds of CLOCK_MONOTONIC, or whatever a test puts in its place."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def phase(self, kind: PhaseKind, work: Callable[[float], int]) -> Phase:
        """Do `work`, which is given the moment when it starts and tells how many inferences."""
        started = self.clock()
        inferences = work(started)
        return Phase(kind, started, self.clock(), inferences)

    def sleep_until(self, moment: float) -> None:
        remaining = moment - self.clock()
        if remaining > 0:
            self.sleep(remaining)


def run_phases(
    run: Callable[[], None],
    *,
    windows: int,
    window_seconds: float,
    paced_hertz: float | None,
    timer: Timer,
    load: Callable[[float], None],
    pause: Callable[[], None],
    step: Step = Step(),
) -> tuple[Phase, ...]:
    """Run the model in phases: the step, then `windows` busy windows between idle ones, then,
    where `paced_hertz` is given, one window at that rate and a last idle one.

    `run` is one inference; `load` keeps the cores busy for so many seconds without the model;
    `pause` is called before each idle window and belongs to no phase. A
    window lasts `window_seconds` at least: a busy one until its last inference has ended, a paced
    one for a whole number of periods. Raises what `run` raises.
    """

    def idle(seconds: float) -> Phase:
        pause()
        return timer.phase(PhaseKind.IDLE, lambda _: _rest(timer, seconds))

    phases = [
        idle(step.rest_seconds),
        timer.phase(PhaseKind.STEP, lambda _: _load(load, step.load_seconds)),
        idle(step.rest_seconds),
        idle(window_seconds),
    ]
    for _ in range(windows):
        phases.append(
            timer.phase(
                PhaseKind.BUSY, lambda t: _back_to_back(run, timer.clock, t + window_seconds)
            )
        )
        phases.append(idle(window_seconds))
    if paced_hertz is not None:
        ticks = max(1, math.ceil(window_seconds * paced_hertz - 1e-9))
        hertz = paced_hertz
        phases.append(timer.phase(PhaseKind.PACED, lambda t: _paced(run, timer, t, hertz, ticks)))
        phases.append(idle(window_seconds))
    return tuple(phases)


def full_load(seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Keep every core that the system leaves this process busy for that long, without the model:
    also those that the model is not pinned to.
    """
    pinned = os.sched_getaffinity(0)
    with contextlib.suppress(OSError, ValueError):  # then on the cores that it has
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        _load_cores(seconds, clock)
    finally:
        os.sched_setaffinity(0, pinned)


def _load_cores(seconds: float, clock: Callable[[], float]) -> None:
    until = clock() + seconds
    block = bytes(_HASHED_BYTES)

    def hash_blocks() -> None:
        # Hashing a large block releases the interpreter's lock, so the threads run at once.
        while clock() < until:
            hashlib.sha256(block).digest()

    others = [threading.Thread(target=hash_blocks) for _ in range(len(os.sched_getaffinity(0)) - 1)]
    for thread in others:
        thread.start()
    hash_blocks()
    for thread in others:
        thread.join()


def _rest(timer: Timer, seconds: float) -> int:
    timer.sleep(seconds)
    return 0


def _load(load: Callable[[float], None], seconds: float) -> int:
    load(seconds)
    return 0


def _back_to_back(run: Callable[[], None], clock: Callable[[], float], until: float) -> int:
    inferences = 0
    while inferences == 0 or clock() < until:
        run()
        inferences += 1
    return inferences


def _paced(run: Callable[[], None], timer: Timer, started: float, hertz: float, ticks: int) -> int:
    """Inferences at start + k / rate, a late one at once. A model slower than the rate runs back
    to back, and the count at the end of the window tells how many it managed.
    """
    ends = started + ticks / hertz
    inferences = 0
    for tick in range(ticks):
        timer.sleep_until(started + tick / hertz)
        if inferences and timer.clock() >= ends:
            break
        run()
        inferences += 1
    timer.sleep_until(ends)
    return inferences
