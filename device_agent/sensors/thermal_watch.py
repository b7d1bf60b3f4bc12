"""Temperature and throttling over a job, looked at now and then from a thread of the agent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Callable

from device_agent.sensors.throttle import ThrottleWatch
from device_agent.work import Thermal

# Seldom enough to cost a board with one core nothing that shows, often enough for a temperature,
# and as often as the kernel of a Raspberry Pi itself asks for undervoltage.
_INTERVAL_SECONDS = 2.0


class ThermalWatch:
    """The temperature from its making on, and the limits of `throttle`."""

    def __init__(
        self, temperature_celsius: Callable[[], float | None], throttle: ThrottleWatch
    ) -> None:
        self._temperature_celsius = temperature_celsius
        self._throttle = throttle
        self._lock = threading.Lock()
        self.start_celsius = temperature_celsius()
        self._max_celsius = self.start_celsius

    def look(self) -> float | None:
        """Take one reading, from any thread; the temperature now."""
        with self._lock:
            celsius = self._temperature_celsius()
            readings = [c for c in (celsius, self._max_celsius) if c is not None]
            self._max_celsius = max(readings, default=None)
            self._throttle.now()
        return celsius

    @contextlib.contextmanager
    def looking(self, interval_seconds: float = _INTERVAL_SECONDS) -> Iterator[None]:
        """A context in which a thread takes readings."""
        done = threading.Event()

        def look_until_done() -> None:
            while not done.wait(interval_seconds):
                self.look()

        thread = threading.Thread(target=look_until_done, name="thermal-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def finish(self, cooled_seconds: float = 0.0) -> Thermal:
        """What was seen, with a last reading now."""
        end_celsius = self.look()
        with self._lock:
            throttling = self._throttle.finish()
        return Thermal(
            start_celsius=self.start_celsius,
            end_celsius=end_celsius,
            max_celsius=self._max_celsius,
            throttle_events=throttling.events,
            cooled_seconds=cooled_seconds,
            throttled=throttling.limits,
        )
