"""What a search knows of a device's costs when it picks under a budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

import numpy as np

from benchmarks.proxies.metrics import Names
from benchmarks.regret.choosing import Merits, best_new, cheapest_first
from benchmarks.regret.costs import CostModels, KnownCosts, known_costs, one_of_each
from cost_models.nnls import FloatArray

_BETWEEN_FITS = 2


class Knowledge(Protocol):
    """Says what is known, once for each seed."""

    def about(self, device: str, limit: float, merits: Merits) -> list[KnownCosts]:
        """What a search for the highest merit within a limit knows of a device."""
        ...


@dataclass(frozen=True)
class TrueCosts:
    """As if every cell had been measured."""

    costs: Mapping[str, FloatArray]

    def about(self, device: str, limit: float, merits: Merits) -> list[KnownCosts]:  # noqa: ARG002
        """The same for every search."""
        values = self.costs[device]
        known = np.where(values > 0, values, np.inf)
        return [KnownCosts(known, known, np.flatnonzero(values > 0))]


@dataclass(frozen=True)
class Measuring:
    """Few cells are measured: `designed` before the search, `near` by the search itself.

    The designed ones are chosen for what they teach the cost model, the others as a study does: the
    cells with the highest merits that are predicted to keep the limit, with a fit after every two.
    """

    costs: Mapping[str, FloatArray]
    models: CostModels
    graphs: Names
    designed: int
    near: int
    level: float
    seeds: int

    def about(self, device: str, limit: float, merits: Merits) -> list[KnownCosts]:
        """After all measurements."""
        return [self._searched(device, known, limit, merits) for known in self._designs[device]]

    @cached_property
    def _designs(self) -> dict[str, list[KnownCosts]]:
        return {
            device: [self._designed(values, seed) for seed in range(self.seeds)]
            for device, values in self.costs.items()
        }

    def _designed(self, values: FloatArray, seed: int) -> KnownCosts:
        drawn = one_of_each(np.flatnonzero(values > 0), self.graphs, seed)
        chosen = self.models.choose(drawn, self.designed)
        return known_costs(self.models, values, chosen, self.level)

    def _searched(self, device: str, known: KnownCosts, limit: float, merits: Merits) -> KnownCosts:
        left = self.near
        while left:
            seen = set(self.graphs[known.measured].tolist())
            likely = cheapest_first(known.values, np.flatnonzero(known.values <= limit))
            best = best_new(merits, likely, self.graphs, seen)
            found = list(islice(best, min(left, _BETWEEN_FITS)))
            if not found:
                break
            left -= len(found)
            measured = np.concatenate([known.measured, found])
            known = known_costs(self.models, self.costs[device], measured, self.level)
        return known
