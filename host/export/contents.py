"""What goes into a bundle: plain data, each number with where it comes from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from host.export.errors import ExportError
from host.measurement import Measurement
from host.measurement.samples import NumberKind
from host.measurement.verdict import Level
from host.preprocessing import Preprocessing

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True)
class BundleModel:
    """One ONNX file of the bundle."""

    precision: Precision
    onnx: bytes


@dataclass(frozen=True)
class BundlePrediction:
    """A cost model's number with the interval that holds the truth with probability `level`.

    `quantity` ends in its unit, such as latency_seconds.
    """

    precision: Precision
    device: str
    quantity: str
    value: float
    low: float
    high: float
    level: float
    cost_model: str


@dataclass(frozen=True)
class BundleMeasurement:
    """A device's numbers: the median latency with its 95 % interval, over n samples.

    `model_sha256` is of the file that was measured; figures may have been written into the
    shipped file's properties since. Energy is gross: idle power is not taken off.
    """

    precision: Precision
    device: str
    model_sha256: str
    protocol: str
    runtime: str
    runtime_version: str
    threads: int
    n: int
    latency_seconds: float
    latency_low_seconds: float
    latency_high_seconds: float
    peak_rss_bytes: int
    energy_per_inference_joules: float | None
    energy_kind: NumberKind | None
    energy_absent_because: str
    latency_kind: NumberKind
    verdict: Level
    verdict_reasons: tuple[str, ...]
    measured_at: str

    @classmethod
    def of(cls, measurement: Measurement, *, precision: Precision, device: str) -> Self:
        """The figures of a measurement on the device of that name."""
        low, high = measurement.latency_interval_seconds
        energy = measurement.energy
        return cls(
            precision=precision,
            device=device,
            model_sha256=measurement.model_sha256,
            protocol=measurement.protocol,
            runtime=measurement.runtime_library,
            runtime_version=measurement.runtime_version,
            threads=measurement.threads,
            n=measurement.sample_count,
            latency_seconds=measurement.latency_seconds,
            latency_low_seconds=low,
            latency_high_seconds=high,
            peak_rss_bytes=measurement.peak_rss_bytes,
            energy_per_inference_joules=energy.gross_joules if energy else None,
            energy_kind=energy.kind if energy else None,
            energy_absent_because=measurement.energy_absent_because,
            latency_kind=measurement.latency_kind,
            verdict=measurement.verdict.level,
            verdict_reasons=tuple(reason.sentence for reason in measurement.verdict.reasons),
            measured_at=measurement.measured_at.isoformat(),
        )


@dataclass(frozen=True)
class BundleAccuracy:
    """A figure on one part of the images. `baseline` is that of the most frequent class."""

    precision: Precision
    subset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    baseline: float | None = None


@dataclass(frozen=True)
class BundleContents:
    """Everything that a bundle says. `shipped` is the precision that won on the device.

    `name` becomes part of file names: letters, digits, dot, dash and underscore. `created_at` is
    an ISO 8601 time; contents that are equal give bundles that are equal, byte for byte.

    Raises ExportError for contents that no bundle can hold.
    """

    name: str
    genba_version: str
    created_at: str
    study: str
    space: str
    candidate: str
    seed: int
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    data_fingerprint: str
    data_counts: Mapping[str, int]
    data_licence: str
    models: tuple[BundleModel, ...]
    shipped: Precision
    scores: Mapping[str, float] = field(default_factory=dict)
    predictions: tuple[BundlePrediction, ...] = ()
    measurements: tuple[BundleMeasurement, ...] = ()
    accuracies: tuple[BundleAccuracy, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ExportError(
                f'a bundle cannot be named "{self.name}": use letters, digits, ".", "-" and "_"'
            )
        precisions = [model.precision for model in self.models]
        if self.shipped not in precisions or len(set(precisions)) != len(precisions):
            raise ExportError(
                f"a bundle needs each precision once and the shipped one among them: it has "
                f"{precisions} and ships {self.shipped}"
            )
        if any("\n" in name or "\r" in name for name in self.classes):
            raise ExportError("a class name has a line break in it: rename its folder")

    def model_path(self, precision: Precision) -> str:
        """Where a model stands in the bundle."""
        return f"models/{self.name}.{precision}.onnx"
