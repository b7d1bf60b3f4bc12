"""What the host asks of a device and what comes of it, as frozen values.

Fields that may be absent are Optional and None: Python 3.9 reads these annotations at run time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

PROTOCOL = "genba-measure/2"
"""Name of the way of measuring that this agent follows."""


@dataclass(frozen=True)
class InputShape:
    """A shape for an input that the model leaves open."""

    name: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ModelRun:
    """One model, and how a runtime is set up for it."""

    model_sha256: str
    model_size_bytes: int
    runtime: str
    threads: int
    input_shapes: tuple[InputShape, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readiness:
    """When a device is ready to be measured; CPU shares are of all cores."""

    observe_seconds: float
    max_foreign_cpu: float
    min_free_ram_bytes: int
    max_start_celsius: Optional[float]
    wait_seconds: float
    measure_when_busy: bool


@dataclass(frozen=True)
class Plan:
    """How samples are taken. `half_width` is that of the median's 95 % interval, relative;
    `budget_seconds` is for all processes together. No energy where `energy_windows` is 0.
    """

    processes: int
    warmup_runs: int
    warmup_seconds: float
    min_blocks: int
    block_runs: int
    block_seconds: float
    min_samples: int
    half_width: float
    budget_seconds: float
    energy_windows: int
    energy_window_seconds: float
    paced_hertz: Optional[float] = None


@dataclass(frozen=True)
class MeasureSpec:
    """Measure a model. `timeout_seconds` bounds the whole job on the device."""

    protocol: str
    run: ModelRun
    readiness: Readiness
    plan: Plan
    timeout_seconds: float


@dataclass(frozen=True)
class VerifySpec:
    """Run a model on real inputs, an .npz with examples along axis 0, and return the outputs."""

    protocol: str
    run: ModelRun
    inputs_sha256: str
    inputs_size_bytes: int
    max_output_bytes: int
    timeout_seconds: float


@dataclass(frozen=True)
class ProfileSpec:
    """Time every operator of a model, in a run of its own."""

    protocol: str
    run: ModelRun
    runs: int
    timeout_seconds: float


@dataclass(frozen=True)
class ProbeSpec:
    """Observe the device and time the reference model on every runtime that works."""

    protocol: str
    readiness: Readiness
    timeout_seconds: float


Spec = Union[MeasureSpec, VerifySpec, ProfileSpec, ProbeSpec]


@dataclass(frozen=True)
class Lease:
    """One job, lent to this device for `seconds` after each renewal."""

    id: str
    job_id: str
    attempt: int
    seconds: float
    spec: Spec

    @property
    def idempotency_key(self) -> str:
        """The key under which the host stores the outcome at most once."""
        return f"{self.job_id}:{self.attempt}"


@dataclass(frozen=True)
class Preflight:
    """The device just before it is measured. `problems` were found and not refused, each as
    "code: sentence".
    """

    foreign_cpu: float
    swapped_in_pages: Optional[int]
    free_ram_bytes: int
    temperature_celsius: Optional[float]
    throttled: tuple[str, ...]
    canary_seconds: float
    waited_seconds: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thermal:
    """Temperature and throttling over a job; `throttle_events` are those that it saw happen."""

    start_celsius: Optional[float] = None
    end_celsius: Optional[float] = None
    max_celsius: Optional[float] = None
    throttle_events: Optional[int] = None
    cooled_seconds: float = 0.0
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """Of one worker: with the runtime imported, with the model loaded, and at most (VmHWM).
    USS and PSS are those at the end, `base_uss_bytes` that before the model.
    """

    base_rss_bytes: int
    load_rss_bytes: int
    peak_rss_bytes: int
    uss_bytes: Optional[int] = None
    pss_bytes: Optional[int] = None
    base_uss_bytes: Optional[int] = None


@dataclass(frozen=True)
class Block:
    """Samples in a row; seconds of one inference, except `run_delay_seconds`: the time for which
    threads of the worker were runnable and did not run, within each whole sample.
    """

    started_monotonic_seconds: float
    lasted_seconds: float
    canary_seconds: float
    reference_seconds: tuple[float, ...]
    reference_cpu_seconds: tuple[float, ...]
    latency_seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    run_delay_seconds: Optional[tuple[float, ...]] = None
    involuntary_switches: Optional[int] = None
    steal_seconds: Optional[float] = None


@dataclass(frozen=True)
class ProcessRun:
    """What one fresh worker measured."""

    memory: Memory
    load_seconds: float
    first_inference_seconds: float
    warmup_runs: int
    steady: bool
    runs_per_sample: int
    call_overhead_seconds: float
    blocks: tuple[Block, ...]


class PhaseKind(enum.Enum):
    """What the energy worker did for a while."""

    IDLE = "idle"
    STEP = "step"
    BUSY = "busy"
    PACED = "paced"


@dataclass(frozen=True)
class Phase:
    """A stretch of an energy run, on CLOCK_MONOTONIC."""

    kind: PhaseKind
    started_monotonic_seconds: float
    ended_monotonic_seconds: float
    inferences: int


@dataclass(frozen=True)
class PowerSeries:
    """What one source said during an energy run: either joules of a counter or watts."""

    source: str
    scope: str
    kind: str
    max_watts: float
    monotonic_seconds: tuple[float, ...]
    energy_joules: tuple[float, ...] = ()
    power_watts: tuple[float, ...] = ()
    broken_because: str = ""


@dataclass(frozen=True)
class EnergyRun:
    """A worker of its own in phases, and what the board's sensors said meanwhile."""

    phases: tuple[Phase, ...]
    series: tuple[PowerSeries, ...]
    temperature_start_celsius: Optional[float]
    temperature_end_celsius: Optional[float]
    cpu_utilisation: float


