"""What every power sensor offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class PowerSourceFacts:
    """A place where power can be read, or the reason why it cannot."""

    name: str
    works: bool
    why_not: str


@dataclass(frozen=True)
class EnergyReading:
    """Raw values of a sensor's counters at one moment, one per counter."""

    counters: tuple[int, ...]


class EnergySensor(Protocol):
    """A counter of energy that only grows, up to a wrap that the sensor knows."""

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
        """A power above this is a broken counter, not a reading."""

    def read(self) -> EnergyReading:
        """The counters now. Raises SensorUnavailableError where they cannot be read."""

    def joules_between(self, earlier: EnergyReading, later: EnergyReading) -> float:
        """Energy between two readings at most one wrap apart."""
