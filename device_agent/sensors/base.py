"""What every power source offers, and what a person may say about the board's sensors."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class PowerSourceFacts:
    """A place where power can be read, or the reason why it cannot."""

    name: str
    works: bool
    why_not: str


@dataclass(frozen=True)
class PowerSettings:
    """What the kernel cannot know about sensors that a person soldered in.

    Chips are called by their hwmon name ("ina219") or, where there are several of one name, with
    their bus address ("ina219@1-0041"). `shunt_ohm` is the real resistance of a chip's shunt;
    `channels` are the labels of the channels of an INA3221 that together supply the board;
    `board_supply` are the chips that together supply it, where there are more than one.
    """

    shunt_ohm: Mapping[str, float] = dataclasses.field(default_factory=dict)
    channels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    board_supply: tuple[str, ...] = ()


class Quantity(enum.Enum):
    """What a power source gives at each reading."""

    JOULES = "joules"
    WATTS = "watts"


class PowerSource(Protocol):
    """One sensor, or several that together make one supply."""

    @property
    def name(self) -> str:
        """Short name of the source, e.g. "rapl"."""

    @property
    def scope(self) -> str:
        """What is supplied through it: "package", "board" or "wall"."""

    @property
    def kind(self) -> str:
        """Where the number comes from: "measured", "derived" or "estimated"."""

    @property
    def max_watts(self) -> float:
        """A power above this is a broken sensor, not a reading."""

    @property
    def quantity(self) -> Quantity:
        """Joules of a counter that only grows (wraps are undone), or watts at this moment."""

    @property
    def interval_seconds(self) -> float:
        """How often a reading is worth taking."""

    def read(self) -> float:
        """The value now. Raises SensorUnavailableError where it cannot be read or is impossible."""
