"""What the report of a study is made from: plain values, and what people add to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from host.study.finalist import FinalistResult, FormResult, TrialsReport
from host.study.front import FrontReport, OnDevice, Profile
from host.study.stored import DataFacts

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Usage:
    """How often a device will be asked in a year, and the price of a kilowatt-hour.

    `rate_hertz` is None where only the number a year is known; price and currency come together.
    """

    inferences_per_year: float
    rate_hertz: float | None = None
    hours_per_year: float | None = None
    price_per_kwh: float | None = None
    currency: str | None = None

    @classmethod
    def at_rate(
        cls,
        rate_hertz: float,
        hours_per_year: float,
        *,
        price_per_kwh: float | None = None,
        currency: str | None = None,
    ) -> Self:
        """The use by a line that runs so many hours a year and asks at that rate meanwhile."""
        asked = rate_hertz * hours_per_year * SECONDS_PER_HOUR
        return cls(asked, rate_hertz, hours_per_year, price_per_kwh, currency)


@dataclass(frozen=True)
class Origin:
    """Where a study came from: with these, genba does it again."""

    genba_version: str
    seed: int
    config: Mapping[str, Any]
    created_at: datetime
    finished_at: datetime | None = None
    stopped_because: str | None = None


@dataclass(frozen=True)
class StudyReport:
    """Everything that is known of a study when its report is written."""

    front: FrontReport
    finalists: Sequence[FinalistResult]
    origin: Origin
    trials: TrialsReport | None = None
    data: DataFacts | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Shown:
    """A form of a finalist on a device profile; `number` counts finalists from 1."""

    number: int
    finalist: FinalistResult
    form: FormResult
    profile: Profile
    row: OnDevice


def row_on(devices: Sequence[OnDevice], profile: str) -> OnDevice | None:
    """What is known on that device profile; None where it was not measured there."""
    return next((row for row in devices if row.device == profile), None)
