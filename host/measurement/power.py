"""Power as a source of an energy run said it: readings made into power, and its lag.

Sources differ in what they give (joules of a counter, watts), how often, and how late; afterwards
all of them are mean power over stretches of time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from host.errors import GenbaError
from host.measurement.samples import Phase, PhaseKind, PowerSeries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

MAX_LAG_SECONDS = 10.0
MIN_LAG_SECONDS = -1.0  # of a meter on the network the clock is known to a second at worst
MAX_IMPOSSIBLE_SHARE = 0.05
MIN_CORRELATION = 0.5
_COARSE_SECONDS, _FINE_SECONDS = 0.1, 0.01
_MAX_POINTS = 3000
_SPIKE = 3.0  # times what is read around it
_GAP = 5.0  # times the usual interval: no reading holds so long
_FEW_LEVELS = 5
# A step below this share of the power disappears in the mean over a window.
_FINE_SHARE = 0.01
_STANDING_SHARE = 0.2
_MIN_READINGS = 5


class NoFigureError(GenbaError):
    """Why a source gives no figure."""


@dataclass(frozen=True)
class Power:
    """Mean power over stretches: from `starts` to `ends`, in order and without overlap.

    `step_joules` is the smallest step of a counter too coarse for its readings, `step_watts` that
    of a source which knows only a few levels; else 0.
    """

    starts: "FloatArray"
    ends: "FloatArray"
    watts: "FloatArray"
    step_watts: float = 0.0
    step_joules: float = 0.0

    @property
    def interval_seconds(self) -> float:
        import numpy as np

        return float(np.median(self.ends - self.starts))

    def mean_between(self, start: float, end: float) -> tuple[float, float, int]:
        """Mean watts between two moments, the share of that time which readings cover, and the
        number of readings in it.
        """
        import numpy as np

        overlap = np.minimum(self.ends, end) - np.maximum(self.starts, start)
        overlap = np.clip(overlap, 0.0, None)
        covered = float(overlap.sum())
        if covered <= 0:
            return 0.0, 0.0, 0
        middles = (self.starts + self.ends) / 2
        readings = int(((middles >= start) & (middles < end)).sum())
        return float(overlap @ self.watts) / covered, covered / (end - start), readings


def power_of(series: PowerSeries) -> Power:
    """The power that a source says, without what cannot be. Raises NoFigureError."""
    import numpy as np

    if series.broken_because:
        raise NoFigureError(series.broken_because)
    values = series.energy_joules or series.power_watts
    if len(values) != len(series.monotonic_seconds) or len(values) < 3:
        raise NoFigureError(f"it gave {len(values)} readings, too few for a figure")
    times, readings = np.asarray(series.monotonic_seconds), np.asarray(values, dtype=float)
    if not np.isfinite(readings).all() or not np.isfinite(times).all():
        raise NoFigureError("it gave readings that are not numbers")
    order = np.argsort(times, kind="stable")
    times, readings = times[order], readings[order]
    later = np.append(True, np.diff(times) > 0)
    times, readings = times[later], readings[later]
    if len(times) < 3:
        raise NoFigureError("its readings all have the same time")
    return (
        _of_counter(series, times, readings)
        if series.energy_joules
        else _of_watts(series, times, readings)
    )


def _of_counter(series: PowerSeries, times: "FloatArray", joules: "FloatArray") -> Power:
    import numpy as np

    steps = np.diff(joules)
    if (steps < 0).any():
        raise NoFigureError("its counter went backwards; measure again")
    if not steps.any():
        raise NoFigureError("its counter stood still; it does not measure this device")
    mean = float(joules[-1] - joules[0]) / float(times[-1] - times[0])
    if mean > series.max_watts:
        raise NoFigureError(
            f"its counter says {mean:.0f} W on average, more than the {series.max_watts:.0f} W "
            "that are possible: its unit is wrong"
        )
    moving = steps[steps > 0]
    coarse = len(moving) < (1 - _STANDING_SHARE) * len(steps)
    lengths = np.diff(times)
    held = lengths <= _GAP * np.median(lengths)
    return Power(
        times[:-1][held],
        times[1:][held],
        (steps / lengths)[held],
        step_joules=float(moving.min()) if coarse else 0.0,
    )


def _of_watts(series: PowerSeries, times: "FloatArray", watts: "FloatArray") -> Power:
    """Each reading holds for half the way to its neighbours."""
    import numpy as np

    watts = _without_spikes(watts)
    possible = (watts >= 0) & (watts <= series.max_watts)
    if (~possible).mean() > MAX_IMPOSSIBLE_SHARE:
        worst = watts[~possible][np.argmax(np.abs(watts[~possible]))]
        raise NoFigureError(
            f"it says {worst:.4g} W, and 0 to {series.max_watts:.0f} W are possible: check its "
            "settings (the value of the shunt, the unit)"
        )
    times, watts = times[possible], watts[possible]
    middles = (times[1:] + times[:-1]) / 2
    first, last = 2 * times[0] - middles[0], 2 * times[-1] - middles[-1]
    edges = np.concatenate([[first], middles, [last]])
    starts, ends = edges[:-1], edges[1:]
    held = (ends - starts) <= _GAP * np.median(ends - starts)
    levels = np.unique(watts)
    few = 2 <= len(levels) <= _FEW_LEVELS
    seen = float(np.diff(levels).min()) if few else 0.0
    return Power(
        starts[held],
        ends[held],
        watts[held],
        step_watts=max(seen, _coarse_step(series, watts)),
    )


def _coarse_step(series: PowerSeries, watts: "FloatArray") -> float:
    """The meter's own step where it is no longer small beside what it measures."""
    import numpy as np

    step = series.resolution_watts or 0.0
    return step if step > _FINE_SHARE * float(np.median(watts)) else 0.0


