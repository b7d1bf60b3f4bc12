"""Training the front: candidates are halved from round to round, and the finalists are left."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from host.config import StudyConfig
from host.data.dataset import Dataset
from host.network.graph import Network
from host.network.torch_module import NetworkModule, build_module
from host.store.store import Store
from host.store.studies import Study
from host.study.finalist import RankAgreement, Trial, TrialsReport
from host.study.front import Value
from host.study.proposal import Proposal
from host.study.report import Reporter
from host.study.spending import Spending
from host.study.stored import TRIALS
from host.training.agreement import rank_agreement
from host.training.augment import Augmentation
from host.training.distillation import Teacher
from host.training.halving import (
    Contender,
    Halved,
    Judged,
    Rung,
    Watcher,
    plan_rungs,
    run_halving,
    total_epochs,
)
from host.training.history import EpochRecord, TrainResult
from host.training.recipe import TrainConfig
from host.training.start import start_from
from host.training.train import train

_PLAN = "trials:plan"
_TRAINING_SHARE = 0.8
"""Of the time that is left after the search; the rest is for forms and their measurements."""


@dataclass(frozen=True)
class Trained:
    """A network at the end of its training."""

    module: NetworkModule
    result: TrainResult
    taught_by: str | None


class _Plan(Value):
    """Kept, because what time allows is another plan when a study goes on."""

    rungs: list[tuple[int, int]]


def recipe_of(config: StudyConfig) -> TrainConfig:
    """How every candidate of a study is trained."""
    settings = config.finalists
    return TrainConfig(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        patience=settings.patience,
        seed=config.seed,
        augmentation=Augmentation(flips=settings.flips, quarter_turns=settings.quarter_turns),
    )


class Trials:
    """Trains candidates of one front; `folder` keeps the checkpoints."""

    def __init__(
        self,
        config: StudyConfig,
        study: Study,
        store: Store,
        folder: Path,
        *,
        data: Dataset,
        spending: Spending,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._study = study
        self._store = store
        self._folder = folder / "checkpoints"
        self._data = data
        self._spending = spending
        self._reporter = reporter
        self._recipe = recipe_of(config)
        weights = config.finalists.weights
        self._weights = None if weights is None else Path(weights)

    def run(
        self, candidates: Sequence[Proposal], scores: Mapping[str, float]
    ) -> tuple[list[Proposal], TrialsReport]:
        """The finalists, the best first, and what became of all candidates.

        They begin in the order given, which is that of the budget: where it allows fewer, the last
        ones are left out.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._weights is not None:
            # What is wrong with the file is said here, not by a helper process.
            module = build_module(candidates[0].network, seed=self._config.seed)
            start = start_from(module, self._weights)
            self._reporter.say(f"training starts from {self._weights.name}: {start.sentence()}")
        rungs = self._rungs(candidates)
        self._say_plan(rungs)
        epochs = total_epochs(rungs)
        halved = run_halving(
            [self._contender(proposal) for proposal in candidates],
            rungs,
            self._recipe,
            folder=self._folder,
            watcher=self._watcher(epochs, {p.key: p.text for p in candidates}),
            processes=_processes(),
        )
        by_key = {proposal.key: proposal for proposal in candidates}
        report = _report(halved, by_key, scores, rungs)
        self._store.studies.put_result(self._study.id, TRIALS, report.model_dump_json())
        return [by_key[key] for key in halved.finalists], report

    def trained(self, proposal: Proposal) -> Trained:
        """The network of a finalist, from its checkpoint."""
        return self._finished(proposal, f"{proposal.key}.pt", None, None)

    def taught(self, proposal: Proposal, teacher: Proposal) -> Trained:
        """The network of a finalist, trained anew on the labels and on the teacher's answers."""
        known = self.trained(teacher)
        split = self._data.split_at(teacher.network.input_shape)
        size = teacher.network.input_shape[1:]
        lesson = Teacher(
            known.module,
            split.preprocessing,
            size=None if proposal.network.input_shape[1:] == size else (size[0], size[1]),
        )
        name = f"{proposal.key}-taught-by-{teacher.key[:8]}.pt"
        return self._finished(proposal, name, lesson, teacher.key)

    def _finished(
        self, proposal: Proposal, name: str, teacher: Teacher | None, taught_by: str | None
    ) -> Trained:
        module = self._build(proposal)
        known = (self._folder / name).exists()

        def on_epoch(record: EpochRecord) -> None:
            self._spending.note_epoch()
            self._reporter.progress(
                f"epochs of {proposal.key[:8]}", record.epoch, self._recipe.epochs
            )

        if not known and taught_by is not None:
            self._reporter.say(f"finalist {proposal.key[:8]} learns from {taught_by[:8]} too")
        result = train(
            module,
            self._data.split_at(proposal.network.input_shape),
            self._recipe,
            checkpoint=self._folder / name,
            teacher=teacher,
            on_epoch=on_epoch,
        )
        return Trained(module, result, taught_by)

    def _contender(self, proposal: Proposal) -> Contender:
        return Contender(
            proposal.key,
            build=partial(_built, proposal.network, self._config.seed, self._weights),
            data=lambda: self._data.split_at(proposal.network.input_shape),
        )

    def _build(self, proposal: Proposal) -> NetworkModule:
        return _built(proposal.network, self._config.seed, self._weights)

    def _rungs(self, candidates: Sequence[Proposal]) -> tuple[Rung, ...]:
        known = self._store.studies.result(self._study.id, _PLAN)
        if known is not None:
            plan = _Plan.model_validate_json(known)
            return tuple(Rung(epochs, count) for epochs, count in plan.rungs)
        settings = self._config.finalists
        rungs = plan_rungs(
            len(candidates),
            settings.count,
            settings.epochs,
            settings.halving,
            self._epochs_allowed(candidates[0]),
        )
        kept = _Plan(rungs=[(rung.epochs, rung.candidates) for rung in rungs])
        self._store.studies.put_result(self._study.id, _PLAN, kept.model_dump_json())
        return rungs

    def _epochs_allowed(self, example: Proposal) -> int | None:
        """By the budget of epochs and by what is left of the time, at least one finalist's."""
        allowed = [] if self._config.budget.epochs is None else [self._config.budget.epochs]
        left = self._spending.seconds_left()
        if left is not None:
            seconds = self._seconds_of_an_epoch(example)
            by_time = math.floor(_TRAINING_SHARE * left / seconds * _processes())
            allowed.append(max(by_time, self._config.finalists.epochs))
        return min(allowed) if allowed else None

    def _seconds_of_an_epoch(self, example: Proposal) -> float:
        """From the first epoch of the first candidate, which its training goes on from."""
        result = train(
            self._build(example),
            self._data.split_at(example.network.input_shape),
            self._recipe,
            checkpoint=self._folder / f"{example.key}.pt",
            until=1,
            on_epoch=lambda _record: self._spending.note_epoch(),
        )
        return max(result.seconds / len(result.history), 1e-3)

    def _watcher(self, epochs: int, texts: Mapping[str, str]) -> Watcher:
        def on_epoch(key: str, record: EpochRecord) -> None:
            self._spending.note_epoch()
            self._reporter.progress("epochs of all candidates", self._spending.epochs, epochs)
            self._reporter.progress(f"epochs of {key[:8]}", record.epoch, self._recipe.epochs)

        def on_judged(judged: Judged) -> None:
            quality = "diverged" if judged.quality is None else f"quality {judged.quality:.3f}"
            facts = {"key": judged.key, "epochs": judged.epochs, "quality": judged.quality}
            self._reporter.found(
                "trial",
                facts | {"text": texts[judged.key]},
                f"{texts[judged.key]}: {quality} on validation after {judged.epochs} epochs",
            )

        return Watcher(on_epoch, on_judged)

    def _say_plan(self, rungs: Sequence[Rung]) -> None:
        steps = ", ".join(f"{rung.candidates} for {rung.epochs}" for rung in rungs)
        self._reporter.say(
            f"training by successive halving (candidates for epochs): {steps}; at most "
            f"{total_epochs(rungs)} epochs in all"
        )


