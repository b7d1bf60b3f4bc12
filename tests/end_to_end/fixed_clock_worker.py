"""A worker whose clock and memory follow from the size of the model file alone.

The model is scanned, loaded and run as always; only what is read from the machine is made up, so
the same file always gives the same measurement.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from device_agent.worker import main

BASE_RSS_BYTES = 40 * 1024 * 1024
FIXED_NS = 1_000_000
NS_PER_BYTE = 2


class FixedClock:
    """Moves on by the same step at every look, so every sample lasts one step."""

    def __init__(self, step_ns: int) -> None:
        self._step_ns = step_ns
        self._now_ns = 0

    def __call__(self) -> int:
        self._now_ns += self._step_ns
        return self._now_ns


class FixedMemory:
    """The base at the first look, the model on top at the second, three times it at the peak."""

    def __init__(self, model_bytes: int) -> None:
        self._model_bytes = model_bytes
        self._looks = 0

    def rss_bytes(self) -> int:
        self._looks += 1
        return BASE_RSS_BYTES + (self._model_bytes if self._looks > 1 else 0)

    def peak_rss_bytes(self) -> int:
        return BASE_RSS_BYTES + 3 * self._model_bytes


def model_bytes(argv: list[str]) -> int:
    """Size of the model that the command line names; 0 for a probe, which measures nothing."""
    if argv[0] != "measure":
        return 0
    return Path(json.loads(argv[1])["model_path"]).stat().st_size


if __name__ == "__main__":
    size = model_bytes(sys.argv[1:])
    step_ns = FIXED_NS + NS_PER_BYTE * size
    sys.exit(
        main(clock=FixedClock(step_ns), cpu_clock=FixedClock(step_ns), memory=FixedMemory(size))
    )
