"""What a search picks under a budget, from scores and from what it knows of costs."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.proxies.metrics import Indices, Names, best_first
from benchmarks.regret.costs import KnownCosts
from cost_models.nnls import FloatArray

Merits = Callable[[Indices], FloatArray]
"""Merits of the cells at some places; they may depend on which cells are compared."""


@dataclass(frozen=True)
class Outcome:
    """What the picks under one budget are worth; losses are points of accuracy.

    `first` is lost by the first pick, `best` by the best of all; picks that turn out to be beyond
    the budget when they are measured are passed over. `met` says whether the first pick keeps the
    budget, `share_met` how many of all do.
    """

    first: float
    best: float
    met: bool
    share_met: float


def picks(
    merits: Sequence[Merits], known: KnownCosts, limit: float, graphs: Names, count: int
) -> Indices:
    """The places of so many distinct graphs, in the order in which they would be tried.

    The first has the highest of the first merits among the cells whose bound keeps the limit. The
    others are to be measured before one of them is taken, so it is enough that their predicted
    cost keeps it; they are the best of each of the merits in turn, those after the first leading.
    Of the cells of one graph the one that is predicted to cost least is meant. Where no bound keeps
    the limit, the lowest bound is picked first.
    """
    safe = cheapest_first(known.values, np.flatnonzero(known.bounds <= limit))
    if not len(safe):
        safe = np.array([known.bounds.argmin()])
    likely = cheapest_first(known.values, np.flatnonzero(known.values <= limit))
    seen: set[str] = set()
    taken = [next(best_new(merits[0], safe, graphs, seen))]
    queues = deque(best_new(each, likely, graphs, seen) for each in (*merits[1:], merits[0]))
    while queues and len(taken) < count:
        place = next(queues[0], None)
        if place is None:
            queues.popleft()
        else:
            taken.append(place)
            queues.rotate(-1)
    return np.array(taken, dtype=np.int64)


def cheapest_first(values: FloatArray, places: Indices) -> Indices:
    """Places by rising value."""
    return places[np.argsort(values[places], kind="stable")]


def best_new(merits: Merits, places: Indices, graphs: Names, seen: set[str]) -> Iterator[int]:
    """Places by falling merit, each graph once, without those seen; what is given out is seen.

    Of one graph the first of its places is meant.
    """
    if not len(places):
        return
    for place in places[best_first(merits(places), graphs[places])].tolist():
        graph = str(graphs[place])
        if graph not in seen:
            seen.add(graph)
            yield place


def outcome(picked: Indices, costs: FloatArray, limit: float, accuracy: FloatArray) -> Outcome:
    """Judge picks by true costs and accuracies; some cell keeps the limit.

    Without a single pick that keeps it, the loss is that of the worst cell that does.
    """
    feasible = (costs > 0) & (costs <= limit)
    best = accuracy[feasible].max()
    keeps = feasible[picked]
    kept = accuracy[picked[keeps]]
    if not len(kept):
        kept = accuracy[feasible].min(keepdims=True)
    return Outcome(
        first=float(best - kept[0]),
        best=float(best - kept.max()),
        met=bool(keeps[0]),
        share_met=float(keeps.mean()),
    )
