"""Energy of the CPU packages from RAPL counters, through the kernel's powercap files.

Layout and units: Linux Documentation/power/powercap/powercap.rst (energy_uj in microjoules, wraps
at max_energy_range_uj). From Haswell on Intel measures; Sandy Bridge and Ivy Bridge compute the
value from event counts (Hackenberg et al., "An energy efficiency feature survey of the Intel
Haswell processor", 2015), and so does AMD (Schoene et al., "Energy efficiency aspects of the AMD
Zen 2 architecture", 2021).
"""

from __future__ import annotations

import grp
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import Quantity
from device_agent.sensors.sysfs import NoPermissionError, entries, is_there, read_integer, read_text

SYS = Path("/sys")
CPUINFO = Path("/proc/cpuinfo")

UDEV_RULES_FILE = "/etc/udev/rules.d/90-genba-agent.rules"

_MICRO = 1e-6
# Where the firmware states no limit, no single package of any PC or server reaches this.
_WATTS_OF_ANY_PACKAGE = 1000.0
# Short turbo excursions exceed the long-term limit, by far less than this.
_TURBO_MARGIN = 4.0
_SHORT_TERM_MARGIN = 2.0
# The counter moves once a millisecond: over less than this its power is mostly jitter.
_SECONDS_TO_JUDGE = 0.02
# Sandy Bridge (client, server) and Ivy Bridge (client, server): Intel SDM vol. 4, table 2-1.
_MODELLED_INTEL = frozenset({0x2A, 0x2D, 0x3A, 0x3E})


@dataclass(frozen=True)
class _Package:
    energy_file: Path
    wrap_microjoules: int
    max_watts: float


class Rapl:
    """All CPU packages of this machine as one source of energy.

    Only domains called "package" are counted: core, uncore and dram lie in or beside them, and
    psys contains them.
    """

    name = "rapl"
    scope = "package"
    quantity = Quantity.JOULES
    interval_seconds = 0.05

    def __init__(
        self,
        sys: Path = SYS,
        cpuinfo: Path = CPUINFO,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` counts seconds. Raises SensorUnavailableError where RAPL cannot be read."""
        folders = [
            folder
            for folder in entries(sys / "class/powercap")
            if re.fullmatch(r"intel-rapl:\d+", folder.name)
            and read_text(folder / "name").startswith("package")
        ]
        if not folders:
            raise SensorUnavailableError(
                "this machine has no RAPL counter of its CPU (virtual machine, ARM board,"
                " old CPU or kernel module not loaded)"
            )
        self._packages = tuple(_package(folder) for folder in folders)
        self._clock = clock
        self.kind = _kind(cpuinfo)
        self.max_watts = sum(package.max_watts for package in self._packages)
        self._counters = self._read_counters()
        self._total_microjoules = 0
        self._judged = (clock(), 0)
        self._broken_because = ""

    def read(self) -> float:
        """Joules since this source was opened.

        Raises SensorUnavailableError where a counter cannot be read, and where it grew faster
        than the CPU can draw: its unit is wrong (Silvermont Atoms show 10 kW), or it was reset;
        from then on the sum is worthless, and every later call raises the same.
        """
        counters = self._read_counters()
        for package, before, now in zip(self._packages, self._counters, counters):
            wrapped = package.wrap_microjoules if now < before else 0
            self._total_microjoules += now - before + wrapped
        self._counters = counters
        self._judge()
        return self._total_microjoules * _MICRO

    def _judge(self) -> None:
        (since, microjoules), now = self._judged, self._clock()
        if now - since >= _SECONDS_TO_JUDGE:
            self._judged = (now, self._total_microjoules)
            watts = (self._total_microjoules - microjoules) * _MICRO / (now - since)
            if watts > self.max_watts:
                self._broken_because = (
                    f"rapl: the counter shows {watts:.0f} W, more than the {self.max_watts:.0f} W"
                    " that this CPU can draw: its unit is wrong, or it was reset"
                )
        if self._broken_because:
            raise SensorUnavailableError(self._broken_because)

    def _read_counters(self) -> tuple[int, ...]:
        try:
            return tuple(read_integer(package.energy_file) for package in self._packages)
        except NoPermissionError as error:
            raise SensorUnavailableError(
                f"no permission to read {error.path} (the kernel keeps it for root since"
                f" CVE-2020-8694): put this line into {UDEV_RULES_FILE} and restart the device:"
                f" {udev_rule()}"
            ) from error


def udev_rule(group: str | None = None) -> str:
    """The line that lets a group, by default that of this process, read the energy counters."""
    group = _own_group() if group is None else group
    return (
        'ACTION=="add", SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*",'
        f' RUN+="/bin/chgrp {group} /sys%p/energy_uj", RUN+="/bin/chmod 440 /sys%p/energy_uj"'
    )


def _own_group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def _package(folder: Path) -> _Package:
    limits = [
        read_integer(file) * _MICRO
        for number in (0, 1)
        if is_there(file := folder / f"constraint_{number}_power_limit_uw")
    ]
    # The long-term limit may be set very low, below what the short-term one allows.
    margins = (_TURBO_MARGIN, _SHORT_TERM_MARGIN)
    most = max((limit * margin for limit, margin in zip(limits, margins)), default=0.0)
    plausible = 0 < most < _WATTS_OF_ANY_PACKAGE
    return _Package(
        folder / "energy_uj",
        read_integer(folder / "max_energy_range_uj"),
        most if plausible else _WATTS_OF_ANY_PACKAGE,
    )


def _kind(cpuinfo: Path) -> str:
    text = read_text(cpuinfo)
    model = re.search(r"^model\s*:\s*(\d+)", text, re.MULTILINE)
    intel = "GenuineIntel" in text
    if intel and model is not None and int(model.group(1)) not in _MODELLED_INTEL:
        return "measured"
    return "derived"
