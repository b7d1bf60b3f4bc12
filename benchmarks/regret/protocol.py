"""Searches under budgets: every device, every budget, several choices of what to measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.proxies.judging import members_of
from benchmarks.proxies.metrics import Indices
from benchmarks.proxies.population import Population
from benchmarks.regret.choosing import Merits, Outcome, outcome, picks
from benchmarks.regret.knowledge import Knowledge
from cost_models.nnls import FloatArray
from host.proxies.ensembles import Ensemble, combine

Ranking = Literal["population", "feasible"]
RANKINGS: tuple[Ranking, ...] = ("feasible", "population")

DEVICES = (
    "edgegpu_latency_ms",
    "raspi4_latency_ms",
    "edgetpu_latency_ms",
    "pixel3_latency_ms",
    "eyeriss_latency_ms",
    "fpga_latency_ms",
    "edgegpu_energy_mj",
    "eyeriss_energy_mj",
)
"""The metrics of HW-NAS-Bench; eyeriss and fpga are analytic, edgetpu runs not every cell."""
BUDGETS = (0.10, 0.25, 0.50, 0.75, 1.0)
"""Quantiles of the cost of the cells that a device can run."""
PICKS = 10


@dataclass(frozen=True)
class Figures:
    """Means over seeds of one device under one budget; see `Outcome`. Shares lie in [0, 1]."""

    device: str
    budget: float
    first: float
    best: float
    met: float
    share_met: float


def merits(ensemble: Ensemble, scores: Mapping[str, FloatArray], ranking: Ranking) -> Merits:
    """An ensemble's merits, its ranks taken over all cells or over those that are compared."""
    whole = np.asarray(combine(ensemble, members_of(scores, ensemble)))

    def of(places: Indices) -> FloatArray:
        if ranking == "population":
            return whole[places]
        some = {name: values[places] for name, values in scores.items()}
        return np.asarray(combine(ensemble, members_of(some, ensemble)))

    return of


def searches(
    found: Population,
    accuracy: FloatArray,
    costs: Mapping[str, FloatArray],
    knowledge: Knowledge,
    of: Sequence[Merits],
) -> list[Figures]:
    """Figures of every device under every budget; see `picks` for what several merits do."""
    figures = []
    for device, values in costs.items():
        for budget in BUDGETS:
            limit = float(np.quantile(values[values > 0], budget))
            outcomes = [
                outcome(picks(of, known, limit, found.graphs, PICKS), values, limit, accuracy)
                for known in knowledge.about(device, limit, of[0])
            ]
            figures.append(_mean(device, budget, outcomes))
    return figures


def overall(figures: Sequence[Figures]) -> Figures:
    """The mean over devices and budgets."""
    return Figures(
        device="mean",
        budget=float("nan"),
        first=float(np.mean([one.first for one in figures])),
        best=float(np.mean([one.best for one in figures])),
        met=float(np.mean([one.met for one in figures])),
        share_met=float(np.mean([one.share_met for one in figures])),
    )


def _mean(device: str, budget: float, outcomes: Sequence[Outcome]) -> Figures:
    return Figures(
        device=device,
        budget=budget,
        first=float(np.mean([one.first for one in outcomes])),
        best=float(np.mean([one.best for one in outcomes])),
        met=float(np.mean([one.met for one in outcomes])),
        share_met=float(np.mean([one.share_met for one in outcomes])),
    )