def _without_spikes(watts: "FloatArray") -> "FloatArray":
    """Single readings far above both neighbours become the median of the three: power plugs at
    light load say kilowatts now and then. Everything else stays as it was read.
    """
    import numpy as np

    padded = np.concatenate([watts[:1], watts, watts[-1:]])
    around = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    spike = watts > _SPIKE * np.maximum(around, np.median(watts))
    return np.where(spike, around, watts)


def lag_of(power: Power, phases: Sequence[Phase]) -> tuple[float, float]:
    """Seconds by which the source is behind the load, and how well it then follows it: the multiple
    correlation with the shares of time in the step and in busy windows, both of which may only add
    power. Raises NoFigureError where it does not follow.
    """
    import numpy as np

    pattern = _pattern(power, phases)
    follows = pattern.correlation
    coarse = _best(follows, MIN_LAG_SECONDS, MAX_LAG_SECONDS, _COARSE_SECONDS)
    near = _best(follows, coarse - _COARSE_SECONDS, coarse + _COARSE_SECONDS, _FINE_SECONDS)
    best = follows(near)
    # Windows repeat, so a source that falls under load fits them half a period late; but without
    # the step, which does not repeat, so it fits the opposite of the load better.
    upside_down = pattern.upside_down().correlation
    opposite = _best(upside_down, MIN_LAG_SECONDS, MAX_LAG_SECONDS, _COARSE_SECONDS)
    if best < max(MIN_CORRELATION, upside_down(opposite)):
        raise NoFigureError(
            f"its power does not follow the load (correlation {best:.2f}): it is not the supply of "
            f"this device, too coarse for it, or more than {MAX_LAG_SECONDS:.0f} s late"
        )
    below, above = follows(near - _FINE_SECONDS), follows(near + _FINE_SECONDS)
    bend = below - 2 * best + above
    shift = 0.5 * (below - above) / bend * _FINE_SECONDS if bend < 0 else 0.0
    return near + float(np.clip(shift, -_FINE_SECONDS, _FINE_SECONDS)), best


