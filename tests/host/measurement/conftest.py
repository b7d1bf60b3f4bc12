"""Made-up measurements whose truth is known."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import pytest

from host.measurement import (
    PRESETS,
    PROTOCOL,
    Block,
    Energy,
    EnergyRun,
    Measurement,
    Memory,
    ModelRun,
    Phase,
    PowerSeries,
    Preflight,
    ProcessRun,
    Thermal,
    Verdict,
)

START = 1000.0
SECONDS = 0.007


def process(
    rng: np.random.Generator,
    *,
    seconds: float = SECONDS,
    noise: float = 0.01,
    blocks: int = 5,
    samples: int = 30,
    delayed: float = 0.0,
    delay: float = 0.008,
    reference: Sequence[float] = (0.0015,),
    cpu: bool = True,
    run_delay: bool = True,
    runs_per_sample: int = 1,
    switches: int | None = None,
    steal: float | None = None,
    steady: bool = True,
    canary: float = 0.005,
) -> ProcessRun:
    """A worker whose model takes `seconds` of CPU; a share `delayed` of the samples waits besides.
    `reference` holds seconds for one block after the other, the last for the rest.
    """
    made = []
    for number in range(blocks + 1):
        n = samples if number < blocks else 0
        r = reference[min(number, len(reference) - 1)]
        own = seconds * (1 + noise * np.abs(rng.normal(size=n)))
        waits = np.where(rng.random(n) < delayed, delay, 0.0)
        made.append(
            Block(
                started_monotonic_seconds=START + number,
                lasted_seconds=float((own + waits).sum()) + 0.01,
                canary_seconds=canary,
                reference_seconds=(r,) * 5,
                reference_cpu_seconds=(r,) * 5,
                latency_seconds=tuple((own + waits).tolist()),
                cpu_seconds=tuple(own.tolist()) if cpu else (),
                run_delay_seconds=tuple((waits * runs_per_sample).tolist()) if run_delay else None,
                involuntary_switches=switches,
                steal_seconds=steal,
            )
        )
    memory = Memory(50_000_000, 60_000_000, 70_000_000)
    return ProcessRun(memory, 0.1, 0.02, 20, steady, runs_per_sample, 5e-6, tuple(made))


def measurement(processes: Sequence[ProcessRun], **changes: object) -> Measurement:
    values: dict[str, object] = {
        "device_id": "dev-1",
        "run": ModelRun("a" * 64, 1000),
        "plan": PRESETS["standard"],
        "protocol": PROTOCOL,
        "runtime_library": "onnxruntime",
        "runtime_version": "1.23.2",
        "runtime_options": (),
        "cpus": (1,),
        "preflight": Preflight(0.01, 0, 2_000_000_000, 45.0, (), 0.005, 0.0),
        "processes": tuple(processes),
        "thermal": Thermal(45.0, 50.0, 51.0, 0),
        "governor": "performance",
        "load_average_start": 0.1,
        "energy_run": None,
        "energies": (),
        "energy_absent_because": "not asked for",
        "verdict": Verdict("OK"),
        "measured_at": datetime(2026, 11, 24, tzinfo=UTC),
    }
    return Measurement(**{**values, **changes})  # type: ignore[arg-type]


def phases(*, windows: int = 5, seconds: float = 10.0, paced: float | None = None) -> list[Phase]:
    """Idle 3 s, step 5 s, idle 3 s, then idle and busy windows in turn; 100 inferences a second."""
    plan = [("idle", 3.0, 0), ("step", 5.0, 0), ("idle", 3.0, 0), ("idle", seconds, 0)]
    for _ in range(windows):
        plan += [("busy", seconds, round(100 * seconds)), ("idle", seconds, 0)]
    if paced is not None:
        plan += [("paced", seconds, round(paced * seconds)), ("idle", seconds, 0)]
    made, now = [], START
    for kind, lasts, inferences in plan:
        made.append(Phase(kind, now, now + lasts, inferences))  # type: ignore[arg-type]
        now += lasts
    return made


def watts_at(
    times: np.ndarray, run: Sequence[Phase], idle: float, busy: float, paced: float
) -> np.ndarray:
    """The true power at some moments."""
    power = np.full(len(times), idle)
    for phase in run:
        inside = (times >= phase.started_monotonic_seconds) & (
            times < phase.ended_monotonic_seconds
        )
        level = {"idle": idle, "step": busy * 1.1, "busy": busy, "paced": paced}[phase.kind]
        power[inside] = level
    return power


def energy_run(
    series: Sequence[PowerSeries], made: Sequence[Phase], *, start: float = 45.0, end: float = 47.0
) -> EnergyRun:
    return EnergyRun(tuple(made), tuple(series), start, end, 0.25)


def series(
    made: Sequence[Phase],
    *,
    hertz: float = 10.0,
    idle: float = 2.0,
    busy: float = 5.0,
    paced: float = 2.5,
    lag: float = 0.0,
    counter: bool = False,
    noise: float = 0.0,
    source: str = "ina226",
    scope: str = "board",
    kind: str = "measured",
    max_watts: float = 100.0,
    rng: np.random.Generator | None = None,
) -> PowerSeries:
    """What a source says of a device that takes `idle` and `busy` watts, `lag` seconds late."""
    times = np.arange(START - 1.0, made[-1].ended_monotonic_seconds + 12.0, 1 / hertz)
    if counter:
        fine = np.arange(START - 20.0, times[-1] + 1.0, 0.001)
        joules = np.concatenate([[0.0], np.cumsum(watts_at(fine, made, idle, busy, paced))[:-1]])
        values = np.interp(times - lag, fine, joules * 0.001)
    else:
        values = watts_at(times - lag, made, idle, busy, paced)
        if rng is not None:
            values = values + noise * rng.normal(size=len(values))
    kept = tuple(values.tolist())
    return PowerSeries(
        source,
        scope,  # type: ignore[arg-type]
        kind,  # type: ignore[arg-type]
        max_watts,
        tuple(times.tolist()),
        energy_joules=kept if counter else (),
        power_watts=() if counter else kept,
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def make_process() -> Callable[..., ProcessRun]:
    return process


@pytest.fixture
def make_measurement() -> Callable[..., Measurement]:
    return measurement


@pytest.fixture
def make_phases() -> Callable[..., list[Phase]]:
    return phases


@pytest.fixture
def make_series() -> Callable[..., PowerSeries]:
    return series


@pytest.fixture
def make_energy_run() -> Callable[..., EnergyRun]:
    return energy_run


@pytest.fixture
def make_energy() -> Callable[..., Energy]:
    def energy(idle: float = 2.0, busy: float = 5.0, **changes: object) -> Energy:
        values: dict[str, object] = {
            "source": "ina226",
            "scope": "board",
            "kind": "measured",
            "gross_joules": busy / 100,
            "gross_interval_joules": (busy / 101, busy / 99),
            "net_joules": (busy - idle) / 100,
            "net_interval_joules": ((busy - idle) / 101, (busy - idle) / 99),
            "power_watts": busy,
            "idle_watts": idle,
            "windows": 5,
            "inferences": 5000,
            "readings": 500,
            "reading_hertz": 10.0,
            "lag_seconds": 0.0,
        }
        return Energy(**{**values, **changes})  # type: ignore[arg-type]

    return energy