def _built(network: Network, seed: int, weights: Path | None) -> NetworkModule:
    """A network before its training; made in helper processes too."""
    module = build_module(network, seed=seed)
    if weights is not None:
        start_from(module, weights)
    return module


def _processes() -> int:
    """One training for each CPU: small networks gain little from a second thread."""
    return len(os.sched_getaffinity(0))


def _report(
    halved: Halved,
    proposals: Mapping[str, Proposal],
    scores: Mapping[str, float],
    rungs: Sequence[Rung],
) -> TrialsReport:
    trials = [
        Trial(
            key=key,
            text=proposal.text,
            score=scores[key],
            parameters=proposal.network.parameters,
            rounds=rounds,
            seconds=halved.seconds.get(key, 0.0),
            finalist=key in halved.finalists,
        )
        for key, proposal in proposals.items()
        if (rounds := halved.rounds_of(key))
    ]
    return TrialsReport(trials=trials, agreement=_agreement(trials, rungs[0].epochs))


def _agreement(trials: Sequence[Trial], epochs: int) -> RankAgreement | None:
    """After the first round, which is the last that all of them were in."""
    judged = [(t.score, dict(t.rounds)[epochs]) for t in trials if epochs in dict(t.rounds)]
    found = rank_agreement([score for score, _ in judged], [quality for _, quality in judged])
    if found is None:
        return None
    return RankAgreement(
        n=found.n, epochs=epochs, kendall=found.kendall, low=found.low, high=found.high
    )
