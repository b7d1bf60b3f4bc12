"""Temperature of the CPU from the kernel's thermal zones or hwmon chips.

Units: Linux Documentation/driver-api/thermal/sysfs-api.rst (millidegree Celsius).
"""

from __future__ import annotations

from pathlib import Path

SYS = Path("/sys")

# In order of preference: a whole package or SoC before anything else.
_ZONE_TYPES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal")
_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "via_cputemp")
_MILLI = 1e-3
_PLAUSIBLE_CELSIUS = (-50.0, 150.0)


def cpu_temperature_celsius(sys: Path = SYS) -> float | None:
    """The CPU's temperature now, or None where no sensor that is surely the CPU's can be read."""
    candidates = _readable(sys / "class" / "thermal", "thermal_zone*", "type", "temp", _ZONE_TYPES)
    candidates += _readable(sys / "class" / "hwmon", "hwmon*", "name", "temp1_input", _CHIPS)
    return candidates[0] if candidates else None


def _readable(
    folder: Path, pattern: str, name_file: str, value_file: str, wanted: tuple[str, ...]
) -> list[float]:
    found: dict[str, float] = {}
    for entry in sorted(folder.glob(pattern)):
        name, value = _line(entry / name_file), _line(entry / value_file)
        if name in wanted and value.lstrip("-").isdigit():
            celsius = int(value) * _MILLI
            if _PLAUSIBLE_CELSIUS[0] < celsius < _PLAUSIBLE_CELSIUS[1]:
                found.setdefault(name, celsius)
    return [found[name] for name in wanted if name in found]


def _line(path: Path) -> str:
    """The file's text; empty where the driver does not answer, which counts as no sensor."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
