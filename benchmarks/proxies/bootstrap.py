"""How sure a correlation is: cells that are the same graph are drawn together.

Isomorphic cells have one score and nearly one accuracy; drawing them one by one would count the
same evidence several times and make the intervals too narrow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks.proxies.metrics import Names, ranks
from cost_models.nnls import FloatArray

Counts = npt.NDArray[np.int64]
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """What 95 % of the resamples lie in."""

    low: float
    high: float


def draws(graphs: Names, resamples: int, seed: int) -> Iterator[Counts]:
    """For each resample how often each cell is in it: as often as its graph was drawn."""
    names, group = np.unique(graphs, return_inverse=True)
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = generator.integers(len(names), size=len(names))
        yield np.bincount(drawn, minlength=len(names))[group]


class RepeatedRanks:
    """Ranks of values in a sample that holds each of them several times or not at all."""

    def __init__(self, values: FloatArray) -> None:
        """`values` are finite."""
        levels, self._level = np.unique(values, return_inverse=True)
        self._levels = len(levels)

    def __call__(self, counts: Counts) -> FloatArray:
        """The rank of each value among `counts` copies of all; equal ones share their mean."""
        copies = np.bincount(self._level, weights=counts, minlength=self._levels)
        middles = np.cumsum(copies) - (copies - 1.0) / 2.0
        found: FloatArray = middles[self._level]
        return found


def repeated_correlation(left: FloatArray, right: FloatArray, counts: Counts) -> float:
    """Pearson's correlation of a sample that holds each pair `counts` times; nan where none is."""
    total = counts.sum()
    left, right = left - (counts @ left) / total, right - (counts @ right) / total
    spread = np.sqrt((counts @ left**2) * (counts @ right**2))
    return float((counts * left) @ right / spread) if spread > 0.0 else float("nan")


@dataclass(frozen=True)
class Intervals:
    """Those of both rank correlations; None where most resamples have none."""

    kendall: Interval | None
    spearman: Interval | None


def intervals(
    merits: dict[str, FloatArray],
    accuracy: FloatArray,
    graphs: Names,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Intervals]:
    """Percentile bootstrap over distinct graphs, the same resamples for all merits."""
    of_accuracy = RepeatedRanks(accuracy)
    ranked = {name: ranks(values) for name, values in merits.items()}
    repeated = {name: RepeatedRanks(values) for name, values in ranked.items()}
    taus: dict[str, list[float]] = {name: [] for name in merits}
    rhos: dict[str, list[float]] = {name: [] for name in merits}
    for counts in draws(graphs, resamples, seed):
        places = np.repeat(np.arange(len(counts)), counts)
        drawn, drawn_ranks = accuracy[places], of_accuracy(counts)
        for name, values in ranked.items():
            rhos[name].append(repeated_correlation(repeated[name](counts), drawn_ranks, counts))
            taus[name].append(_tau(values[places], drawn))
    return {name: Intervals(_interval(taus[name]), _interval(rhos[name])) for name in merits}


def _tau(left: FloatArray, right: FloatArray) -> float:
    if np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return float("nan")
    return float(kendalltau(left, right)[0])


def _interval(found: list[float]) -> Interval | None:
    finite = np.array(found)[np.isfinite(found)]
    if 2 * len(finite) <= len(found):
        return None
    low, high = np.quantile(finite, _TAILS)
    return Interval(float(low), float(high))
