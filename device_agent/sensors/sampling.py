"""Reads several power sources beside an energy run, in one thread of the agent's process.

The agent and its workers share CLOCK_MONOTONIC, so readings and phases need no alignment.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import PowerSource, Quantity
from device_agent.work import PowerSeries

MAX_READINGS = 4000
"""More readings than this of one source are thinned out: a series stays below 64 KiB."""

# One reading may fail, when a bus is busy; a sensor that is gone fails again and again.
_FAILURES_IN_A_ROW = 3

_Point = tuple[float, float]


class SeriesRecorder:
    """The readings of one source, at most `max_readings` of them, evenly thinned out.

    Of watts, neighbours are averaged, so no energy is lost; of a counter, the first of several
    readings is kept, and the last of all.
    """

    def __init__(self, source: PowerSource, max_readings: int = MAX_READINGS) -> None:
        self._source = source
        # Two may stand at the end, of what is pending when the series is asked for.
        self._most = max(2, (max_readings - 2) // 2 * 2)
        self._stride = 1
        self._points: list[_Point] = []
        self._pending: list[_Point] = []
        self._last: list[_Point] = []
        self._failures = 0
        self.broken_because = ""

    @property
    def interval_seconds(self) -> float:
        """How often a reading is worth taking."""
        return self._source.interval_seconds

    def read(self, clock: Callable[[], float]) -> None:
        """Take one reading; the third failure in a row breaks the series for good."""
        before = clock()
        try:
            value = self._source.read()
        except SensorUnavailableError as error:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                self.broken_because = str(error)
            return
        self._failures = 0
        self._add(((before + clock()) / 2, value))

    def series(self) -> PowerSeries:
        """What was read until now."""
        points = self._points + self._tail()
        values = tuple(value for _, value in points)
        return PowerSeries(
            source=self._source.name,
            scope=self._source.scope,
            kind=self._source.kind,
            max_watts=self._source.max_watts,
            monotonic_seconds=tuple(moment for moment, _ in points),
            energy_joules=values if self._counts else (),
            power_watts=() if self._counts else values,
            broken_because=self.broken_because,
        )

    def _tail(self) -> list[_Point]:
        if not self._counts:
            return [_mean(self._pending)] if self._pending else []
        tail = self._pending[:1]
        return tail if (self._points + tail)[-1:] == self._last else tail + self._last

    @property
    def _counts(self) -> bool:
        return self._source.quantity is Quantity.JOULES

    def _add(self, point: _Point) -> None:
        self._last = [point]
        self._pending.append(point)
        if len(self._pending) < self._stride:
            return
        self._points.append(self._one(self._pending))
        self._pending = []
        if len(self._points) >= self._most:
            self._points = [self._one(self._points[i : i + 2]) for i in range(0, self._most, 2)]
            self._stride *= 2

    def _one(self, points: list[_Point]) -> _Point:
        return points[0] if self._counts else _mean(points)


def _mean(points: list[_Point]) -> _Point:
    moments, values = zip(*points)
    return math.fsum(moments) / len(points), math.fsum(values) / len(points)


@contextlib.contextmanager
def sampling(
    sources: Sequence[PowerSource],
    *,
    clock: Callable[[], float] = time.monotonic,
    max_readings: int = MAX_READINGS,
) -> Iterator[Sequence[SeriesRecorder]]:
    """A context in which the sources are read, each at its own interval.

    Gives one recorder for each source, to be asked for its series after the context has ended. A
    source that breaks is left alone from then on; the others go on.
    """
    recorders = [SeriesRecorder(source, max_readings) for source in sources]
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="power-sampling") as pool:
        reading = pool.submit(_read_until, stop, recorders, clock)
        try:
            yield recorders
        finally:
            stop.set()
        # A defect of a source must not pass as a short series.
        reading.result()


def _read_until(
    stop: threading.Event, recorders: Sequence[SeriesRecorder], clock: Callable[[], float]
) -> None:
    started = clock()
    due = dict.fromkeys(recorders, started)
    while due:
        for recorder, moment in list(due.items()):
            if moment <= clock():
                recorder.read(clock)
                due[recorder] = _next(started, recorder.interval_seconds, clock())
            if recorder.broken_because:
                del due[recorder]
        if due and stop.wait(max(0.0, min(due.values()) - clock())):
            return


def _next(started: float, interval: float, now: float) -> float:
    """The next moment on the source's own grid: moments missed are not made up for."""
    return started + (int((now - started) / interval) + 1) * interval
