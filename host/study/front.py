"""What a study found: the Pareto front of measured candidates, as plain values that can be kept."""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from cost_models.base import Prediction
from host.device import RuntimeName
from host.measurement import Measurement
from host.measurement.samples import NumberKind
from host.measurement.verdict import Level

FRONT = "front"
"""Name of the stored result that holds the front."""


class Value(BaseModel):
    """Frozen and strict about its keys, so that an older file does not pass silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Predicted(Value):
    """A prediction made before the candidate was measured, with its interval at `level`.

    `high` is None where the cost model gives no upper bound.
    """

    value: float
    low: float
    high: float | None
    level: float

    @classmethod
    def of(cls, prediction: Prediction | None) -> Self | None:
        """The prediction as a plain value."""
        if prediction is None:
            return None
        return cls(
            value=prediction.value,
            low=prediction.low,
            high=prediction.high if math.isfinite(prediction.high) else None,
            level=prediction.level,
        )


class OnDevice(Value):
    """What is known of a candidate on one device. Seconds, bytes, watts, joules.

    `device` is the name of the device profile. A prediction is None for a candidate that was
    measured to calibrate the cost models. Energy is gross: idle power is not taken off. A verdict
    of None was never given. `agreement` is the share of validation samples on which the device
    gave the host's answer, where it was asked. The 90 % quantile is None where too few samples
    tell it.
    """

    device: str
    runtime: str
    predicted_latency_seconds: Predicted | None
    predicted_peak_rss_bytes: Predicted | None
    latency_seconds: float
    latency_low_seconds: float
    latency_high_seconds: float
    latency_p90_seconds: float | None
    samples: int
    peak_rss_bytes: int
    power_watts: float | None
    energy_per_inference_joules: float | None
    power_source: str | None
    power_absent_because: str
    latency_kind: NumberKind = "measured"
    verdict: Level | None = None
    verdict_reasons: list[str] = []
    agreement: float | None = None
    power_at_rate_watts: float | None = None

    @classmethod
    def of(
        cls,
        device: str,
        measurement: Measurement,
        *,
        latency: Prediction | None = None,
        peak_rss: Prediction | None = None,
        agreement: float | None = None,
        rate_hertz: float | None = None,
    ) -> Self:
        """The figures of a measurement, beside what was predicted before it.

        `rate_hertz` is that of the line, at which the mean power is told: derived from what is
        drawn at idle, and the energy of so many inferences a second above it.
        """
        low, high = measurement.latency_interval_seconds
        energy = measurement.energy
        return cls(
            device=device,
            runtime=f"{measurement.runtime_library} {measurement.runtime_version}",
            predicted_latency_seconds=Predicted.of(latency),
            predicted_peak_rss_bytes=Predicted.of(peak_rss),
            latency_seconds=measurement.latency_seconds,
            latency_low_seconds=low,
            latency_high_seconds=high,
            latency_p90_seconds=measurement.latency.quantile(0.90),
            samples=measurement.sample_count,
            peak_rss_bytes=measurement.peak_rss_bytes,
            power_watts=None if energy is None else energy.power_watts,
            energy_per_inference_joules=None if energy is None else energy.gross_joules,
            power_at_rate_watts=(
                None
                if energy is None or rate_hertz is None
                else energy.idle_watts + rate_hertz * energy.net_joules
            ),
            power_source=None if energy is None else f"{energy.source}, {energy.kind}",
            power_absent_because=measurement.energy_absent_because,
            latency_kind=measurement.latency_kind,
            verdict=measurement.verdict.level,
            verdict_reasons=[reason.sentence for reason in measurement.verdict.reasons],
            agreement=agreement,
        )


def value_on(found: OnDevice, quantity: str) -> float | None:
    """A limited quantity of what was measured on a profile, of the median latency the upper end of
    its interval; None where it was not measured, or is none of a device.
    """
    values: dict[str, float | None] = {
        "latency_seconds": found.latency_high_seconds,
        "latency_p90_seconds": found.latency_p90_seconds,
        "peak_rss_bytes": found.peak_rss_bytes,
        "energy_per_inference_joules": found.energy_per_inference_joules,
        "power_watts": found.power_at_rate_watts,
    }
    return values.get(quantity)


class FrontRow(Value):
    """A candidate on the front. `score` is its log-rank among all scored candidates."""

    key: str
    text: str
    score: float
    scores: dict[str, float | None]
    parameters: int
    macs: int
    model_bytes: int
    devices: list[OnDevice]


class Point(Value):
    """A measured candidate that is not on the front, for the picture."""

    score: float
    latency_seconds: dict[str, float]
    within_limits: bool


class Profile(Value):
    """A device profile of a study: a machine with a runtime and a number of threads."""

    name: str
    device: str
    architecture: str
    cpu: str
    runtime: RuntimeName
    runtime_version: str
    """Of the library that runs the files, with its name; empty where the agent has not said it."""
    threads: int

    @property
    def device_class(self) -> str:
        """Profiles of one class run the same files."""
        return f"{self.architecture}-{self.runtime}"

    @property
    def engine(self) -> str:
        """What runs the files, as far as the agent has said."""
        return self.runtime_version or self.runtime

    @property
    def machine(self) -> str:
        """The device, and what it is as far as its agent has said."""
        facts = ", ".join(fact for fact in (self.cpu, self.architecture) if fact)
        return f"{self.device} ({facts})" if facts else self.device


class LimitLine(Value):
    """A limit of the study: the largest value (SI units) of a quantity, on one device profile or
    (None) of the file. `text` is how the study file writes it.
    """

    quantity: str
    device: str | None
    maximum: float
    text: str


class Spent(Value):
    """What was spent of a budget; `allowed` is None where there was no limit."""

    what: Literal["candidates", "measurements", "device minutes", "minutes", "epochs"]
    spent: float
    allowed: float | None


class FrontReport(Value):
    """The front of a study, best score first, and what it was chosen from.

    `hypervolume` is the course of the search: candidates scored, and the share of the box of
    places among all of them (by score and by latencies) that the front then dominated.
    `stopped_because` says what ended the search.
    """

    format: Literal["genba-front/2"] = "genba-front/2"
    study: str
    space: str
    proxies: list[str]
    profiles: list[Profile]
    limits: list[LimitLine]
    scored: int
    measured: int
    hypervolume: list[tuple[int, float]]
    stopped_because: str
    spent: list[Spent]
    rows: list[FrontRow]
    others: list[Point]

    def latency_limit_seconds(self, profile: str) -> float | None:
        """The tightest limit on the median latency of a device profile, where there is one."""
        return min(
            (
                limit.maximum
                for limit in self.limits
                if limit.device == profile and limit.quantity == "latency_seconds"
            ),
            default=None,
        )
