"""Three ways to spend device measurements on cells of NAS-Bench-201."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from benchmarks.reporter import Unheard
from benchmarks.search.tabled import TableLedger, Truth
from host.config import StudyConfig
from host.network.graph import Network
from host.proxies.choice import judge
from host.proxies.scoring import View
from host.ranking.views import made_views
from host.search.evolution import non_dominated
from host.spaces.base import Candidate, Task, sample
from host.spaces.nasbench201 import NasBench201
from host.store.store import Store
from host.study.proposal import Proposer
from host.study.scoring import Scorer
from host.study.search import Search
from host.study.spending import Spending
from host.study.surrogates import ProfileSetting, Surrogates

if TYPE_CHECKING:
    from host.study.ledger import Ledger

TASK = Task(channels=3, classes=10)
BATCH, RESOLUTION = 32, 16
"""Of the made-up images that proxies look at: the recommended setting of the ensemble."""


class KnownCells(NasBench201):
    """The same space, which builds each network once: all seeds and devices meet the same cells."""

    def build(self, candidate: Candidate, task: Task) -> Network:
        """As the space does."""
        return _built(candidate, task)

    def scoring_network(self, candidate: Candidate, task: Task) -> Network:
        """As the space does."""
        return _looked_at(candidate, task)


@cache
def _built(candidate: Candidate, task: Task) -> Network:
    return NasBench201().build(candidate, task)


@cache
def _looked_at(candidate: Candidate, task: Task) -> Network:
    return NasBench201().scoring_network(candidate, task)


@dataclass(frozen=True)
class Budget:
    """Measurements that a search may make, those of the calibration among them, and candidates
    that it may score.
    """

    measurements: int = 50
    calibration: int = 12
    candidates: int = 2000


def at_random(truth: Truth, count: int, seed: int) -> list[str]:
    """Cells drawn without repeating a network, in the order in which they are measured."""
    space, rng = KnownCells(), np.random.default_rng(seed)
    proposer = Proposer(space, TASK)
    found: list[str] = []
    while len(found) < count:
        drawn = proposer.fresh([sample(space, rng)])
        found += [proposal.text for proposal in drawn if proposal.text in truth.latencies]
    return found


def by_study(truth: Truth, device: str, budget: Budget, scores: Store, seed: int) -> list[str]:
    """What the search of a study measures, in its order."""
    with tempfile.TemporaryDirectory() as folder, _store(Path(folder)) as store:
        search = _search(truth, device, budget, scores, store, seed)
        search.calibrate()
        search.explore()
        search.settle()
        return _order(search)


def by_predictions(
    truth: Truth, device: str, budget: Budget, scores: Store, seed: int
) -> list[str]:
    """What a search measures that fits its cost model once and then trusts it: the cells of the
    calibration, then those of its predicted front, spread over it, the middle ones last.
    """
    once = Budget(budget.calibration + 1, budget.calibration, budget.candidates)
    with tempfile.TemporaryDirectory() as folder, _store(Path(folder)) as store:
        search = _search(truth, device, once, scores, store, seed)
        search.calibrate()
        search.explore()
        chosen = _predicted_front(search, budget.measurements - budget.calibration)
        return _order(search) + chosen


def _search(
    truth: Truth, device: str, budget: Budget, scores: Store, store: Store, seed: int
) -> Search:
    config = StudyConfig.model_validate(
        {
            "name": "search",
            "seed": seed,
            "data": {"folder": "."},
            "devices": [{"name": device}],
            "space": {"name": "nasbench201"},
            # It spends its budget: where to stop earlier is not the question here.
            "search": {"batch_size": BATCH, "patience": budget.candidates},
            "budget": {
                "candidates": budget.candidates,
                "measurements": budget.measurements,
                "calibration": budget.calibration,
            },
        }
    )
    study = store.studies.create(config.name, config.effective_json(), seed)
    proposer = Proposer(KnownCells(), TASK)
    ledger = cast("Ledger", TableLedger(device, truth, Unheard()))
    return Search(
        config=config,
        limits=(),
        proposer=proposer,
        scorer=Scorer(
            store=scores,
            ensemble=judge(config.search.ensemble, config.search.proxies),
            view=_view(),
            subject=proposer.subject,
        ),
        ledger=ledger,
        surrogates=Surrogates({device: ProfileSetting("onnx", 1)}),
        spending=Spending(store, study.id, config.budget, ledger.device_seconds),
        reporter=Unheard(),
        on_scored=lambda _proposals: None,
    )


def _view() -> View:
    (view,) = made_views("natural", BATCH, 1, seed=0, resolution=RESOLUTION)
    return view


def _store(folder: Path) -> Store:
    return Store.open(folder / "search.db", blobs_folder=folder / "blobs")


def _order(search: Search) -> list[str]:
    return cast("TableLedger", search.ledger).order


def _predicted_front(search: Search, count: int) -> list[str]:
    proposals = [p for p in search.archive.values() if p.key not in search.ledger.keys]
    scores = search.combined_scores()
    latencies = search.surrogates.latencies(proposals)
    rows = np.column_stack([[-scores[p.key] for p in proposals], latencies])
    front = sorted(non_dominated(rows), key=lambda place: rows[place, 0])
    spread = np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int)
    ends_first: Sequence[int] = sorted(
        dict.fromkeys(spread.tolist()), key=lambda place: -abs(place - (len(front) - 1) / 2)
    )
    return [proposals[front[place]].text for place in ends_first]
