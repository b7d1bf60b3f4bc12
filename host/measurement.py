"""What a device measured: raw samples, and the statistics that follow from them."""

import math
import statistics
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

PROTOCOL = "genba-measure/1"
"""Name of the way of measuring; results of different protocols are not compared."""

FailureKind = Literal[
    "model_rejected", "worker_crashed", "timeout", "resource", "no_runtime", "cancelled"
]


@dataclass(frozen=True)
class MeasureSpec:
    """How to measure one model: the same spec on the same device is the same measurement."""

    model_sha256: str
    model_size_bytes: int
    runtime: str = "onnx"
    threads: int = 1
    warmup_runs: int = 5
    warmup_seconds: float = 0.2
    min_samples: int = 30
    min_seconds: float = 0.5
    timeout_seconds: float = 120.0
    protocol: str = PROTOCOL


@dataclass(frozen=True)
class Power:
    """Energy over a window in which inferences ran back to back; idle is not subtracted."""

    source: str
    scope: str
    kind: Literal["measured", "derived", "estimated"]
    energy_joules: float
    window_seconds: float
    inferences: int
    idle_watts: float | None = None

    @property
    def power_watts(self) -> float:
        return self.energy_joules / self.window_seconds

    @property
    def energy_per_inference_joules(self) -> float:
        return self.energy_joules / self.inferences


@dataclass(frozen=True)
class Measurement:
    """One successful measurement. Raw samples are kept; every statistic is derived from them."""

    device_id: str
    model_sha256: str
    protocol: str
    runtime: str
    runtime_library: str
    runtime_version: str
    threads: int
    latency_samples_seconds: tuple[float, ...]
    runs_per_sample: int
    warmup_runs: int
    load_seconds: float
    first_inference_seconds: float
    base_rss_bytes: int
    load_rss_bytes: int
    peak_rss_bytes: int
    power: Power | None
    power_absent_because: str
    temperature_start_celsius: float | None
    temperature_end_celsius: float | None
    governor: str | None
    load_average_start: float
    runtime_options: tuple[str, ...]
    cpu_seconds: float | None
    measured_at: datetime

    @property
    def sample_count(self) -> int:
        return len(self.latency_samples_seconds)

    @cached_property
    def latency_seconds(self) -> float:
        """The median of the samples."""
        return statistics.median(self.latency_samples_seconds)

    @cached_property
    def latency_interval_seconds(self) -> tuple[float, float]:
        """A 95 % interval of the median from order statistics.

        Ranks n/2 -+ 0.98 sqrt(n), the normal approximation of the binomial
        (Conover, Practical Nonparametric Statistics, 3rd ed., sec. 3.2).
        """
        ordered = sorted(self.latency_samples_seconds)
        n = len(ordered)
        half = 0.98 * math.sqrt(n)
        low = max(0, math.floor(n / 2 - half))
        high = min(n - 1, math.ceil(n / 2 + half))
        return ordered[low], ordered[high]


@dataclass(frozen=True)
class MeasurementFailure:
    """Why a model has no measurement on a device: as good a result as a number."""

    device_id: str
    model_sha256: str
    kind: FailureKind
    message: str
    failed_at: datetime


Outcome = Measurement | MeasurementFailure
