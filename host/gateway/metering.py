"""Reads the meters on the network that are bound to devices, while these measure energy.

The host reads on its own clock; what the agent's clock showed when it sent its report tells how
the two differ, to about the time that the report was under way.
"""

import logging
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise

from host.device import MeterBinding
from host.errors import GenbaError
from host.measurement import MeasureSpec, Phase, PowerSeries, Spec
from host.measurement.power import MAX_LAG_SECONDS, MIN_LAG_SECONDS
from host.meters import Meter, MeterError, MeterFacts, Reading, meter_name, open_meter
from host.store import Store

MAX_READINGS = 20_000
SLACK_SECONDS = 60.0
"""How long a job's meter is read beyond the time that the job may take on the device."""
MAX_PAUSE_SECONDS = 5.0
"""The longest pause before a meter that failed is tried again."""
GAP = 5.0
"""Times the usual time between readings, after which a meter was silent."""

OpenMeter = Callable[[MeterBinding, Callable[[], float]], Meter]
Pause = Callable[[threading.Event, float], bool]
_log = logging.getLogger("genba.gateway")


class Metering:
    """One thread for each job that is metered. Nothing here waits for a meter, so a slow one holds
    up nobody.

    `clock` tells seconds, `pause` waits until an event is set or so many seconds have passed.
    """

    def __init__(
        self,
        store: Store,
        open_meter: OpenMeter = open_meter,
        clock: Callable[[], float] = time.monotonic,
        pause: Pause = threading.Event.wait,
    ) -> None:
        self._store, self._open_meter, self._clock, self._pause = store, open_meter, clock, pause
        self._lock = threading.Lock()
        self._recorders: dict[str, Recorder] = {}

    def started(self, device_id: str, job_id: str, spec: Spec) -> None:
        """Begin to read the meter of the device, if it has one and the job measures energy."""
        self.dropped(job_id)
        if not isinstance(spec, MeasureSpec) or spec.plan.energy_windows == 0:
            return
        binding = self._store.meters.of_device(device_id)
        if binding is None:
            return
        seconds = spec.timeout_seconds + SLACK_SECONDS
        recorder = Recorder(binding, seconds, self._open_meter, self._clock, self._pause)
        with self._lock:
            self._recorders[job_id] = recorder
        recorder.start()

    def finished(
        self,
        job_id: str,
        sent_monotonic_seconds: float | None,
        phases: Sequence[Phase] = (),
    ) -> tuple[tuple[PowerSeries, ...], str]:
        """End reading; gives the series on the device's clock, or none and why.

        `sent_monotonic_seconds` is what the device's clock showed when it sent the report that has
        just arrived. Where `phases` are given, the series is cut to them and what a late meter
        says after them. With a series the text says for how long the meter was silent.
        """
        received = self._clock()
        recorder = self._take(job_id)
        if recorder is None:
            return (), ""
        recorder.stop()
        if sent_monotonic_seconds is None:
            return (), (
                f"the agent did not say what its clock shows, so the readings of {recorder.name} "
                "cannot be placed beside the load"
            )
        return recorder.series(received, received - sent_monotonic_seconds, phases)

    def dropped(self, job_id: str) -> None:
        """End reading; nobody wants the series."""
        recorder = self._take(job_id)
        if recorder is not None:
            recorder.stop()

    def _take(self, job_id: str) -> "Recorder | None":
        with self._lock:
            return self._recorders.pop(job_id, None)