@dataclass(frozen=True)
class _Pattern:
    """What a source read from `start` to `end`, and the loads that then came and went."""

    start: float
    end: float
    starts: "FloatArray"
    ends: "FloatArray"
    watts: "FloatArray"
    loads: "tuple[_Load, ...]"

    def correlation(self, lag: float) -> float:
        """With the loads `lag` seconds before; 0 where too little is known of either."""
        import numpy as np

        starts, ends = self.starts - lag, self.ends - lag
        inside = (starts >= self.start) & (ends <= self.end)
        watts = self.watts[inside]
        if len(watts) < _MIN_READINGS or not np.ptp(watts):
            return 0.0
        shares = [load.share(starts[inside], ends[inside]) for load in self.loads]
        return _correlation([s for s in shares if np.ptp(s)], watts)

    def upside_down(self) -> "_Pattern":
        return replace(self, watts=-self.watts)


@dataclass(frozen=True)
class _Load:
    """Seconds under one kind of load until each edge of it."""

    edges: "FloatArray"
    done: "FloatArray"

    def share(self, starts: "FloatArray", ends: "FloatArray") -> "FloatArray":
        """The share of each stretch that was under load."""
        import numpy as np

        worked = np.interp(ends, self.edges, self.done) - np.interp(starts, self.edges, self.done)
        share: FloatArray = worked / (ends - starts)
        return share


def _correlation(shares: "list[FloatArray]", watts: "FloatArray") -> float:
    """The multiple correlation; a load that would take power away is left out."""
    import numpy as np

    if not shares:
        return 0.0
    x = np.stack(shares) - np.mean(shares, axis=1, keepdims=True)
    y = watts - watts.mean()
    added = np.linalg.lstsq(x.T, y, rcond=None)[0]
    if (added < 0).any():
        return _correlation([s for s, a in zip(shares, added, strict=True) if a >= 0], watts)
    return float(np.sqrt(np.clip((added @ x @ y) / (y @ y), 0.0, 1.0)))


def _pattern(power: Power, phases: Sequence[Phase]) -> _Pattern:
    import numpy as np

    start = phases[0].started_monotonic_seconds
    # The load of a paced window is not known, so the pattern ends before it.
    end = _first(phases, "paced")
    starts, ends, watts = _thinned(power, start, end)
    if not np.ptp(watts):
        raise NoFigureError("its readings never change; it does not measure this device")
    kinds = [[p for p in phases if p.kind == kind] for kind in ("step", "busy")]
    return _Pattern(start, end, starts, ends, watts, tuple(_load(k) for k in kinds if k))


def _first(phases: Sequence[Phase], kind: PhaseKind) -> float:
    """When the first phase of a kind starts, or else the last phase ends."""
    starts = [p.started_monotonic_seconds for p in phases if p.kind == kind]
    return min(starts, default=phases[-1].ended_monotonic_seconds)


def _best(correlation: Callable[[float], float], low: float, high: float, step: float) -> float:
    import numpy as np

    lags = np.arange(low, high + step / 2, step)
    return float(lags[int(np.argmax([correlation(float(lag)) for lag in lags]))])


def _thinned(power: Power, start: float, end: float) -> "tuple[FloatArray, FloatArray, FloatArray]":
    """The stretches in question, neighbours joined where there are more than a lag needs."""
    import numpy as np

    inside = (power.starts >= start + MIN_LAG_SECONDS) & (power.ends <= end + MAX_LAG_SECONDS)
    starts, ends, watts = power.starts[inside], power.ends[inside], power.watts[inside]
    if not len(watts):
        raise NoFigureError("it has no readings in the energy run; measure again")
    length = -(-len(watts) // _MAX_POINTS)
    first = np.arange(0, len(watts), length)
    last = np.minimum(first + length, len(watts)) - 1
    joules = np.add.reduceat(watts * (ends - starts), first)
    seconds = np.add.reduceat(ends - starts, first)
    return starts[first], ends[last], joules / seconds


def _load(phases: Sequence[Phase]) -> _Load:
    import numpy as np

    edges = [t for p in phases for t in (p.started_monotonic_seconds, p.ended_monotonic_seconds)]
    lasted = [p.ended_monotonic_seconds - p.started_monotonic_seconds for p in phases]
    done = np.repeat(np.concatenate([[0.0], np.cumsum(lasted)]), 2)[1:-1]
    return _Load(np.asarray(edges), done)
