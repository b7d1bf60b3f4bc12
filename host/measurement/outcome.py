"""What may come of a job besides a measurement."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from host.measurement.measurement import Measurement
from host.measurement.samples import Preflight, ReferenceRun, Thermal
from host.measurement.spec import ModelRun

FailureKind = Literal[
    "model_rejected",
    "worker_crashed",
    "timeout",
    "resource",
    "no_runtime",
    "cancelled",
    "not_ready",
]


@dataclass(frozen=True)
class MeasurementFailure:
    """Why a job has no result: as good a result as a number. A probe has no model."""

    device_id: str
    model_sha256: str | None
    kind: FailureKind
    message: str
    failed_at: datetime


@dataclass(frozen=True)
class VerifiedOutputs:
    """The outputs of a model on a device, an .npz among the blobs, examples along axis 0."""

    device_id: str
    run: ModelRun
    inputs_sha256: str
    runtime_library: str
    runtime_version: str
    runtime_options: tuple[str, ...]
    outputs_sha256: str
    outputs_size_bytes: int
    examples: int
    verified_at: datetime


@dataclass(frozen=True)
class OperatorTime:
    """Mean seconds per inference of one operator of a model."""

    name: str
    kind: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of an inference goes, slowest operator first; the profiler makes it longer."""

    device_id: str
    run: ModelRun
    runtime_library: str
    runtime_version: str
    runtime_options: tuple[str, ...]
    runs: int
    run_seconds: float
    operators: tuple[OperatorTime, ...]
    profiled_at: datetime


@dataclass(frozen=True)
class ProbeResult:
    """A device as it is, and how fast its reference models run: the baseline of verdicts."""

    device_id: str
    preflight: Preflight
    references: tuple[ReferenceRun, ...]
    thermal: Thermal
    governor: str | None
    probed_at: datetime


Measured = Measurement | MeasurementFailure
"""What comes of asking for a measurement."""

Outcome = Measurement | VerifiedOutputs | Profile | ProbeResult | MeasurementFailure


def is_disturbed(probe: ProbeResult) -> bool:
    """Whether other programs or heat slowed the device while it was probed, so that it sets no
    baseline.
    """
    return bool(
        probe.preflight.problems
        or probe.preflight.throttled
        or probe.thermal.throttled
        or probe.thermal.throttle_events
    )
