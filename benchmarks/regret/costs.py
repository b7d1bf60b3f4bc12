"""What is known of a device's costs after few of its cells were measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from benchmarks.cost_models.cells import Cell
from benchmarks.cost_models.few_shot import CANDIDATES, choose, fit
from benchmarks.cost_models.runtimes import amount_rows
from benchmarks.proxies.metrics import Indices, Names
from cost_models.base import Prediction
from cost_models.design import d_optimal
from cost_models.latency import LatencyModel
from cost_models.nnls import FloatArray
from host.network.kernels import kernels_of
from host.spaces.base import Candidate, Task
from host.spaces.nasbench201 import NasBench201

Features = Literal["cells", "kernels"]
FEATURES: tuple[Features, ...] = ("cells", "kernels")

_TASK = Task(channels=3, classes=10)


@dataclass(frozen=True)
class KnownCosts:
    """The predicted cost of each cell, the upper end of its interval, and the cells measured.

    Of a measured cell both are the measured value; where a device cannot run a cell, infinite.
    """

    values: FloatArray
    bounds: FloatArray
    measured: Indices


class CostModels(Protocol):
    """Chooses cells to measure, and predicts the others from them; rows are those of all cells."""

    def choose(self, ids: Indices, count: int) -> Indices:
        """So many of the ids, which are in random order, before anything is measured."""
        ...

    def predict(self, chosen: Indices, measured: FloatArray, level: float) -> list[Prediction]:
        """A prediction for every cell from what was measured of the chosen ones, with intervals
        at that level.
        """
        ...


class CellCosts:
    """The small models of benchmarks.cost_models: one for each kind of runtime, the best wins."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._rows = amount_rows(cells)

    def choose(self, ids: Indices, count: int) -> Indices:
        """See `benchmarks.cost_models.few_shot.choose`."""
        return choose(self._rows, ids, count, "d-optimal")

    def predict(self, chosen: Indices, measured: FloatArray, level: float) -> list[Prediction]:
        """By the kind that fits best."""
        found = fit(self._rows[chosen], measured)
        found.model.level = level
        return found.predict(self._rows)


class KernelCosts:
    """The product's latency model, which sees the kernels of a network and no cell."""

    def __init__(self, candidates: Sequence[Candidate | None]) -> None:
        """None stands for a cell without a path, which has no kernels and no cost."""
        space = NasBench201()
        known = list(dict.fromkeys(one for one in candidates if one is not None))
        rows = LatencyModel().features([kernels_of(space.build(one, _TASK)) for one in known])
        places = {one: place for place, one in enumerate(known)}
        nothing = np.zeros(rows.shape[1])
        self._rows = np.array([nothing if one is None else rows[places[one]] for one in candidates])

    def choose(self, ids: Indices, count: int) -> Indices:
        """D-optimal as far as columns are independent, then at random: see `few_shot.choose`."""
        candidates = ids[: max(CANDIDATES, count)]
        design = LatencyModel().design_rows(self._rows[candidates])
        independent = int(np.linalg.matrix_rank(design))
        designed = candidates[d_optimal(design, min(count, independent))]
        others = candidates[~np.isin(candidates, designed)]
        return np.concatenate([designed, others[: count - len(designed)]])

    def predict(self, chosen: Indices, measured: FloatArray, level: float) -> list[Prediction]:
        """As on a device that was never seen before."""
        return LatencyModel(level).fit_rows(self._rows[chosen], measured).predict_rows(self._rows)


def known_costs(
    models: CostModels, costs: FloatArray, measured: Indices, level: float
) -> KnownCosts:
    """What the measured cells of a device say of the others.

    `costs` holds the true cost of each cell, not positive where the device cannot run it.
    """
    found = models.predict(measured, costs[measured], level)
    values, bounds = np.array([p.value for p in found]), np.array([p.high for p in found])
    for known in (values, bounds):
        known[measured] = costs[measured]
        known[~(costs > 0)] = np.inf
    return KnownCosts(values, bounds, measured)


def one_of_each(places: Indices, graphs: Names, seed: int) -> Indices:
    """One of the places, drawn at random, of each distinct graph, in random order."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(places)
    _, first = np.unique(graphs[order], return_index=True)
    return generator.permutation(order[first])
