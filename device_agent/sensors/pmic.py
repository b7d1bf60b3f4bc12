"""Power of a Raspberry Pi 5 from the rails that its power management chip (PMIC) measures.

The chip knows voltage and current of the rails that it makes, and not the 5 V that it is fed with;
what is lost before the rails follows from a fit to a wall meter (leukipp/touchkio, GitHub issue
35), so the figure is derived. What USB and HATs draw from 5 V directly is not in it.
"""

from __future__ import annotations

import re
from typing import Callable

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import Quantity
from device_agent.sensors.mailbox import Mailbox

_COMMAND = "pmic_read_adc"
_RAIL = re.compile(r"(\w+)_([AV])\s+(?:current|volt)\w*\(\d+\)=(-?\d+(?:\.\d+)?)[AV]")
_FIT_SLOPE = 1.1451
_FIT_WATTS = 0.5879
# A board that answers runs; the largest supply made for it gives 27 W.
_MIN_RAIL_WATTS = 0.3
_MAX_WATTS = 30.0


class Pmic:
    """The board of a Raspberry Pi 5 or Compute Module 5."""

    name = "pmic"
    scope = "board"
    kind = "derived"
    quantity = Quantity.WATTS
    max_watts = _MAX_WATTS
    # The firmware converts all channels for each answer: more than 10 Hz would load it.
    interval_seconds = 0.1

    def __init__(self, gencmd: Callable[[str], str] | None = None) -> None:
        """`gencmd` asks the firmware. Raises SensorUnavailableError where it does not know."""
        self._gencmd = Mailbox().gencmd if gencmd is None else gencmd
        self.read()

    def read(self) -> float:
        rails = _rails_watts(self._gencmd(_COMMAND))
        watts = _FIT_SLOPE * rails + _FIT_WATTS
        if rails < _MIN_RAIL_WATTS or watts > _MAX_WATTS:
            raise SensorUnavailableError(
                f"pmic: the rails show {rails:.2f} W, which this board cannot draw"
            )
        return watts


def _rails_watts(answer: str) -> float:
    readings = {(rail, unit): float(value) for rail, unit, value in _RAIL.findall(answer)}
    currents = {rail: value for (rail, unit), value in readings.items() if unit == "A"}
    if not currents:
        raise SensorUnavailableError(
            f"the firmware answers {_COMMAND} with no currents ({answer[:60]!r})"
        )
    missing = [rail for rail in currents if (rail, "V") not in readings]
    if missing:
        raise SensorUnavailableError(
            f"the firmware tells the current of {missing[0]} and not its voltage"
        )
    return sum(amperes * readings[rail, "V"] for rail, amperes in currents.items())
