"""One column of accuracies searched under budgets, and the references beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.cost_models.tables import Table
from benchmarks.proxies.population import Population
from benchmarks.regret.costs import CellCosts, CostModels, Features, KernelCosts
from benchmarks.regret.knowledge import Measuring, TrueCosts
from benchmarks.regret.protocol import (
    Figures,
    Ranking,
    merits,
    overall,
    searches,
)
from cost_models.nnls import FloatArray
from host.proxies.catalogue import PROXIES
from host.proxies.ensembles import RECOMMENDED, Ensemble, ensemble_by_name

REFERENCE = Ensemble("flops+jacob_cov", {"flops": 1.0, "jacob_cov": 1.0}, "the reference of regret")


TURNS = (RECOMMENDED.name,)
"""Which scores pick in turn where nothing else is asked for."""


@dataclass(frozen=True)
class Search:
    """How it is searched: the first of `ensembles` gives the first pick, all of them the others.

    `designed` cells of a device are measured to know it, `near` more by each search.
    """

    ensembles: tuple[Ensemble, ...]
    features: Features
    ranking: Ranking
    designed: int
    near: int
    level: float
    seeds: int


@dataclass(frozen=True)
class Result:
    """Figures of one column; the references are means with true costs, by name of the scores."""

    column: str
    cells: int
    figures: tuple[Figures, ...]
    references: dict[str, Figures]

    @property
    def mean(self) -> Figures:
        """Over devices and budgets."""
        return overall(self.figures)


def searched(
    search: Search,
    found: Population,
    column: str,
    costs: Mapping[str, FloatArray],
    scores: Mapping[str, FloatArray],
) -> Result:
    """Search every device under every budget. Raises ValueError as fits of cost models do."""
    accuracy = found.accuracy[column]
    measuring = Measuring(
        costs,
        _models(search, found),
        found.graphs,
        designed=search.designed,
        near=search.near,
        level=search.level,
        seeds=search.seeds,
    )
    turns = [merits(one, scores, search.ranking) for one in search.ensembles]
    alone = {
        " then ".join(one.name for one in search.ensembles): turns,
        REFERENCE.name: [merits(REFERENCE, scores, search.ranking)],
    }
    return Result(
        column=column,
        cells=len(found.cells),
        figures=tuple(searches(found, accuracy, costs, measuring, turns)),
        references={
            name: overall(searches(found, accuracy, costs, TrueCosts(costs), own))
            for name, own in alone.items()
        },
    )


def ensemble_of(name: str) -> Ensemble:
    """The ensemble of that name, the reference, or a single proxy. Raises UsageError for others."""
    if name == REFERENCE.name:
        return REFERENCE
    return Ensemble(name, {name: 1.0}, "one proxy") if name in PROXIES else ensemble_by_name(name)


def costs_of(found: Population, table: Table) -> dict[str, FloatArray]:
    """The costs of each cell by column, nan where the table has none."""
    places = {cell: place for place, cell in enumerate(table.cells)}
    rows = [places.get(cell) for cell in found.cells]
    return {
        column: np.array([np.nan if row is None else values[row] for row in rows])
        for column, values in table.values.items()
    }


def _models(search: Search, found: Population) -> CostModels:
    if search.features == "cells":
        return CellCosts(found.cells)
    return KernelCosts(found.candidates)
