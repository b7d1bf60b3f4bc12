"""One seed of the benchmark on one device, for a process of its own."""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.search.strategies import Budget, at_random, by_predictions, by_study
from benchmarks.search.tabled import Truth
from host.search.hypervolume import course
from host.store.store import Store


@dataclass(frozen=True)
class Round:
    """One seed on one device: all that a process needs to run the three strategies."""

    device: str
    seed: int
    truth: Truth
    budget: Budget
    random: int
    scores: Path

    def courses(self) -> dict[str, list[float]]:
        """Of each strategy, the hypervolume after every measurement."""
        torch.set_num_threads(1)
        with Store.open(self.scores / "scores.db", blobs_folder=self.scores / "blobs") as scores:
            asked = (self.truth, self.device, self.budget, scores, self.seed)
            orders = {
                "random": at_random(self.truth, self.random, self.seed),
                "study": by_study(*asked),
                "predictions": by_predictions(*asked),
            }
        return {
            name: course(self.truth.objectives(order), range(1, len(order) + 1))
            for name, order in orders.items()
        }
