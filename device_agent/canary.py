"""A fixed piece of integer work: how long it takes tells the clock of the core that it runs on."""

from __future__ import annotations

from typing import Callable

_NANO = 1e-9
# Fixed for ever: baselines of devices are kept in seconds of exactly this work. It needs no
# memory, no vector unit and no library, so only the core's clock and its other users change it.
_NUMBERS = 150_000


def run_canary(clock_ns: Callable[[], int]) -> float:
    """Seconds that the work takes now; a few milliseconds on a PC."""
    started = clock_ns()
    sum(range(_NUMBERS))
    return (clock_ns() - started) * _NANO
