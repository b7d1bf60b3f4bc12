"""Memory of the calling process, as the kernel counts it (Linux proc(5), status)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from device_agent.errors import SensorUnavailableError

STATUS = Path("/proc/self/status")


class MemoryReader(Protocol):
    """Resident memory of one process."""

    def rss_bytes(self) -> int:
        """Resident set size now."""

    def peak_rss_bytes(self) -> int:
        """Largest resident set size since the process started."""


class ProcessMemory:
    """Reads VmRSS and VmHWM; costs nothing between the reads."""

    def __init__(self, status: Path = STATUS) -> None:
        self._status = status

    def rss_bytes(self) -> int:
        return self._kibibytes("VmRSS") * 1024

    def peak_rss_bytes(self) -> int:
        return self._kibibytes("VmHWM") * 1024

    def _kibibytes(self, name: str) -> int:
        try:
            text = self._status.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise SensorUnavailableError(f"{self._status} cannot be read") from error
        match = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
        if match is None:
            raise SensorUnavailableError(f"{self._status} has no line {name}")
        return int(match.group(1))
