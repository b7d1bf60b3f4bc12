"""What the winner of a study is compared with, all trained by the study's own recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from host.data.dataset import Dataset
from host.network.torch_module import build_module
from host.spaces.base import Candidate, SearchSpace, Task, sample
from host.study.proposal import Proposal, Proposer
from host.training.inference import logits_of_module
from host.training.metrics import auroc
from host.training.recipe import TrainConfig
from host.training.train import train

SIZE_TOLERANCE = 0.1
_MOST_DRAWS = 20_000


@dataclass(frozen=True)
class Trained:
    """The test AUROC of one network, trained from several seeds, with Student's 95 % interval."""

    name: str
    text: str
    parameters: int
    aurocs: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.aurocs))

    @property
    def interval(self) -> tuple[float, float]:
        n = len(self.aurocs)
        if n < 2:
            return 0.0, 1.0
        half = float(student.ppf(0.975, n - 1) * np.std(self.aurocs, ddof=1) / np.sqrt(n))
        return self.mean - half, self.mean + half


def random_of_size(
    space: SearchSpace, task: Task, parameters: int, *, fits: Callable[[Proposal], bool], seed: int
) -> Proposal:
    """A random candidate within the limits whose size is that of the winner, within a tenth."""
    rng = np.random.default_rng(seed)
    proposer = Proposer(space, task)
    for _ in range(_MOST_DRAWS):
        for proposal in proposer.fresh([_drawn(space, rng)]):
            size = proposal.network.parameters
            if abs(size - parameters) <= SIZE_TOLERANCE * parameters and fits(proposal):
                return proposal
    raise ValueError(f"no candidate of about {parameters} parameters was drawn")


def largest(candidates: Sequence[Proposal]) -> Proposal:
    """What a pick by the number of parameters alone takes of those within the limits."""
    return max(candidates, key=lambda proposal: (proposal.network.parameters, proposal.key))


def trained(
    name: str,
    proposals: Sequence[Proposal],
    data: Dataset,
    recipe: TrainConfig,
    folder: Path,
    on_done: Callable[[str], None],
) -> Trained:
    """Train the proposals, one for each seed (or one for all of them), and look at the test part.

    `proposals` has one entry a seed.
    """
    areas = []
    for number, proposal in enumerate(proposals):
        seed = recipe.seed + number
        module = build_module(proposal.network, seed=seed)
        split = data.split_at(proposal.network.input_shape)
        checkpoint = folder / f"{name}-{proposal.key[:12]}-{seed}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        train(module, split, replace(recipe, seed=seed), checkpoint=checkpoint)
        logits = logits_of_module(module, split.test.inputs, split.preprocessing)
        area = auroc(split.test.labels, logits[:, 1] - logits[:, 0])
        if area is None:
            raise ValueError("the test part lacks a class")
        areas.append(area.value)
        on_done(f"{name}, seed {seed}: {proposal.text}: test AUROC {area.value:.3f}")
    first = proposals[0]
    return Trained(name, first.text, first.network.parameters, tuple(areas))


def _drawn(space: SearchSpace, rng: np.random.Generator) -> Candidate:
    return sample(space, rng)
