"""What the winner of a study is compared with, all trained by the study's own recipe."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from host.config import DataConfig, StudyConfig
from host.network.torch_module import build_module
from host.spaces.base import SearchSpace, Task, sample
from host.study.data import open_study_data
from host.study.proposal import Proposal, Proposer
from host.study.trials import recipe_of
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
        for proposal in proposer.fresh([sample(space, rng)]):
            size = proposal.network.parameters
            if abs(size - parameters) <= SIZE_TOLERANCE * parameters and fits(proposal):
                return proposal
    raise ValueError(f"no candidate of about {parameters} parameters was drawn")


def largest(candidates: Sequence[Proposal]) -> Proposal:
    """What a pick by the number of parameters alone takes of those within the limits."""
    return max(candidates, key=lambda proposal: (proposal.network.parameters, proposal.key))


@dataclass(frozen=True)
class Run:
    """One training: a network from a seed, by the recipe, on the study's data."""

    name: str
    proposal: Proposal
    recipe: TrainConfig
    data: DataConfig
    data_seed: int
    checkpoint: Path

    def auroc(self) -> float:
        """Train, or go on from the checkpoint, and look at the test part."""
        data = open_study_data(self.data, seed=self.data_seed)
        split = data.split_at(self.proposal.network.input_shape)
        module = build_module(self.proposal.network, seed=self.recipe.seed)
        train(module, split, self.recipe, checkpoint=self.checkpoint)
        logits = logits_of_module(module, split.test.inputs, split.preprocessing)
        area = auroc(split.test.labels, logits[:, 1] - logits[:, 0])
        if area is None:
            raise ValueError("the test part lacks a class")
        return area.value


def trained(
    contenders: Mapping[str, Sequence[Proposal]],
    config: StudyConfig,
    folder: Path,
    on_done: Callable[[str], None],
) -> list[Trained]:
    """Train the proposals of each contender, one for each seed, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(config)
    runs = []
    for name, proposals in contenders.items():
        for number, proposal in enumerate(proposals):
            seed = recipe.seed + number
            file = folder / f"{name.replace(' ', '-')}-{proposal.key[:12]}-{seed}.pt"
            settings = replace(recipe, seed=seed, threads=1)
            runs.append(Run(name, proposal, settings, config.data, config.seed, file))
    areas: dict[str, list[float]] = {name: [] for name in contenders}
    processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for run, area in zip(runs, pool.map(Run.auroc, runs), strict=True):
            areas[run.name].append(area)
            text = run.proposal.text
            on_done(f"{run.name}, seed {run.recipe.seed}: {text}: test AUROC {area:.3f}")
    return [
        Trained(name, own[0].text, own[0].network.parameters, tuple(areas[name]))
        for name, own in contenders.items()
    ]
