"""Everything by which a worker meets the machine, the time and the agent, in one place for tests
to replace.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable

from device_agent import interference
from device_agent.canary import run_canary
from device_agent.interference import RunDelay
from device_agent.runtimes.base import Runtime
from device_agent.runtimes.catalogue import open_runtime
from device_agent.sensors.memory import MemoryReader, ProcessMemory
from device_agent.stages import Stage

Clock = Callable[[], int]
"""Nanoseconds from some fixed moment."""


def _full_load(seconds: float) -> None:
    from device_agent.energy import full_load

    full_load(seconds)


def _say_nothing(_stage: Stage) -> None:
    """Nobody listens."""


def _go_on() -> None:
    """Nobody waits."""


@dataclass(frozen=True)
class Instruments:
    """What a worker reads. `cpu_clock` counts the time of the thread that asks, `process_clock`
    that of all threads; `monotonic_seconds` is on the clock that the agent reads too;
    `steal_seconds` is given the cores. `begin` tells the agent which stage begins; `pause` stands
    still until the agent says go on.
    """

    clock: Clock = time.perf_counter_ns
    cpu_clock: Clock = time.thread_time_ns
    process_clock: Clock = time.process_time_ns
    monotonic_seconds: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    memory: MemoryReader = field(default_factory=ProcessMemory)
    open_run_delay: Callable[[], RunDelay | None] = interference.open_run_delay
    involuntary_switches: Callable[[], int] = interference.involuntary_switches
    steal_seconds: Callable[[tuple[int, ...]], float | None] = interference.steal_seconds
    canary: Callable[[Clock], float] = run_canary
    load: Callable[[float], None] = _full_load
    open_runtime: Callable[[str], Runtime] = open_runtime
    begin: Callable[[Stage], None] = _say_nothing
    pause: Callable[[], None] = _go_on


LIVE = Instruments()
"""This machine."""
