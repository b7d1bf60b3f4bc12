"""What slows the CPU down: the limits in force now, and how often they set in during a job.

Raspberry Pi: bits 0 to 3 of the firmware's throttle word tell what is so now; bits 16 to 19 tell
what was so at any time since boot, so those that were set before a job prove nothing about it
(Raspberry Pi documentation, "vcgencmd get_throttled"). x86: counters that only grow
(Linux Documentation/ABI/testing/sysfs-devices-system-cpu, thermal_throttle).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.mailbox import Mailbox
from device_agent.sensors.sysfs import read_integer, read_text

SYS = Path("/sys")

_LIMITS = ("undervoltage", "frequency_capped", "throttled", "soft_temperature_limit")
_CURRENT_BITS = 0xF
_STICKY_SHIFT = 16
_FIRMWARE_WORD = "devices/platform/soc/soc:firmware/get_throttled"

FirmwareWord = Callable[[], int]
"""The throttle word. Raises SensorUnavailableError where there is none."""


@dataclass(frozen=True)
class Throttling:
    """What limited the CPU at any moment, and how often a limit set in; None where nothing on
    this device counts it.
    """

    limits: tuple[str, ...]
    events: int | None


class ThrottleWatch:
    """Follows the limits from its making on. Raspberry Pi and x86 are known; elsewhere it sees
    nothing and says so.
    """

    def __init__(self, sys: Path = SYS, mailbox: Mailbox | None = None) -> None:
        self._sys = sys
        self._word = firmware_word(sys, mailbox or Mailbox())
        self._sticky_before = self._read_word() >> _STICKY_SHIFT & _CURRENT_BITS
        self._current = 0
        self._seen = 0
        self._rises = 0
        self._counts = throttle_counts(sys)
        self._counted = 0

    @property
    def works(self) -> bool:
        """Whether this device tells anything."""
        return self._word is not None or bool(self._counts)

    def now(self) -> tuple[str, ...]:
        """The limits in force: at this moment, or since the last call where only counters tell."""
        current = self._read_word() & _CURRENT_BITS
        self._rises += _ones(current & ~self._current)
        self._current = current
        self._seen |= current
        fresh = self._count()
        self._counted += fresh
        names = _names(current)
        return names if fresh == 0 or "throttled" in names else (*names, "throttled")

    def finish(self) -> Throttling:
        """All that was seen since the watch was made."""
        self.now()
        # A limit that came and went between two looks leaves its sticky bit behind.
        sticky = self._read_word() >> _STICKY_SHIFT & _CURRENT_BITS & ~self._sticky_before
        missed = sticky & ~self._seen
        names = _names(self._seen | missed)
        if self._counted and "throttled" not in names:
            names = (*names, "throttled")
        events = self._rises + _ones(missed) + self._counted
        return Throttling(names, events if self.works else None)

    def _read_word(self) -> int:
        if self._word is None:
            return 0
        try:
            return self._word()
        except SensorUnavailableError:
            # It answered when the watch was made: a mailbox that is busy for a moment.
            return 0

    def _count(self) -> int:
        counts = throttle_counts(self._sys)
        # A core that was taken offline has no counter; one that came back starts at its old value.
        fresh = sum(max(0, n - self._counts.get(name, n)) for name, n in counts.items())
        self._counts = {**self._counts, **counts}
        return fresh


def firmware_word(sys: Path, mailbox: Mailbox) -> FirmwareWord | None:
    """How to read the throttle word here, or None on a board that has none."""

    def from_kernel() -> int:
        text = read_text(sys / _FIRMWARE_WORD)
        try:
            return int(text, 16)
        except ValueError as error:
            raise SensorUnavailableError(f"{_FIRMWARE_WORD} holds {text[:20]!r}") from error

    for read in (from_kernel, mailbox.get_throttled):
        try:
            read()
        except SensorUnavailableError:
            continue
        return read
    return None


def throttle_counts(sys: Path = SYS) -> dict[str, int]:
    """Events since boot of every core and package, each once: threads of a core share its
    counter. Empty where the kernel counts none.
    """
    counts: dict[str, int] = {}
    for folder in sorted((sys / "devices/system/cpu").glob("cpu[0-9]*")):
        package = _text(folder / "topology/physical_package_id") or "?"
        core = f"{package}/{_text(folder / 'topology/core_id') or folder.name}"
        for name, key in (
            ("core_throttle_count", f"core {core}"),
            ("package_throttle_count", f"package {package}"),
        ):
            try:
                value = read_integer(folder / "thermal_throttle" / name)
            except SensorUnavailableError:
                continue
            counts[key] = max(value, counts.get(key, 0))
    return counts


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except SensorUnavailableError:
        return ""


def _names(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(_LIMITS) if bits >> bit & 1)


def _ones(bits: int) -> int:
    return bin(bits).count("1")
