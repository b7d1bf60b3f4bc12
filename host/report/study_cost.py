"""What the electricity of a year costs, from the energy of one inference."""

from dataclasses import dataclass

from host.report.study_facts import Usage
from host.study.front import OnDevice

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class YearlyCost:
    """Of one device that runs one form; None where the energy or the price is not known.

    `duty` is the share of the time in which the device computes at the line's rate: above 1 it
    cannot keep up. None where no rate was given.
    """

    inferences: float
    energy_kwh: float | None
    money: float | None
    currency: str | None
    duty: float | None

    @property
    def keeps_up(self) -> bool:
        """Whether the device is fast enough for the rate, as far as one was given."""
        return self.duty is None or self.duty <= 1.0


def yearly_cost(row: OnDevice, usage: Usage) -> YearlyCost:
    """Energy of one inference x inferences a year x price; the energy is gross while the device
    computes, and what it draws while it waits is not in it.
    """
    joules = row.energy_per_inference_joules
    kwh = None if joules is None else joules * usage.inferences_per_year / JOULES_PER_KWH
    price = usage.price_per_kwh
    return YearlyCost(
        inferences=usage.inferences_per_year,
        energy_kwh=kwh,
        money=None if kwh is None or price is None else kwh * price,
        currency=usage.currency,
        duty=None if usage.rate_hertz is None else usage.rate_hertz * row.latency_seconds,
    )
