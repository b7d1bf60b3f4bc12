"""Whether a device is still as fast as when it was calibrated: CUSUM on log ratios of sentinels.

Sentinels are a few networks that are measured again and again. x[t, s] = log(measured / reference)
of sentinel s in round t. The common part of a round is the median over its sentinels; what is left
of each is its share in a change of shape. On each of these series runs a two-sided CUSUM

    z[t] = clip((x[t] - level) / sigma, -CLIP, CLIP)
    up[t] = max(0, up[t - 1] + z[t] - K),  down[t] = max(0, down[t - 1] - z[t] - K)

that alarms above H. Source: E. S. Page, "Continuous inspection schemes", Biometrika 41, 1954. The
state of the device then began where the sum left 0 last, its level is the median since, and the
sums go on from there, so that a device may change, and change back (the level of a state is known
from few rounds, which widens sigma: D. M. Hawkins, "Self-starting CUSUM charts", The Statistician
36, 1987).

`K` is half the shift, in sigma, that is found best: 6 % at the floor of the noise. Without a shift
a chart alarms once in 29,800 rounds by Siegmund's approximation of the average run length, half of
(exp(2 K b) - 2 K b - 1) / (2 K^2) with b = H + 1.166 for two sides (D. Siegmund, "Sequential
Analysis", 1985), and the four charts of three sentinels once in about 7,500. So generous a `K`
because references are measured too: where one is off by half a sigma for good, its chart alarms
once in 2,100 rounds, by a whole sigma once in 120. `CLIP` lies below H + K: however far off, one
round alone never alarms, two do (the rule of two in a row: J. M. Lucas, R. B. Crosier, "Robust
CUSUM", Commun. Statist. Theory Methods 11, 1982).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cost_models.base import Prediction
from cost_models.nnls import FloatArray

K = 1.5
"""What a round may be off, in sigma, without adding to a sum."""
H = 3.0
"""The sum that alarms, in sigma."""
CLIP = 4.0
"""The most that one round counts, in sigma."""
DOUBTFUL = H / 2
"""A sum above this says that the newest rounds are odd, and not yet that the device changed."""
NOISE_FLOOR = 0.02
"""Least standard deviation of a log ratio between days: repeats of one hour tell too little."""
MIN_SENTINELS = 2
"""Of which a round must tell: one alone cannot say whether all moved alike."""

Verdict = Literal["steady", "shifted", "reshaped", "too little to tell"]

_NORMAL_90 = 1.6449  # two-sided
_NORMAL_95 = 1.96
_MEDIAN_VARIANCE = math.pi / 2  # of the median of many normal values, relative to the mean's


@dataclass(frozen=True)
class SentinelNoise:
    """Standard deviations of the logarithm: of one measurement, and of the reference itself."""

    round: float
    reference: float


@dataclass(frozen=True)
class State:
    """How far a series lies from the reference since round `start`; exactly 0 is the reference.

    `half_width` is that of the 90 % interval of the level, the reference's own noise included.
    """

    start: int
    level: float
    half_width: float


@dataclass(frozen=True)
class Chart:
    """A CUSUM over one series. One entry a round: its value (NaN where it does not count), the
    sums up and down that it reached (above H they alarm and begin anew), and the place in `states`
    of the state that it belongs to.
    """

    values: tuple[float, ...]
    peaks: tuple[tuple[float, float], ...]
    places: tuple[int, ...]
    states: tuple[State, ...]

    @property
    def state(self) -> State:
        """The newest state."""
        return self.states[-1]

    def is_doubtful_at(self, index: int) -> bool:
        """Whether that round was odd without deciding anything."""
        return DOUBTFUL < max(self.peaks[index]) <= H

    def level_at(self, index: int) -> float:
        """The level of the state that a round belongs to; before the first round the reference."""
        return self.states[self.places[index]].level if index >= 0 else 0.0


@dataclass(frozen=True)
class Drift:
    """What rounds of sentinels say of a device.

    `shapes` holds the chart of each sentinel against the common part, `counted` whether a round
    told of enough sentinels.
    """

    common: Chart
    shapes: tuple[Chart, ...]
    counted: tuple[bool, ...]

    @property
    def verdict(self) -> Verdict:
        """The newest state: "reshaped" where sentinels disagree about it beyond their noise."""
        if not any(self.counted) or self.is_doubtful:
            return "too little to tell"
        if self.reshaped:
            return "reshaped"
        return "steady" if self.common.state.level == 0 else "shifted"

    @property
    def is_doubtful(self) -> bool:
        """Whether the newest round is odd, so that another one is needed to know."""
        return bool(self.counted) and self.is_doubtful_at(len(self.counted) - 1)

    def is_doubtful_at(self, index: int) -> bool:
        """Whether that round was odd without deciding anything."""
        return any(chart.is_doubtful_at(index) for chart in (self.common, *self.shapes))

    @property
    def reshaped(self) -> tuple[int, ...]:
        """The sentinels that no longer move with the others."""
        return tuple(i for i, chart in enumerate(self.shapes) if chart.state.level != 0)

    @property
    def since(self) -> int | None:
        """The round with which the newest state began; None while it is that of the reference."""
        charts = [self.shapes[i] for i in self.reshaped] or [self.common]
        starts = [chart.state.start for chart in charts if chart.state.level != 0]
        return max(starts, default=None)


def sentinel_noise(
    repeats: Sequence[FloatArray], half_widths: Sequence[float]
) -> tuple[SentinelNoise, ...]:
    """The noise of each sentinel from the repeats that its reference is the median of.

    A standard deviation from few repeats is poor, so that of all sentinels together is used; where
    the 95 % interval of a sentinel's own measurements says more, that; and NOISE_FLOOR at least.
    `half_widths` are those of the intervals, relative. Raises ValueError where a sentinel has no
    repeat, or seconds are not positive.
    """
    logs = [np.log(np.asarray(values, dtype=np.float64)) for values in repeats]
    if any(len(values) == 0 or not np.isfinite(values).all() for values in logs):
        raise ValueError("every sentinel needs positive, finite measurements for its reference")
    freedom = sum(len(values) - 1 for values in logs)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in logs)
    pooled = math.sqrt(squares / freedom) if freedom else 0.0
    found = []
    for values, half_width in zip(logs, half_widths, strict=True):
        one = max(NOISE_FLOOR, pooled, half_width / _NORMAL_95)
        excess = _MEDIAN_VARIANCE if len(values) > 2 else 1.0
        found.append(SentinelNoise(one, one * math.sqrt(excess / len(values))))
    return tuple(found)


def diagnose(log_ratios: FloatArray, noises: Sequence[SentinelNoise]) -> Drift:
    """Judge rounds (rows, oldest first) of sentinels (columns); NaN where one does not count.

    Noise of the common part is taken as if the sentinels' noise were one and the same: what makes
    a device slow for an hour makes all of them slow. Raises ValueError for shapes that do not fit
    and for noise that is not positive.
    """
    ratios = np.asarray(log_ratios, dtype=np.float64)
    if ratios.ndim != 2 or ratios.shape[1] != len(noises):
        raise ValueError(f"ratios of shape {ratios.shape} are not of {len(noises)} sentinels")
    if np.isinf(ratios).any() or not all(noise.round > 0 for noise in noises):
        raise ValueError("ratios and the noise of sentinels must be positive and finite")
    known = ~np.isnan(ratios)
    counted = known.sum(axis=1) >= MIN_SENTINELS
    common = np.full(len(ratios), np.nan)
    for index in np.flatnonzero(counted):
        common[index] = np.median(ratios[index][known[index]])
    together = SentinelNoise(
        _root_mean_square([noise.round for noise in noises]),
        _root_mean_square([noise.reference for noise in noises]),
    )
    return Drift(
        common=chart(common, together),
        shapes=tuple(
            chart(ratios[:, column] - common, noise) for column, noise in enumerate(noises)
        ),
        counted=tuple(counted.tolist()),
    )


def chart(values: FloatArray, noise: SentinelNoise) -> Chart:
    """Run the CUSUM over one series of log ratios, NaN where a round does not count."""
    series = [float(value) for value in values]
    states = [State(0, 0.0, _NORMAL_90 * noise.reference)]
    sums, began = (0.0, 0.0), (0, 0)
    peaks: list[tuple[float, float]] = []
    places: list[int] = []
    for index, value in enumerate(series):
        places.append(len(states) - 1)
        if math.isnan(value):
            peaks.append(sums)
            continue
        sums = _added(sums, _standardised(series, index, states[-1], noise))
        peaks.append(sums)
        if max(sums) > H:
            start = began[0 if sums[0] > H else 1]
            states.append(_state(series, start, index, noise))
            places[start:] = [len(states) - 1] * (index + 1 - start)
            sums = (0.0, 0.0)
        elif states[-1].level != 0:
            states[-1] = _state(series, states[-1].start, index, noise)
        began = _begun(began, sums, index)
    return Chart(tuple(series), tuple(peaks), tuple(places), tuple(states))


def rescaled(prediction: Prediction, ratio: float, interval: tuple[float, float]) -> Prediction:
    """The prediction for a device that has become slower by that ratio: its interval is as much
    wider as the ratio is unsure.
    """
    low, high = interval
    return replace(
        prediction,
        value=prediction.value * ratio,
        low=prediction.low * low,
        high=prediction.high * high,
    )


def _added(sums: tuple[float, float], z: float) -> tuple[float, float]:
    return max(0.0, sums[0] + z - K), max(0.0, sums[1] - z - K)


def _begun(began: tuple[int, int], sums: tuple[float, float], index: int) -> tuple[int, int]:
    """The first round of each sum that is not 0; a sum that is 0 begins with the next round."""
    up, down = (
        index + 1 if total == 0 else first for first, total in zip(began, sums, strict=True)
    )
    return up, down


def _standardised(series: Sequence[float], index: int, state: State, noise: SentinelNoise) -> float:
    """How far a round lies from the level, in sigma; the level itself is not known exactly."""
    if state.level == 0:
        sigma = math.hypot(noise.round, noise.reference)
    else:
        count = len(_known(series[state.start : index]))
        sigma = noise.round * math.sqrt(1 + _MEDIAN_VARIANCE / count)
    return min(CLIP, max(-CLIP, (series[index] - state.level) / sigma))


def _state(series: Sequence[float], start: int, last: int, noise: SentinelNoise) -> State:
    """The state of rounds `start` to `last`; one whose interval holds 0 is the reference's."""
    known = _known(series[start : last + 1])
    level = float(np.median(known))
    sampling = noise.round * math.sqrt(_MEDIAN_VARIANCE / len(known))
    half_width = _NORMAL_90 * math.hypot(sampling, noise.reference)
    return State(start, level if abs(level) > half_width else 0.0, half_width)


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values)) if values else math.inf
