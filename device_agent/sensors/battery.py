"""Power that a laptop, tablet or panel draws from its battery, through the power_supply class.

Units: Linux Documentation/ABI/testing/sysfs-class-power (microwatts, microamperes, microvolts).
Only while the battery alone supplies the board is what leaves it what the board draws.
"""

from __future__ import annotations

from pathlib import Path

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import Quantity
from device_agent.sensors.sysfs import entries, is_there, read_integer, read_text

SYS = Path("/sys")

_MICRO = 1e-6
_PICO = 1e-12
# The lightest tablet with its screen off, and more than any battery of a portable gives.
_MIN_WATTS = 0.1
_MAX_WATTS = 300.0


class Battery:
    """All batteries of this machine that are discharging, together."""

    name = "battery"
    scope = "board"
    kind = "measured"
    quantity = Quantity.WATTS
    max_watts = _MAX_WATTS
    # Fuel gauges average over one to thirty seconds.
    interval_seconds = 1.0

    def __init__(self, sys: Path = SYS) -> None:
        """Raises SensorUnavailableError where there is no battery or it does not supply the board
        alone.
        """
        supplies = [s for s in entries(sys / "class/power_supply") if _feeds_this_machine(s)]
        self._batteries = [s for s in supplies if read_text(s / "type") == "Battery"]
        self._chargers = [s for s in supplies if s not in self._batteries]
        if not self._batteries:
            raise SensorUnavailableError("this machine has no battery")
        self.read()

    def read(self) -> float:
        """Watts now.

        Raises SensorUnavailableError while a battery charges or a charger is plugged in too.
        """
        statuses = [(battery, read_text(battery / "status")) for battery in self._batteries]
        discharging = [battery for battery, status in statuses if status == "Discharging"]
        if not discharging or any(status == "Charging" for _, status in statuses):
            said = ", ".join(f"{battery.name} is {status!r}" for battery, status in statuses)
            raise SensorUnavailableError(
                f"the battery does not supply the board alone ({said}): unplug the charger"
            )
        plugged = [charger.name for charger in self._chargers if _is_online(charger)]
        if plugged:
            raise SensorUnavailableError(
                f"the charger {plugged[0]} supplies the board too: unplug it"
            )
        watts = sum(_watts(battery) for battery in discharging)
        if not _MIN_WATTS <= watts <= _MAX_WATTS:
            raise SensorUnavailableError(
                f"battery: {watts:.2f} W leave it, which no such machine draws"
            )
        return watts


def _feeds_this_machine(supply: Path) -> bool:
    """The class also lists the batteries of a mouse or a headset: their scope is "Device"."""
    scope = supply / "scope"
    return is_there(supply / "type") and not (is_there(scope) and read_text(scope) == "Device")


def _is_online(charger: Path) -> bool:
    online = charger / "online"
    return is_there(online) and read_integer(online) != 0


def _watts(battery: Path) -> float:
    """Drivers do not agree on the sign of what leaves a battery; its status tells the direction."""
    power = battery / "power_now"
    if is_there(power):
        return abs(read_integer(power)) * _MICRO
    current, voltage = battery / "current_now", battery / "voltage_now"
    return abs(read_integer(current)) * read_integer(voltage) * _PICO