class Recorder:
    """Reads one meter in a thread of its own until it is stopped or `seconds` have passed; opens
    the meter again after an error.
    """

    def __init__(
        self,
        binding: MeterBinding,
        seconds: float,
        open_meter: OpenMeter,
        clock: Callable[[], float],
        pause: Pause,
    ) -> None:
        self.name = meter_name(binding)
        self._binding, self._seconds = binding, seconds
        self._open_meter, self._clock, self._pause = open_meter, clock, pause
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._facts: MeterFacts | None = None
        self._times: list[float] = []
        self._values: list[float] = []
        self._problem = ""

    def start(self) -> None:
        """Begin to read; does not wait for the meter."""
        # A daemon: a meter that hangs must not keep the gateway from ending.
        threading.Thread(target=self._run, name="genba-meter", daemon=True).start()

    def stop(self) -> None:
        """End reading soon; does not wait for a reading that is under way."""
        self._stopped.set()

    def series(
        self, until: float, offset_seconds: float, phases: Sequence[Phase]
    ) -> tuple[tuple[PowerSeries, ...], str]:
        """What was read until then, `offset_seconds` earlier, and for how long the meter was
        silent.
        """
        with self._lock:
            times = [moment - offset_seconds for moment in self._times]
            values, facts, problem = list(self._values), self._facts, self._problem
        readings = _cut(times, values, phases)
        if facts is None or not readings:
            because = problem or "it gave no reading while the device measured energy"
            return (self._broken(facts, because),), ""
        times, values = [t for t, _ in readings], [value for _, value in readings]
        watts = facts.quantity == "watts"
        series = PowerSeries(
            source=facts.name,
            scope=facts.scope,
            kind=facts.kind,
            max_watts=facts.max_watts,
            monotonic_seconds=tuple(times),
            energy_joules=() if watts else tuple(values),
            power_watts=tuple(values) if watts else (),
            resolution_watts=facts.resolution_watts,
        )
        silent = _silent_seconds(facts, times, until - offset_seconds, phases)
        because = f": {problem}" if problem else ""
        return (series,), f"{facts.name} was silent for {silent:.0f} s{because}" if silent else ""

    def _broken(self, facts: MeterFacts | None, because: str) -> PowerSeries:
        return PowerSeries(
            source=self.name if facts is None else facts.name,
            scope="wall" if facts is None else facts.scope,
            kind="measured" if facts is None else facts.kind,
            max_watts=0.0 if facts is None else facts.max_watts,
            monotonic_seconds=(),
            broken_because=because,
        )

    def _run(self) -> None:
        until = self._clock() + self._seconds
        failures = 0
        while not self._stopped.is_set() and self._clock() < until:
            known = len(self._times)
            try:
                self._read_on(until)
            except GenbaError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 - told as the meter's problem
                # A meter must not end its thread without a word, whatever its library raises.
                _log.exception("reading %s failed", self.name)
                self._failed(f"{type(error).__name__}: {error}")
            failures = 1 if len(self._times) > known else failures + 1
            self._pause(self._stopped, min(MAX_PAUSE_SECONDS, 0.25 * 2 ** min(failures, 10)))

    def _read_on(self, until: float) -> None:
        """Read until the end. Raises GenbaError where the meter fails."""
        meter = self._open_meter(self._binding, self._clock)
        try:
            with self._lock:
                self._facts = meter.facts
            interval = max(meter.interval_seconds, self._seconds / MAX_READINGS)
            due = self._clock()
            while not self._stopped.is_set() and due < until:
                self._take_reading(meter)
                due = max(due + interval, self._clock())
                self._pause(self._stopped, due - self._clock())
        finally:
            with suppress(MeterError, OSError):
                meter.close()

    def _take_reading(self, meter: Meter) -> None:
        asked = self._clock()
        reading: Reading = meter.read()
        answered = self._clock()
        value = reading.value(meter.quantity)
        taken = reading.taken_monotonic_seconds
        moment = (asked + answered) / 2 if taken is None else taken
        with self._lock:
            # A meter that sends of its own accord may not have sent anything new.
            if (not self._times or moment > self._times[-1]) and len(self._times) < MAX_READINGS:
                self._times.append(moment)
                self._values.append(value)

    def _failed(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("%s: %s", self.name, problem)
        with self._lock:
            self._problem = problem


def _cut(
    times: Sequence[float], values: Sequence[float], phases: Sequence[Phase]
) -> list[tuple[float, float]]:
    readings = list(zip(times, values, strict=True))
    if not phases:
        return readings
    start = phases[0].started_monotonic_seconds + MIN_LAG_SECONDS
    end = phases[-1].ended_monotonic_seconds + MAX_LAG_SECONDS
    return [(moment, value) for moment, value in readings if start <= moment <= end]


def _silent_seconds(
    facts: MeterFacts, times: Sequence[float], until: float, phases: Sequence[Phase]
) -> float:
    """For how long the meter said nothing while it was wanted; 0 where it answered throughout."""
    usual = facts.interval_seconds
    if len(times) > 1:
        usual = max(usual, statistics.median(b - a for a, b in pairwise(times)))
    start, end = times[0], until
    if phases:
        start = min(start, phases[0].started_monotonic_seconds)
        end = min(until, phases[-1].ended_monotonic_seconds)
    steps = [b - a for a, b in pairwise([start, *times, max(end, times[-1])])]
    return sum(step for step in steps if step > GAP * usual)
