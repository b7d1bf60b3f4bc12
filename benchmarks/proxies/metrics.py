"""How well merits order cells by accuracy.

Merits are scores turned so that higher is better; nan is the worst of all, and all nan are equal.
Where a figure does not exist, because one side is constant or too few cells are left, it is None.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, rankdata, spearmanr

from cost_models.nnls import FloatArray

Indices = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]
Correlation = Callable[[FloatArray, FloatArray], float | None]

_FEWEST = 10

NDCG_FIRST = 1000
"""The first so many places count in nDCG."""


def oriented(scores: Sequence[float] | FloatArray, *, higher_is_better: bool) -> FloatArray:
    """Merits of scores."""
    values = np.asarray(scores, dtype=np.float64)
    return values if higher_is_better else -values


def ranks(merits: FloatArray) -> FloatArray:
    """1 for the worst, N for the best of N; equal ones share the mean of their ranks."""
    found: FloatArray = rankdata(np.where(np.isnan(merits), -np.inf, merits))
    return found


def kendall(merits: FloatArray, accuracy: FloatArray) -> float | None:
    """Kendall's tau-b."""
    return _number(kendalltau, ranks(merits), ranks(accuracy))


def spearman(merits: FloatArray, accuracy: FloatArray) -> float | None:
    """Spearman's rho."""
    return _number(spearmanr, ranks(merits), ranks(accuracy))


def within_top(
    correlation: Correlation, merits: FloatArray, accuracy: FloatArray, share: float
) -> float | None:
    """A correlation among the cells whose accuracy reaches the (1 - share) quantile.

    None for fewer than ten of them: chance alone would make it large.
    """
    top = accuracy >= np.quantile(accuracy, 1.0 - share)
    return correlation(merits[top], accuracy[top]) if top.sum() >= _FEWEST else None


def partial_spearman(merits: FloatArray, accuracy: FloatArray, given: FloatArray) -> float | None:
    """Spearman's rho of merits and accuracy that a third quantity does not explain.

    The partial correlation of the ranks: (r_ma - r_mg r_ag) / sqrt((1 - r_mg^2)(1 - r_ag^2)).
    None also where the third quantity orders the cells as one of the two does.
    """
    between, own, other = (
        spearman(merits, accuracy),
        spearman(merits, given),
        spearman(accuracy, given),
    )
    if between is None or own is None or other is None:
        return None
    free = (1.0 - own**2) * (1.0 - other**2)
    return None if free < 1e-9 else (between - own * other) / math.sqrt(free)


def ndcg(merits: FloatArray, accuracy: FloatArray, names: Names) -> float | None:
    """Normalised discounted cumulative gain of the first places, accuracy in percent.

    The gain of a cell is 2^accuracy - 1, the discount of place i is log2(1 + i), and the first
    1000 places count: a point of accuracy doubles the gain, so that the very best cells decide.
    Equal merits are ordered by name. Proxies are judged by it since VKDNW (CVPR 2025).
    """
    if not len(merits):
        return None
    # Divided by 2^max, which the ratio does not show and a float could not hold.
    gains = np.exp2(accuracy - accuracy.max()) - np.exp2(-accuracy.max())
    first = min(NDCG_FIRST, len(merits))
    discounts = np.log2(np.arange(2, first + 2))
    ideal = float((np.sort(gains)[::-1][:first] / discounts).sum())
    found = float((gains[best_first(merits, names)[:first]] / discounts).sum())
    return found / ideal if ideal > 0.0 else None


def best_first(merits: FloatArray, names: Names) -> Indices:
    """Positions by falling merit; of equal merits, and among nan, by name."""
    found: Indices = np.lexsort((names, -ranks(merits)))
    return found


def best_of_picks(
    merits: FloatArray, accuracy: FloatArray, graphs: Names, counts: Sequence[int]
) -> list[float]:
    """The best accuracy among the first picks, for each number of picks.

    A pick is a distinct graph, its accuracy the mean over its cells: their merits are equal, and
    taking the best of them would count luck of the training.
    """
    names, first, group = np.unique(graphs, return_index=True, return_inverse=True)
    means = np.bincount(group, weights=accuracy) / np.bincount(group)
    picks = means[best_first(merits[first], names)]
    return [float(picks[:count].max()) for count in counts]


def rank_mean(runs: Sequence[FloatArray]) -> FloatArray:
    """Merits of several initialisations or batches as one: the mean of their ranks.

    Those of a single run are left as they are; nan stays where every run has it.
    """
    if len(runs) == 1:
        return runs[0]
    mean: FloatArray = np.mean([ranks(run) for run in runs], axis=0)
    return np.where(np.all([np.isnan(run) for run in runs], axis=0), np.nan, mean)


def _number(
    statistic: Callable[[FloatArray, FloatArray], tuple[float, float]],
    left: FloatArray,
    right: FloatArray,
) -> float | None:
    if len(left) < 2 or np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return None
    return float(statistic(left, right)[0])
