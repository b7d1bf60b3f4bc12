"""What a device reports of a measurement, as it was read there. Absent is None."""

from dataclasses import dataclass
from typing import Literal

NumberKind = Literal["measured", "derived", "estimated"]
Scope = Literal["package", "board", "wall"]
PhaseKind = Literal["idle", "step", "busy", "paced"]


@dataclass(frozen=True)
class Preflight:
    """The device just before it is measured. `problems` were found and not refused, each as
    "code: sentence"; CPU shares are of all cores.
    """

    foreign_cpu: float
    swapped_in_pages: int | None
    free_ram_bytes: int
    temperature_celsius: float | None
    throttled: tuple[str, ...]
    canary_seconds: float
    waited_seconds: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thermal:
    """Temperature and throttling over a job; `throttle_events` are those that it saw happen."""

    start_celsius: float | None = None
    end_celsius: float | None = None
    max_celsius: float | None = None
    throttle_events: int | None = None
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
    uss_bytes: int | None = None
    pss_bytes: int | None = None
    base_uss_bytes: int | None = None


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
    run_delay_seconds: tuple[float, ...] | None = None
    involuntary_switches: int | None = None
    steal_seconds: float | None = None


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


@dataclass(frozen=True)
class Phase:
    """A stretch of an energy run, on CLOCK_MONOTONIC of the device."""

    kind: PhaseKind
    started_monotonic_seconds: float
    ended_monotonic_seconds: float
    inferences: int


@dataclass(frozen=True)
class PowerSeries:
    """What one source said during an energy run: either joules of a counter or watts.

    `resolution_watts` is the step in which it counts power, where that is known beforehand.
    """

    source: str
    scope: Scope
    kind: NumberKind
    max_watts: float
    monotonic_seconds: tuple[float, ...]
    energy_joules: tuple[float, ...] = ()
    power_watts: tuple[float, ...] = ()
    broken_because: str = ""
    resolution_watts: float | None = None


@dataclass(frozen=True)
class EnergyRun:
    """A worker of its own in phases, and what the sensors said meanwhile.

    Series of meters on the network are on the device's clock too, shifted by the host.
    """

    phases: tuple[Phase, ...]
    series: tuple[PowerSeries, ...]
    temperature_start_celsius: float | None
    temperature_end_celsius: float | None
    cpu_utilisation: float


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
