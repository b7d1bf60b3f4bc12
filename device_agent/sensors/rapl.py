"""Energy of the CPU packages from RAPL counters, through the kernel's powercap files.

Layout and units: Linux Documentation/power/powercap/powercap.rst (energy_uj in microjoules, wraps
at max_energy_range_uj). From Haswell on Intel measures; Sandy Bridge and Ivy Bridge compute the
value from event counts (Hackenberg et al., "An energy efficiency feature survey of the Intel
Haswell processor", 2015), and so does AMD (Schoene et al., "Energy efficiency aspects of the AMD
Zen 2 architecture", 2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import EnergyReading

POWERCAP = Path("/sys/class/powercap")
CPUINFO = Path("/proc/cpuinfo")

_MICRO = 1e-6
# Where the firmware states no limit, no single package of any PC or server reaches this.
_WATTS_OF_ANY_PACKAGE = 1000.0
# Short turbo excursions exceed the long-term limit, by far less than this.
_TURBO_MARGIN = 4.0
# Sandy Bridge (client, server) and Ivy Bridge (client, server): Intel SDM vol. 4, table 2-1.
_MODELLED_INTEL = frozenset({0x2A, 0x2D, 0x3A, 0x3E})


@dataclass(frozen=True)
class _Package:
    energy_file: Path
    wrap_microjoules: int
    max_watts: float


class Rapl:
    """All CPU packages of this machine as one source of energy."""

    name = "rapl"
    scope = "package"

    def __init__(self, powercap: Path = POWERCAP, cpuinfo: Path = CPUINFO) -> None:
        """Raises SensorUnavailableError, with the reason, where RAPL cannot be read."""
        folders = sorted(p for p in _listed(powercap) if re.fullmatch(r"intel-rapl:\d+", p.name))
        packages = [p for p in folders if _text(p / "name").startswith("package")]
        if not packages:
            raise SensorUnavailableError(
                "this machine has no RAPL counter of its CPU (virtual machine, ARM board,"
                " old CPU or kernel module not loaded)"
            )
        self._packages = tuple(_package(folder) for folder in packages)
        self.kind = _kind(cpuinfo)
        self.max_watts = sum(package.max_watts for package in self._packages)
        self.read()

    def read(self) -> EnergyReading:
        return EnergyReading(tuple(_integer(p.energy_file) for p in self._packages))

    def joules_between(self, earlier: EnergyReading, later: EnergyReading) -> float:
        total = 0
        for package, first, last in zip(self._packages, earlier.counters, later.counters):
            wrapped = package.wrap_microjoules if last < first else 0
            total += last - first + wrapped
        return total * _MICRO


def _package(folder: Path) -> _Package:
    limit_file = folder / "constraint_0_power_limit_uw"
    limit = _integer(limit_file) * _MICRO if limit_file.exists() else 0.0
    plausible = 0 < limit * _TURBO_MARGIN < _WATTS_OF_ANY_PACKAGE
    return _Package(
        folder / "energy_uj",
        _integer(folder / "max_energy_range_uj"),
        limit * _TURBO_MARGIN if plausible else _WATTS_OF_ANY_PACKAGE,
    )


def _kind(cpuinfo: Path) -> str:
    text = _text(cpuinfo)
    model = re.search(r"^model\s*:\s*(\d+)", text, re.MULTILINE)
    intel = "GenuineIntel" in text
    if intel and model is not None and int(model.group(1)) not in _MODELLED_INTEL:
        return "measured"
    return "derived"


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SensorUnavailableError(f"{folder} cannot be listed ({error.strerror})") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except PermissionError as error:
        raise SensorUnavailableError(
            f"no permission to read {path}: give the agent's user read access, for example by a"
            " udev rule (the kernel keeps it for root since CVE-2020-8694)"
        ) from error
    except OSError as error:
        raise SensorUnavailableError(f"{path} cannot be read ({error.strerror})") from error


def _integer(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError as error:
        raise SensorUnavailableError(f"{path} holds no number") from error
