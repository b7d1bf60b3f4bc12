"""Figures of every proxy and ensemble on one column of accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.proxies.bootstrap import Interval, intervals
from benchmarks.proxies.metrics import (
    best_of_picks,
    kendall,
    ndcg,
    oriented,
    rank_mean,
    spearman,
    within_top,
)
from benchmarks.proxies.population import Population
from cost_models.nnls import FloatArray
from host.proxies.base import Proxy
from host.proxies.ensembles import ENSEMBLES, RECOMMENDED, Ensemble, combine

TOPS = (0.05, 0.20)
PICKS = (1, 10, 50)


@dataclass(frozen=True)
class Figures:
    """How one proxy or ensemble orders the cells of one column; None where a figure is undefined.

    `kendall_top` and `best_of` follow TOPS and PICKS; accuracies are in percent.
    """

    column: str
    name: str
    is_ensemble: bool
    kendall: float | None
    kendall_interval: Interval | None
    spearman: float | None
    spearman_interval: Interval | None
    kendall_top: tuple[float | None, ...]
    best_of: tuple[float, ...]
    ndcg: float | None
    unscored: int
    """Live cells without a score."""


def ensembles_of(proxies: Sequence[Proxy]) -> list[Ensemble]:
    """The ensembles all of whose members are among the proxies, ours the last."""
    names = {proxy.name for proxy in proxies}
    others = [one for one in ENSEMBLES.values() if one.name != RECOMMENDED.name]
    return [one for one in (*others, RECOMMENDED) if set(one.members) <= names]


def averaged(
    runs: Mapping[str, Sequence[FloatArray]], proxies: Sequence[Proxy]
) -> dict[str, FloatArray]:
    """One array of scores a proxy: of several runs the mean rank, turned as the scores are."""
    found = {}
    for proxy in proxies:
        higher = proxy.higher_is_better
        merits = [oriented(run, higher_is_better=higher) for run in runs[proxy.name]]
        found[proxy.name] = oriented(rank_mean(merits), higher_is_better=higher)
    return found


def merits_of(scores: Mapping[str, FloatArray], proxies: Sequence[Proxy]) -> dict[str, FloatArray]:
    """Merits by name: the proxies', then those of the ensembles that they make up."""
    merits = {
        proxy.name: oriented(scores[proxy.name], higher_is_better=proxy.higher_is_better)
        for proxy in proxies
    }
    for ensemble in ensembles_of(proxies):
        merits[ensemble.name] = np.asarray(combine(ensemble, members_of(scores, ensemble)))
    return merits


def members_of(scores: Mapping[str, FloatArray], ensemble: Ensemble) -> dict[str, Sequence[float]]:
    """The scores of an ensemble's members, as `combine` wants them."""
    return {name: scores[name].tolist() for name in ensemble.members}


def judge(
    found: Population,
    column: str,
    merits: Mapping[str, FloatArray],
    *,
    resamples: int,
    seed: int,
) -> list[Figures]:
    """Figures of all merits on a column."""
    accuracy = found.accuracy[column]
    sure = intervals(dict(merits), accuracy, found.graphs, resamples=resamples, seed=seed)
    is_live = np.array([candidate is not None for candidate in found.candidates])
    return [
        Figures(
            column=column,
            name=name,
            is_ensemble=name in ENSEMBLES,
            kendall=kendall(values, accuracy),
            kendall_interval=sure[name].kendall,
            spearman=spearman(values, accuracy),
            spearman_interval=sure[name].spearman,
            kendall_top=tuple(within_top(kendall, values, accuracy, top) for top in TOPS),
            best_of=tuple(best_of_picks(values, accuracy, found.graphs, PICKS)),
            ndcg=ndcg(values, accuracy, found.graphs),
            unscored=int((np.isnan(values) & is_live).sum()),
        )
        for name, values in merits.items()
    ]
