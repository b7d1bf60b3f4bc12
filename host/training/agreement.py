"""How well scores of untrained networks ranked what they were worth once trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
_LEAST_FOR_AN_INTERVAL = 5
_TAILS = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's tau-b over n candidates, with its 95 % interval; None with fewer than 5."""

    n: int
    kendall: float
    low: float | None
    high: float | None


def rank_agreement(
    scores: Sequence[float], qualities: Sequence[float], *, seed: int = 0
) -> Agreement | None:
    """Between two figures of the same candidates; higher is better in both.

    Tau-b (Kendall 1945, Biometrika 33:239) counts ties. The interval is that of percentiles when
    candidates are drawn anew with replacement (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, sec. 13.3). None for fewer than two candidates, and where all are equal in one
    of the figures: there is no order to agree with. Raises ValueError for sequences of different
    lengths and for numbers that are not finite.
    """
    first, second = np.asarray(scores, np.float64), np.asarray(qualities, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"{len(scores)} scores do not fit {len(qualities)} qualities")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("an order needs numbers that are finite")
    n = len(first)
    left, right = _orders(first), _orders(second)
    kendall = float(_tau(left, right, np.ones((1, n)))[0])
    if np.isnan(kendall):
        return None
    if n < _LEAST_FOR_AN_INTERVAL:
        return Agreement(n, kendall, None, None)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    drawn = _tau(left, right, counts)
    low, high = np.quantile(drawn[~np.isnan(drawn)], _TAILS)
    return Agreement(n, kendall, min(kendall, float(low)), max(kendall, float(high)))


def _orders(values: Floats) -> Floats:
    """(n, n): 1 where the first of a pair is above the second, -1 where below, 0 where equal."""
    return np.sign(values[:, None] - values[None, :])


def _tau(left: Floats, right: Floats, counts: Floats) -> Floats:
    """Tau-b of samples in which candidate i occurs counts[r, i] times; nan without an order."""
    agreeing, ordered_left, ordered_right = (
        ((counts @ pairs) * counts).sum(axis=1) for pairs in (left * right, left**2, right**2)
    )
    scale = np.sqrt(ordered_left * ordered_right)
    tau: Floats = np.full(len(counts), np.nan)
    np.divide(agreeing, scale, out=tau, where=scale > 0)
    return tau
