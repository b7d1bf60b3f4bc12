"""Combines the scores of several proxies by their ranks, never by their values."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from host.proxies.base import Proxy


def log_rank(
    scores: Mapping[str, Sequence[float]], higher_is_better: Mapping[str, bool]
) -> npt.NDArray[np.float64]:
    """One combined score a candidate: the sum over proxies of log(rank / N); higher is better.

    `scores` holds one sequence a proxy, all over the same N candidates in the same order. The best
    of N has rank N, ties share the mean of their ranks, nan ranks below everything. Ranks depend on
    the population: results of two calls are not comparable.
    Source: the non-linear aggregation of AZ-NAS, Lee and Ham 2024 (arXiv:2403.19232).

    Raises ValueError without a proxy, for sequences of different lengths, and for a proxy without
    a direction.
    """
    lengths = {len(values) for values in scores.values()}
    if len(lengths) != 1:
        raise ValueError(f"log_rank needs sequences of one length, got {sorted(lengths)}")
    undirected = sorted(set(scores) - set(higher_is_better))
    if undirected:
        raise ValueError(f"log_rank needs a direction for {', '.join(undirected)}")
    count = lengths.pop()
    total = np.zeros(count)
    for name, values in scores.items():
        total += np.log(_ranks(values, higher_is_better=higher_is_better[name]) / count)
    return total


def directions(proxies: Sequence[Proxy]) -> dict[str, bool]:
    """The direction of each proxy by its name, as log_rank wants it."""
    return {proxy.name: proxy.higher_is_better for proxy in proxies}


def _ranks(values: Sequence[float], *, higher_is_better: bool) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    ascending = array if higher_is_better else -array
    ranks: npt.NDArray[np.float64] = rankdata(np.where(np.isnan(array), -np.inf, ascending))
    return ranks
