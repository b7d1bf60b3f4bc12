"""From networks to a ranking: scores, ranks and how sure they are, and what each network costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cost_models.base import Prediction
from cost_models.kernels import KernelGraph
from host.calibration.prediction import Absent, Predictor
from host.errors import UsageError
from host.proxies.base import Proxy
from host.proxies.cascade import divided, survivors
from host.proxies.catalogue import proxies_by_name
from host.proxies.ensembles import Ensemble, combine
from host.proxies.executors import Executor
from host.proxies.scoring import Progress, Subject, Table, View, score_subjects
from host.ranking.contenders import Contender
from host.ranking.uncertainty import rank_intervals, ranks
from host.search.evolution import non_dominated
from host.store.store import Store

Matrix = npt.NDArray[np.float64]
MACS = "MACs"
Stage = Literal["pruning", "scoring"]


class NoLatencyModelError(UsageError):
    """A device has cost models, and none of latency."""


@dataclass(frozen=True)
class Cost:
    """What a network costs: as predicted, or (without a prediction) counted."""

    value: float
    prediction: Prediction | None
    on_front: bool
    """Whether no other network has both a better score and a lower cost."""


@dataclass(frozen=True)
class Place:
    """A network in its place; equals share the first of their places.

    `ranks` are those that it has in 80 % of the resamples; `scores` are the means over all draws,
    nan where a proxy has no score in one of them.
    """

    rank: int
    ranks: tuple[int, int] | None
    score: float
    subject: Subject
    scores: Mapping[str, float]
    costs: Mapping[str, Cost]
    """By the name of the device, or by MACS."""


@dataclass(frozen=True)
class Ranking:
    """All places, best first, and how they came about."""

    places: tuple[Place, ...]
    ensemble: Ensemble
    draws: int
    pruned: int
    """How many networks free proxies left out before."""
    pruned_by: tuple[str, ...]
    predictors: Mapping[str, Predictor]
    """By the name of the device; empty where the cost is MACs."""


@dataclass(frozen=True)
class Ranker:
    """Ranks networks by an ensemble, each network's scores in every view.

    `keep` is the share that free proxies leave for the dear ones. `on_progress` is told the stage,
    and how far it is.
    """

    store: Store
    executor: Executor
    ensemble: Ensemble
    views: Sequence[View]
    keep: float | None
    seed: int
    predictors: Mapping[str, Predictor]
    on_progress: Callable[[Stage, Progress], None]

    def rank(self, contenders: Sequence[Contender]) -> Ranking:
        """The ranking of one network or more.

        Raises UsageError where `keep` has nothing to prune with, NoLatencyModelError, and what the
        executor raises.
        """
        proxies = proxies_by_name(self.ensemble.members)
        left, pruned_by = self._pruned(contenders, proxies)
        tables = self._scores([one.subject for one in left], proxies, "scoring")
        places = self._places(left, tables)
        return Ranking(
            places=tuple(places),
            ensemble=self.ensemble,
            draws=len(self.views),
            pruned=len(contenders) - len(left),
            pruned_by=pruned_by,
            predictors=self.predictors,
        )

    def _pruned(
        self, contenders: Sequence[Contender], proxies: Sequence[Proxy]
    ) -> tuple[list[Contender], tuple[str, ...]]:
        """What the free proxies leave, and their names."""
        if self.keep is None:
            return list(contenders), ()
        free, _ = divided(proxies)
        names = tuple(proxy.name for proxy in free)
        tables = self._scores([one.subject for one in contenders], free, "pruning")
        keys = [one.subject.key for one in contenders]
        weights = {name: self.ensemble.weights[name] for name in names}
        pruning = Ensemble("pruning", weights, self.ensemble.source)
        combined = combined_scores(pruning, tables, keys).mean(axis=0)
        return [contenders[place] for place in survivors(combined.tolist(), self.keep)], names

    def _scores(
        self, subjects: Sequence[Subject], proxies: Sequence[Proxy], stage: Stage
    ) -> list[Table]:
        return score_subjects(
            subjects,
            proxies,
            self.views,
            store=self.store,
            executor=self.executor,
            on_progress=lambda progress: self.on_progress(stage, progress),
        )

    def _places(self, contenders: Sequence[Contender], tables: Sequence[Table]) -> list[Place]:
        keys = [one.subject.key for one in contenders]
        combined = combined_scores(self.ensemble, tables, keys)
        scores = combined.mean(axis=0)
        order = ranks(scores)
        intervals = rank_intervals(combined, seed=self.seed) if len(tables) > 1 else None
        costs = self._costs(contenders, scores)
        places = [
            Place(
                rank=int(order[index]),
                ranks=None if intervals is None else _pair(intervals[:, index]),
                score=float(scores[index]),
                subject=one.subject,
                scores={
                    name: math.fsum(table[one.subject.key][name] for table in tables) / len(tables)
                    for name in self.ensemble.members
                },
                costs={name: column[index] for name, column in costs.items()},
            )
            for index, one in enumerate(contenders)
        ]
        return sorted(places, key=lambda place: place.rank)  # of equals the first drawn leads

    def _costs(self, contenders: Sequence[Contender], scores: Matrix) -> dict[str, list[Cost]]:
        if not self.predictors:
            counted = [float(one.subject.macs) for one in contenders]
            return {MACS: _on_front(scores, [(value, None) for value in counted])}
        graphs = [one.graph for one in contenders]
        return {
            name: _on_front(scores, [(p.value, p) for p in latencies(predictor, graphs)])
            for name, predictor in self.predictors.items()
        }


def combined_scores(ensemble: Ensemble, tables: Sequence[Table], keys: Sequence[str]) -> Matrix:
    """(views, candidates): what the ensemble makes of the candidates in each view."""
    rows = [
        combine(ensemble, {name: [table[key][name] for key in keys] for name in ensemble.members})
        for table in tables
    ]
    return np.stack(rows)


def latencies(predictor: Predictor, graphs: Sequence[KernelGraph]) -> list[Prediction]:
    """The predicted latency of each network. Raises NoLatencyModelError."""
    found: list[Prediction] = []
    for forecasts in predictor.predict(graphs):
        forecast = forecasts["latency_seconds"]
        if isinstance(forecast, Absent):
            raise NoLatencyModelError(
                f"{predictor.device.name} has no cost model of latency ({forecast.because})"
            )
        found.append(forecast)
    return found


def _on_front(scores: Matrix, costs: Sequence[tuple[float, Prediction | None]]) -> list[Cost]:
    values = np.array([value for value, _ in costs])
    front = set(non_dominated(np.column_stack([-scores, values])))
    return [Cost(value, told, place in front) for place, (value, told) in enumerate(costs)]


def _pair(limits: npt.NDArray[np.int64]) -> tuple[int, int]:
    low, high = limits.tolist()
    return low, high
