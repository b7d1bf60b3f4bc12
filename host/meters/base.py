"""What every meter on the network offers, and what can go wrong with one."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from host.errors import GenbaError, UsageError
from host.measurement.samples import NumberKind, Scope

Quantity = Literal["watts", "joules"]

WATTS: dict[str, float] = {"mW": 1e-3, "W": 1.0, "kW": 1e3}
"""Units of power, in watts."""
JOULES: dict[str, float] = {"J": 1.0, "Wmin": 60.0, "Wh": 3.6e3, "kWh": 3.6e6}
"""Units of energy, in joules."""


class MeterError(GenbaError):
    """The meter does not answer, or its answer makes no sense; trying again may help."""


class MeterUsageError(UsageError):
    """The URL or an option of a meter is wrong."""


@dataclass(frozen=True)
class Reading:
    """What a meter said at one moment; at least the value of the meter's quantity is present.

    `taken_monotonic_seconds` is when the value arrived, on the clock given to `open_meter`, for a
    meter that sends of its own accord; None where the meter was asked.
    """

    power_watts: float | None = None
    energy_joules: float | None = None
    taken_monotonic_seconds: float | None = None

    def value(self, quantity: Quantity) -> float:
        """The value of that quantity. Raises MeterError where it is absent or no number."""
        value = self.power_watts if quantity == "watts" else self.energy_joules
        if value is None:
            what = "power" if quantity == "watts" else "energy counter"
            raise MeterError(f"the meter has no {what}; choose the other one with quantity=")
        if not math.isfinite(value):
            raise MeterError("the meter's value is not a number; check its registers or its unit")
        return value


@dataclass(frozen=True)
class MeterFacts:
    """What is known of a meter without reading it.

    `scope` says what is supplied through it. `quantity` is what a series of its readings is made
    of, `interval_seconds` how often a reading is worth taking. A power above `max_watts` is a wrong
    unit, not a reading; `resolution_watts` is the step in which the meter counts, where known.
    """

    name: str
    scope: Scope
    kind: NumberKind
    quantity: Quantity
    max_watts: float
    interval_seconds: float
    resolution_watts: float | None = None


class Meter(ABC):
    """A meter in use by one thread at a time. After an error it may be read again, and is."""

    def __init__(self, facts: MeterFacts) -> None:
        self.facts = facts

    @property
    def name(self) -> str:
        """Scheme and place of the meter, such as "shelly 192.168.7.20"."""
        return self.facts.name

    @property
    def scope(self) -> Scope:
        """What is supplied through it."""
        return self.facts.scope

    @property
    def kind(self) -> NumberKind:
        """Where the number comes from."""
        return self.facts.kind

    @property
    def quantity(self) -> Quantity:
        """What a series of readings is made of."""
        return self.facts.quantity

    @property
    def max_watts(self) -> float:
        """A power above this is a wrong unit, not a reading."""
        return self.facts.max_watts

    @property
    def interval_seconds(self) -> float:
        """How often a reading is worth taking."""
        return self.facts.interval_seconds

    @abstractmethod
    def read(self) -> Reading:
        """The value now. Blocks no longer than the option timeout_seconds (a few times that where
        it must connect first). Raises MeterError.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; the meter must not be read afterwards."""
