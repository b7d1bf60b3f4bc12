"""How long to wait before another try."""

from __future__ import annotations

import os
from typing import Callable

_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0


class Backoff:
    """Full jitter: uniform between 0 and a bound that doubles up to 30 s
    (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._failures = 0

    def next_seconds(self) -> float:
        bound = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._uniform(0.0, bound)

    def reset(self) -> None:
        self._failures = 0


def system_uniform(low: float, high: float) -> float:
    """From the system's randomness: agents that lost their host together do not return together,
    and the module random costs memory.
    """
    return low + (high - low) * int.from_bytes(os.urandom(7), "big") / (1 << 56)
