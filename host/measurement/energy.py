"""Energy per inference from the phases of an energy run and what a source said meanwhile.

For each source: readings become power; the lag of the source is where its power best follows the
load that the phases put on the device (cross-correlation, parabola through the best three, so finer
than a reading); each busy window is then compared with the idle windows beside it,
gross = ∫P dt / N and net = ∫(P − P_idle) dt / N for N inferences counted by the worker, with
intervals by the block bootstrap over windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from host.measurement.power import NoFigureError, Power, lag_of, power_of
from host.measurement.resampling import interval_around, mean_draws
from host.measurement.samples import EnergyRun, NumberKind, Phase, PhaseKind, PowerSeries, Scope

MIN_READINGS = 30  # in a window, of a source that gives watts
MIN_COUNTER_READINGS = 5  # a counter misses nothing between two readings
MIN_WINDOWS = 5
MAX_IDLE_DRIFT = 0.05
MAX_WARMING_CELSIUS = 5.0
CLEAR_CORRELATION = 0.8
WINDOW_PER_LAG = 20.0
USABLE_FROM_WATTS = {"tasmota": 6.0}
"""Power below which sources of that name read too little or nothing (Tasmota #749)."""

_MIN_COVERED = 0.95
_MAX_GUARD = 0.1  # of a window, left out at each end, where readings mix two phases
_MAX_ZEROS = 0.2
_KINDS: tuple[NumberKind, ...] = ("measured", "derived", "estimated")


@dataclass(frozen=True)
class Energy:
    """Energy of one inference, gross and with the idle power taken off, each with its 95 %
    interval over the windows. `power_watts` is the mean while busy; the paced figures are of the
    windows at a fixed rate.
    """

    source: str
    scope: Scope
    kind: NumberKind
    gross_joules: float
    gross_interval_joules: tuple[float, float]
    net_joules: float
    net_interval_joules: tuple[float, float]
    power_watts: float
    idle_watts: float
    windows: int
    inferences: int
    readings: int
    reading_hertz: float
    lag_seconds: float
    paced_hertz: float | None = None
    paced_gross_joules: float | None = None
    paced_power_watts: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Window:
    """A busy or paced window and the idle power beside it."""

    seconds: float
    inferences: int
    watts: float
    idle_watts: float
    idle_change: float | None
    readings: int

    @property
    def gross_joules(self) -> float:
        return self.watts * self.seconds / self.inferences

    @property
    def net_joules(self) -> float:
        return (self.watts - self.idle_watts) * self.seconds / self.inferences


def energies_of(run: EnergyRun) -> tuple[tuple[Energy, ...], str]:
    """One figure for each source that gives one, the one to quote first (measured before derived
    before estimated, board and wall before package, then the narrower interval); else none and
    why. What the other sources lack stands in the first figure's warnings.
    """
    if not any(phase.kind == "busy" and phase.inferences for phase in run.phases):
        return (), "no inference was counted in the energy run; measure again"
    if not run.series:
        return (), "nothing measured the power of this device; bind a meter or wire a sensor"
    figures: list[Energy] = []
    failures: list[str] = []
    for series in run.series:
        try:
            figures.append(_energy_of(run, series))
        except NoFigureError as error:
            failures.append(f"{series.source}: {error}")
    if not figures:
        return (), "; ".join(failures)
    best, *others = sorted(figures, key=_rank)
    missing = tuple(f"no figure of {failure}" for failure in failures)
    return (replace(best, warnings=best.warnings + missing), *others), ""


def _rank(energy: Energy) -> tuple[int, bool, float]:
    low, high = energy.gross_interval_joules
    return _KINDS.index(energy.kind), energy.scope == "package", (high - low) / energy.gross_joules


def _energy_of(run: EnergyRun, series: PowerSeries) -> Energy:
    power = power_of(series)
    lag, correlation = lag_of(power, run.phases)
    busy = _windows(power, run.phases, lag, "busy")
    if not busy:
        raise NoFigureError("its readings do not cover a single busy window; measure again")
    watts = _watts(busy)
    _refuse_unusable(series, power, watts)
    gross, gross_interval, net, net_interval = _joules(power, busy)
    if net_interval[1] < 0:
        raise NoFigureError(
            f"it reads {watts:.2f} W while the model runs and more when idle, so it does not "
            "measure this device"
        )
    warnings = (
        *_lag_warnings(lag, correlation, busy),
        *_reading_warnings(series, power, busy),
        *_steadiness_warnings(run, busy),
        *(["the net energy cannot be told from zero"] if net_interval[0] <= 0 else []),
    )
    energy = Energy(
        source=series.source,
        scope=series.scope,
        kind=series.kind,
        gross_joules=gross,
        gross_interval_joules=gross_interval,
        net_joules=net,
        net_interval_joules=net_interval,
        power_watts=watts,
        idle_watts=_mean([w.idle_watts for w in busy], [w.seconds for w in busy]),
        windows=len(busy),
        inferences=sum(w.inferences for w in busy),
        readings=sum(w.readings for w in busy),
        reading_hertz=1 / power.interval_seconds,
        lag_seconds=lag,
        warnings=warnings,
    )
    paced = _windows(power, run.phases, lag, "paced")
    if not paced:
        return energy
    return replace(
        energy,
        paced_hertz=sum(w.inferences for w in paced) / sum(w.seconds for w in paced),
        paced_gross_joules=_mean([w.gross_joules for w in paced], [w.inferences for w in paced]),
        paced_power_watts=_watts(paced),
    )


def _windows(
    power: Power, phases: Sequence[Phase], lag: float, kind: PhaseKind
) -> tuple[_Window, ...]:
    """The windows of a kind that readings cover, with an idle window before or after."""
    means = [_mean_of(power, phase, lag) for phase in phases]
    found: list[_Window] = []
    for number, (phase, mean) in enumerate(zip(phases, means, strict=True)):
        if phase.kind != kind or not phase.inferences or mean is None:
            continue
        before = _nearest_idle(phases[:number][::-1], means[:number][::-1])
        after = _nearest_idle(phases[number + 1 :], means[number + 1 :])
        beside = [watts for watts in (before, after) if watts is not None]
        if not beside:
            continue
        idle = sum(beside) / len(beside)
        watts, readings = mean
        found.append(
            _Window(
                seconds=_seconds(phase),
                inferences=phase.inferences,
                watts=watts,
                idle_watts=idle,
                idle_change=(beside[1] - beside[0]) / idle if len(beside) == 2 and idle else None,
                readings=readings,
            )
        )
    return tuple(found)


def _nearest_idle(
    phases: Sequence[Phase], means: Sequence[tuple[float, int] | None]
) -> float | None:
    """The power of the first idle phase; None where readings do not cover it."""
    for phase, mean in zip(phases, means, strict=True):
        if phase.kind == "idle":
            return mean[0] if mean is not None else None
    return None


def _mean_of(power: Power, phase: Phase, lag: float) -> tuple[float, int] | None:
    """Mean watts of a phase and its readings; None where they cover too little of it. Readings at
    its edges belong to two phases and are left out.
    """
    guard = min(power.interval_seconds, _MAX_GUARD * _seconds(phase))
    start = phase.started_monotonic_seconds + lag + guard
    end = phase.ended_monotonic_seconds + lag - guard
    watts, covered, readings = power.mean_between(start, end)
    return (watts, readings) if covered >= _MIN_COVERED else None


def _joules(
    power: Power, busy: Sequence[_Window]
) -> tuple[float, tuple[float, float], float, tuple[float, float]]:
    """Gross and net joules per inference with their intervals; half a step of the source belongs
    to each of the powers that they come from.
    """
    weights = [float(w.inferences) for w in busy]
    window_seconds = sum(w.seconds for w in busy) / len(busy)
    inference_seconds = sum(w.seconds for w in busy) / sum(weights)
    step = max(power.step_watts, power.step_joules / window_seconds)
    half = step * inference_seconds / 2
    gross, gross_interval = _figure([w.gross_joules for w in busy], weights, half)
    net, net_interval = _figure([w.net_joules for w in busy], weights, 2 * half)
    return gross, (max(gross_interval[0], 0.0), gross_interval[1]), net, net_interval


def _figure(
    values: Sequence[float], weights: Sequence[float], margin: float
) -> tuple[float, tuple[float, float]]:
    import numpy as np

    figure = _mean(values, weights)
    low, high = interval_around(figure, mean_draws(np.asarray(values), np.asarray(weights)))
    return figure, (low - margin, high + margin)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _watts(windows: Sequence[_Window]) -> float:
    return _mean([w.watts for w in windows], [w.seconds for w in windows])


def _seconds(phase: Phase) -> float:
    return phase.ended_monotonic_seconds - phase.started_monotonic_seconds


def _refuse_unusable(series: PowerSeries, power: Power, watts: float) -> None:
    """Raises NoFigureError where the power while busy cannot be, or the source cannot read it."""
    if watts > series.max_watts:
        raise NoFigureError(
            f"it says {watts:.4g} W while the model runs, more than the {series.max_watts:.0f} W "
            "that are possible: its unit or the value of its shunt is wrong"
        )
    zeros = float((power.watts == 0).mean())
    if watts <= 0 or (series.power_watts and zeros > _MAX_ZEROS):
        raise NoFigureError(
            f"{zeros:.0%} of its readings are 0 W: the device needs less than it can read; use a "
            "meter for smaller power"
        )
    family = next((name for name in USABLE_FROM_WATTS if series.source.startswith(name)), None)
    if family is not None and watts < USABLE_FROM_WATTS[family]:
        raise NoFigureError(
            f"it says {watts:.1f} W, and {family} plugs are of no use below "
            f"{USABLE_FROM_WATTS[family]:.0f} W; use a meter for smaller power"
        )


def _lag_warnings(lag: float, correlation: float, busy: Sequence[_Window]) -> list[str]:
    warnings: list[str] = []
    if correlation < CLEAR_CORRELATION:
        warnings.append(f"its power follows the load loosely (correlation {correlation:.2f})")
    shortest = min(w.seconds for w in busy)
    if shortest < WINDOW_PER_LAG * lag:
        warnings.append(
            f"windows of {shortest:.0f} s are short for a source that is {lag:.1f} s late "
            f"({WINDOW_PER_LAG * lag:.0f} s are wanted)"
        )
    return warnings


def _reading_warnings(series: PowerSeries, power: Power, busy: Sequence[_Window]) -> list[str]:
    warnings: list[str] = []
    wanted = MIN_COUNTER_READINGS if series.energy_joules else MIN_READINGS
    fewest = min(w.readings for w in busy)
    if fewest < wanted:
        warnings.append(f"a window has only {fewest} readings, {wanted} are wanted")
    if len(busy) < MIN_WINDOWS:
        warnings.append(f"{len(busy)} windows are few for an interval, {MIN_WINDOWS} are wanted")
    if power.step_watts:
        warnings.append(f"it reads in steps of {power.step_watts:g} W")
    if power.step_joules:
        warnings.append(f"its counter moves in steps of {power.step_joules:g} J")
    return warnings


def _steadiness_warnings(run: EnergyRun, busy: Sequence[_Window]) -> list[str]:
    warnings: list[str] = []
    changes = [w.idle_change for w in busy if w.idle_change is not None]
    worst = max(changes, key=abs, default=0.0)
    if abs(worst) > MAX_IDLE_DRIFT:
        warnings.append(
            f"the idle power changed by {worst:+.0%} over a window (limit {MAX_IDLE_DRIFT:.0%}): "
            "the net energy is uncertain"
        )
    start, end = run.temperature_start_celsius, run.temperature_end_celsius
    if start is not None and end is not None and end - start > MAX_WARMING_CELSIUS:
        warnings.append(
            f"the CPU warmed by {end - start:.0f} °C (limit {MAX_WARMING_CELSIUS:.0f} °C), which "
            "raises its power"
        )
    return warnings
