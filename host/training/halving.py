"""Successive halving: many candidates are trained a little, the better ones on to the end.

Jamieson and Talwalkar 2016 (arXiv:1502.07943), fig. 3; the name has stayed although a rung keeps
one in `eta`. A rung is the beginning of the full training, with the learning rates that it has
there: nothing is trained twice, and the last rung's networks are finished.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from host.data.split import Split
from host.errors import UsageError
from host.training.errors import DivergedError
from host.training.history import EpochRecord, TrainResult
from host.training.recipe import TrainConfig
from host.training.side_by_side import Outcome, Training, trainers


@dataclass(frozen=True, slots=True)
class Rung:
    """So many candidates are trained up to `epochs`, those of the rungs before included."""

    epochs: int
    candidates: int


@dataclass(frozen=True)
class Contender:
    """A candidate to train.

    `build` gives the module with its first weights, the same ones at every call, and is picklable
    where there are several processes. `data` is called when they are needed, so that not all sizes
    of the images are held at once.
    """

    key: str
    build: Callable[[], nn.Module]
    data: Callable[[], Split]


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate's best quality on the validation part up to those epochs; None if it diverged."""

    key: str
    epochs: int
    quality: float | None


@dataclass(frozen=True)
class Halved:
    """What every rung found, in the order of the candidates, and who is left, the best first."""

    rounds: tuple[tuple[Judged, ...], ...]
    finalists: tuple[str, ...]
    seconds: Mapping[str, float]
    """Spent on each candidate, earlier runs that this one went on from included."""

    def rounds_of(self, key: str) -> list[tuple[int, float]]:
        """(epochs, quality) of a candidate at each rung that it took part in and did not fail."""
        found = {
            judged.epochs: judged.quality
            for judgements in self.rounds
            for judged in judgements
            if judged.key == key and judged.quality is not None
        }
        return list(found.items())


@dataclass(frozen=True)
class Watcher:
    """Who is told: after each epoch with the candidate's key, and when one has been judged.

    Either may raise to stop; a later run goes on from there.
    """

    on_epoch: Callable[[str, EpochRecord], None] = field(default=lambda _key, _record: None)
    on_judged: Callable[[Judged], None] = field(default=lambda _judged: None)


def plan_rungs(
    candidates: int,
    finalists: int,
    epochs: int,
    eta: int = 3,
    budget_epochs: int | None = None,
) -> tuple[Rung, ...]:
    """The rungs that lead from so many candidates to the finalists, who get all `epochs`.

    From one rung to the next there are `eta` times as many epochs and one in `eta` of the
    candidates. Within a budget (the epochs of all trainings together) the plan starts with as many
    candidates as it allows, and ends with fewer finalists where even they alone would exceed it:
    see `candidates` of the first and of the last rung.

    Raises UsageError for counts below 1, eta below 2 and a budget too small for one finalist.
    """
    if min(candidates, finalists, epochs) < 1 or eta < 2:
        raise UsageError(
            "successive halving needs candidates, finalists and epochs of 1 or more and eta of 2 "
            f"or more, got {candidates}, {finalists}, {epochs} and {eta}"
        )
    finalists = min(candidates, finalists)
    if budget_epochs is None:
        return _rungs(candidates, finalists, epochs, eta)
    if budget_epochs < epochs:
        raise UsageError(
            f"a budget of {budget_epochs} epochs is too small for one finalist of {epochs} epochs: "
            f"raise the budget, or let finalists have {budget_epochs} epochs or fewer"
        )
    finalists = min(finalists, budget_epochs // epochs)
    for count in range(candidates, finalists, -1):
        rungs = _rungs(count, finalists, epochs, eta)
        if total_epochs(rungs) <= budget_epochs:
            return rungs
    return _rungs(finalists, finalists, epochs, eta)


def total_epochs(rungs: Sequence[Rung]) -> int:
    """What a plan costs at most: early stopping may spare some."""
    before = [0, *(rung.epochs for rung in rungs)]
    return sum(
        rung.candidates * (rung.epochs - done) for rung, done in zip(rungs, before, strict=False)
    )


def survivors(judgements: Sequence[Judged], count: int) -> list[Judged]:
    """The best `count` of them, the best first; of equals those who stand earlier.

    Those who diverged never survive, so there may be fewer.
    """
    ranked = [judged for judged in judgements if judged.quality is not None]
    ranked.sort(key=lambda judged: -math.inf if judged.quality is None else -judged.quality)
    return ranked[:count]


def run_halving(
    contenders: Sequence[Contender],
    rungs: Sequence[Rung],
    config: TrainConfig,
    *,
    folder: Path,
    watcher: Watcher | None = None,
    processes: int = 1,
) -> Halved:
    """Train the candidates rung by rung; the first ones where the plan has room for fewer.

    `config.epochs` is the length of the full training, which the last rung reaches. Each candidate
    has its checkpoint `folder/KEY.pt`: stopped and called again with the same arguments, it goes on
    after the last finished epoch and ends the same. So many `processes` train at a time, which
    changes nothing but the order in which the watcher is told. A network that diverges is left out.
    The test part is not looked at. Raises TrainingError as `Trainers.run` does, DivergedError where
    no candidate is left, and ValueError for rungs that do not fit the configuration.
    """
    if not rungs or rungs[-1].epochs != config.epochs:
        raise ValueError(f"the rungs {rungs} do not end with the {config.epochs} epochs to train")
    watcher = watcher or Watcher()
    by_key = {contender.key: contender for contender in contenders}
    left = list(by_key)
    seconds: dict[str, float] = {}
    rounds: list[tuple[Judged, ...]] = []
    with trainers(processes) as pool:
        for rung in rungs:
            keys = left[: rung.candidates]
            judged: dict[str, Judged] = {}
            tasks = (_task(by_key[key], rung, config, folder) for key in keys)
            for key, outcome in pool.run(tasks, watcher.on_epoch):
                judged[key] = _judged(key, rung, outcome)
                spent = outcome.seconds if isinstance(outcome, TrainResult) else 0.0
                seconds[key] = max(spent, seconds.get(key, 0.0))
                watcher.on_judged(judged[key])
            rounds.append(tuple(judged[key] for key in keys))
            left = [each.key for each in survivors(rounds[-1], len(keys))]
            if not left:
                raise DivergedError(
                    f"none of {len(keys)} networks can be trained: lower the learning rate of "
                    f"{config.learning_rate}"
                )
    return Halved(tuple(rounds), tuple(left), seconds)


def _rungs(candidates: int, finalists: int, epochs: int, eta: int) -> tuple[Rung, ...]:
    counts = [candidates]
    while counts[-1] > finalists:
        counts.append(max(finalists, -(-counts[-1] // eta)))
    rungs: list[Rung] = []
    for reductions, count in zip(range(len(counts) - 1, 0, -1), counts, strict=False):
        until = max(1, round(epochs / eta**reductions))
        # So few epochs cannot be divided further: the next reduction follows at once.
        if not rungs or until > rungs[-1].epochs:
            rungs.append(Rung(until, count))
    return (*rungs, Rung(epochs, finalists))


def _task(
    contender: Contender, rung: Rung, config: TrainConfig, folder: Path
) -> tuple[Training, Split]:
    checkpoint = folder / f"{contender.key}.pt"
    training = Training(contender.key, contender.build, config, checkpoint, rung.epochs)
    return training, contender.data()


def _judged(key: str, rung: Rung, outcome: Outcome) -> Judged:
    quality = None
    if isinstance(outcome, TrainResult):
        quality = outcome.best_until(rung.epochs).quality
    return Judged(key, rung.epochs, quality)