@dataclass(frozen=True)
class MeasuredSamples:
    """Raw values of one measurement. `energy` is None exactly where `energy_absent_because` is
    not empty.
    """

    protocol: str
    runtime: str
    runtime_library: str
    runtime_version: str
    threads: int
    runtime_options: tuple[str, ...]
    cpus: tuple[int, ...]
    preflight: Preflight
    processes: tuple[ProcessRun, ...]
    thermal: Thermal
    governor: Optional[str]
    load_average_start: float
    energy: Optional[EnergyRun]
    energy_absent_because: str


@dataclass(frozen=True)
class VerifiedOutputs:
    """The outputs of a model on the inputs that it was sent; `outputs_path` is on this device."""

    runtime: str
    runtime_library: str
    runtime_version: str
    runtime_options: tuple[str, ...]
    outputs_sha256: str
    outputs_size_bytes: int
    examples: int
    outputs_path: Path


@dataclass(frozen=True)
class OperatorTime:
    """Mean seconds per inference of one operator of a model."""

    name: str
    kind: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of an inference goes; the profiler itself makes it longer."""

    runtime: str
    runtime_library: str
    runtime_version: str
    threads: int
    runtime_options: tuple[str, ...]
    runs: int
    run_seconds: float
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True)
class ReferenceRun:
    """The reference model of one runtime on one thread, or why there are no figures."""

    runtime: str
    runtime_library: str
    runtime_version: str
    latency_seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    canary_seconds: tuple[float, ...]
    failed_because: str = ""


@dataclass(frozen=True)
class ProbeResult:
    """The device as it is, and how fast its reference models run."""

    preflight: Preflight
    references: tuple[ReferenceRun, ...]
    thermal: Thermal
    governor: Optional[str]


class FailureKind(enum.Enum):
    """Why a job has no result."""

    MODEL_REJECTED = "model_rejected"
    WORKER_CRASHED = "worker_crashed"
    TIMEOUT = "timeout"
    RESOURCE = "resource"
    NO_RUNTIME = "no_runtime"
    CANCELLED = "cancelled"
    NOT_READY = "not_ready"


@dataclass(frozen=True)
class Failure:
    """A job without a result, and the reason for people to read."""

    kind: FailureKind
    message: str


Outcome = Union[MeasuredSamples, VerifiedOutputs, Profile, ProbeResult, Failure]
