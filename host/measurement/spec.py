"""What to do with a model on a device; the same spec on the same device is the same job."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

PROTOCOL = "genba-measure/2"
"""Name of the way of measuring; results of different protocols are not compared."""

PresetName = Literal["quick", "standard", "thorough"]
MB = 1_000_000


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
    runtime: str = "onnx"
    threads: int = 1
    input_shapes: tuple[InputShape, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readiness:
    """When a device is ready to be measured; CPU shares are of all cores."""

    observe_seconds: float = 2.0
    max_foreign_cpu: float = 0.05
    min_free_ram_bytes: int = 64 * MB
    max_start_celsius: float | None = None
    wait_seconds: float = 30.0
    measure_when_busy: bool = False


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
    energy_windows: int = 0
    energy_window_seconds: float = 10.0
    paced_hertz: float | None = None

    def with_energy(self, windows: int = 5, paced_hertz: float | None = None) -> Self:
        """The same plan with an energy run after the samples."""
        return replace(self, energy_windows=windows, paced_hertz=paced_hertz)


PRESETS: dict[PresetName, Plan] = {
    "quick": Plan(
        processes=1,
        warmup_runs=5,
        warmup_seconds=0.2,
        min_blocks=5,
        block_runs=30,
        block_seconds=0.5,
        min_samples=30,
        half_width=0.03,
        budget_seconds=6.0,
    ),
    "standard": Plan(
        processes=3,
        warmup_runs=5,
        warmup_seconds=0.5,
        min_blocks=5,
        block_runs=30,
        block_seconds=1.0,
        min_samples=150,
        half_width=0.01,
        budget_seconds=60.0,
    ),
    "thorough": Plan(
        processes=5,
        warmup_runs=10,
        warmup_seconds=1.0,
        min_blocks=5,
        block_runs=60,
        block_seconds=2.0,
        min_samples=700,
        half_width=0.005,
        budget_seconds=300.0,
    ),
}
"""Quick for many candidates, standard for a figure that is quoted, thorough also for p99."""


@dataclass(frozen=True)
class MeasureSpec:
    """Measure a model. `timeout_seconds` bounds the whole job on the device."""

    kind: ClassVar[str] = "measure"

    run: ModelRun
    plan: Plan = PRESETS["standard"]
    readiness: Readiness = field(default_factory=Readiness)
    timeout_seconds: float = 600.0
    protocol: str = PROTOCOL


@dataclass(frozen=True)
class VerifySpec:
    """Run a model on real inputs, an .npz with examples along axis 0, and return the outputs."""

    kind: ClassVar[str] = "verify"

    run: ModelRun
    inputs_sha256: str
    inputs_size_bytes: int
    max_output_bytes: int = 64 * MB
    timeout_seconds: float = 600.0
    protocol: str = PROTOCOL


@dataclass(frozen=True)
class ProfileSpec:
    """Time every operator of a model, in a run of its own."""

    kind: ClassVar[str] = "profile"

    run: ModelRun
    runs: int = 50
    timeout_seconds: float = 300.0
    protocol: str = PROTOCOL


@dataclass(frozen=True)
class ProbeSpec:
    """Observe the device and time the reference model on every runtime that works."""

    kind: ClassVar[str] = "probe"

    readiness: Readiness = field(default_factory=Readiness)
    timeout_seconds: float = 300.0
    protocol: str = PROTOCOL


Spec = MeasureSpec | VerifySpec | ProfileSpec | ProbeSpec


def blobs_of(spec: Spec) -> tuple[str, ...]:
    """The hashes of the files that a device needs for this job."""
    if isinstance(spec, ProbeSpec):
        return ()
    if isinstance(spec, VerifySpec):
        return spec.run.model_sha256, spec.inputs_sha256
    return (spec.run.model_sha256,)
