"""Memory of the calling process, as the kernel counts it.

Linux proc(5), status: VmRSS and VmHWM. Linux Documentation/filesystems/proc.rst, smaps_rollup:
PSS shares pages among the processes that map them; USS, what would be free if the process ended,
is its private pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_agent.errors import SensorUnavailableError

PROC_SELF = Path("/proc/self")


@dataclass(frozen=True)
class MemoryNow:
    """Resident, unique and proportional set size; the last two None where the kernel is silent."""

    rss_bytes: int
    uss_bytes: int | None
    pss_bytes: int | None


class MemoryReader(Protocol):
    """Memory of one process."""

    def now(self) -> MemoryNow:
        """What it holds at this moment."""

    def peak_rss_bytes(self) -> int:
        """Largest resident set size since the process started."""


class ProcessMemory:
    """Reads /proc/self; costs nothing between the reads."""

    def __init__(self, folder: Path = PROC_SELF) -> None:
        self._status = folder / "status"
        self._rollup = folder / "smaps_rollup"

    def now(self) -> MemoryNow:
        """Raises SensorUnavailableError where the kernel does not even tell VmRSS."""
        try:
            rollup = self._rollup.read_text(encoding="ascii", errors="replace")
        except OSError:
            # Kernels before 4.14, and those that forbid it; the resident size is enough.
            rollup = ""
        private = [_bytes(rollup, name) for name in ("Private_Clean", "Private_Dirty")]
        return MemoryNow(
            rss_bytes=self._required("VmRSS"),
            uss_bytes=None if None in private else sum(p for p in private if p is not None),
            pss_bytes=_bytes(rollup, "Pss"),
        )

    def peak_rss_bytes(self) -> int:
        return self._required("VmHWM")

    def _required(self, name: str) -> int:
        try:
            text = self._status.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise SensorUnavailableError(f"{self._status} cannot be read") from error
        size = _bytes(text, name)
        if size is None:
            raise SensorUnavailableError(f"{self._status} has no line {name}")
        return size


def _bytes(text: str, name: str) -> int | None:
    match = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return None if match is None else int(match.group(1)) * 1024
