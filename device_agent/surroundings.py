"""The machine and the time as a job meets them, in one argument; a test puts others in place."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

from device_agent.attention import Attention, Inattentive
from device_agent.canary import run_canary
from device_agent.errors import JobCancelledError, JobTimeoutError
from device_agent.processes import Cancellation
from device_agent.sensors.base import PowerSource
from device_agent.sensors.mailbox import Mailbox
from device_agent.sensors.power import open_power_sources
from device_agent.sensors.thermal import cpu_temperature_celsius
from device_agent.sensors.thermal_watch import ThermalWatch
from device_agent.sensors.throttle import ThrottleWatch
from device_agent.system import LIVE, Roots

_CANARIES = 5
# How soon a cancellation is noticed while nothing else happens.
_NAP_SECONDS = 0.25
_ALIVE_SECONDS = 1.0


def allowed_cpus() -> frozenset[int]:
    """The cores that this process may use; cpusets of cgroups are in it already
    (sched_setaffinity(2)).
    """
    return frozenset(os.sched_getaffinity(0))


def pinned_canary(cpu: int) -> float:
    """Seconds of the canary on one core, the median of some, from this thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        times = sorted(run_canary(time.perf_counter_ns) for _ in range(_CANARIES))
    finally:
        os.sched_setaffinity(0, before)
    return times[_CANARIES // 2]


@dataclass(frozen=True)
class Surroundings:
    """Live by default. `clock` tells seconds of CLOCK_MONOTONIC; `canary` takes a core."""

    roots: Roots = LIVE
    mailbox: Mailbox = dataclasses.field(default_factory=Mailbox)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    canary: Callable[[int], float] = pinned_canary
    allowed_cpus: Callable[[], frozenset[int]] = allowed_cpus
    power_sources: Callable[[], Sequence[PowerSource]] = open_power_sources
    pid: int = dataclasses.field(default_factory=os.getpid)

    def temperature_celsius(self) -> float | None:
        """The CPU's temperature now, None where no sensor is there."""
        return cpu_temperature_celsius(self.roots.sys)

    def throttle_watch(self) -> ThrottleWatch:
        """A watch that begins now."""
        return ThrottleWatch(self.roots.sys, self.mailbox)

    def thermal_watch(self) -> ThermalWatch:
        """A watch that begins now."""
        return ThermalWatch(self.temperature_celsius, self.throttle_watch())


class Deadline:
    """The end of a job: its time is up, or its host no longer wants it."""

    def __init__(
        self,
        surroundings: Surroundings,
        timeout_seconds: float,
        cancellation: Cancellation,
        attention: Attention | None = None,
    ) -> None:
        self._surroundings = surroundings
        self.attention: Attention = attention or Inattentive()
        self._alive_at = surroundings.clock()
        self.timeout_seconds = timeout_seconds
        self._ends = surroundings.clock() + timeout_seconds
        self.cancellation = cancellation

    def left_seconds(self) -> float:
        """Seconds that are left, never less than 0."""
        return max(0.0, self._ends - self._surroundings.clock())

    def check(self) -> None:
        """Raises JobCancelledError or JobTimeoutError where the job has to end."""
        if self.cancellation.requested:
            raise JobCancelledError
        if self.left_seconds() == 0.0:
            raise JobTimeoutError(self.timeout_seconds)

    def pause(self, seconds: float) -> None:
        """Sleep, and say about once a second that the job goes on. Raises as `check` does, as soon
        as there is a reason.
        """
        until = self._surroundings.clock() + seconds
        self.check()
        while (left := until - self._surroundings.clock()) > 0.0:
            self._surroundings.sleep(min(left, _NAP_SECONDS))
            self._say_alive()
            self.check()

    def _say_alive(self) -> None:
        now = self._surroundings.clock()
        if now >= self._alive_at:
            self._alive_at = now + _ALIVE_SECONDS
            self.attention.alive()
