"""Successive halving: what is planned, who survives, and that nothing is trained twice."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from host.data.split import Split
from host.errors import UsageError
from host.training.errors import DivergedError
from host.training.halving import (
    Contender,
    Judged,
    Rung,
    Watcher,
    plan_rungs,
    run_halving,
    survivors,
    total_epochs,
)
from host.training.history import EpochRecord
from host.training.train import TrainConfig, train

CONFIG = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, patience=9, threads=1)


def rungs_of(*pairs: tuple[int, int]) -> tuple[Rung, ...]:
    return tuple(Rung(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("arguments", "planned", "total"),
    [
        ((9, 1, 27), [(3, 9), (9, 3), (27, 1)], 27 + 18 + 18),
        ((9, 3, 27), [(9, 9), (27, 3)], 81 + 54),
        ((8, 2, 27), [(3, 8), (9, 3), (27, 2)], 24 + 18 + 36),
        ((6, 2, 27), [(9, 6), (27, 2)], 54 + 36),
        ((4, 1, 8, 2), [(2, 4), (4, 2), (8, 1)], 8 + 4 + 4),
        ((3, 3, 10), [(10, 3)], 30),
        ((2, 5, 10), [(10, 2)], 20),
        ((27, 1, 3), [(1, 27), (3, 1)], 27 + 2),
        ((9, 2, 1), [(1, 9), (1, 2)], 9),
        ((1, 1, 1), [(1, 1)], 1),
    ],
)
def test_plans_of_rungs_and_what_they_cost(
    arguments: tuple[int, ...], planned: list[tuple[int, int]], total: int
) -> None:
    rungs = plan_rungs(*arguments)

    assert rungs == rungs_of(*planned)
    assert total_epochs(rungs) == total


@given(
    candidates=st.integers(1, 40),
    finalists=st.integers(1, 10),
    epochs=st.integers(1, 60),
    eta=st.integers(2, 5),
    spare=st.none() | st.integers(0, 500),
)
def test_a_plan_keeps_to_its_budget_and_trains_finalists_to_the_end(
    candidates: int, finalists: int, epochs: int, eta: int, spare: int | None
) -> None:
    budget = None if spare is None else epochs + spare

    rungs = plan_rungs(candidates, finalists, epochs, eta, budget)

    assert rungs[-1].epochs == epochs
    assert 1 <= rungs[-1].candidates <= min(finalists, candidates)
    assert rungs[0].candidates <= candidates
    for earlier, later in itertools.pairwise(rungs):
        assert 1 <= earlier.epochs <= later.epochs
        assert earlier.candidates > later.candidates
    if budget is None:
        assert (rungs[0].candidates, rungs[-1].candidates) == (
            candidates,
            min(finalists, candidates),
        )
        return
    assert total_epochs(rungs) <= budget
    if rungs[0].candidates < candidates:
        kept = rungs[-1].candidates
        assert (kept + 1) * epochs > budget or kept == finalists
        more = plan_rungs(rungs[0].candidates + 1, kept, epochs, eta)
        assert total_epochs(more) > budget


def test_a_budget_that_one_finalist_exceeds_is_refused() -> None:
    with pytest.raises(UsageError, match="26 epochs is too small for one finalist of 27 epochs"):
        plan_rungs(9, 1, 27, budget_epochs=26)

    assert plan_rungs(9, 3, 27, budget_epochs=27) == rungs_of((27, 1))
    assert plan_rungs(9, 3, 27, budget_epochs=100)[-1] == Rung(27, 3)


@pytest.mark.parametrize("arguments", [(0, 1, 9), (9, 0, 9), (9, 1, 0), (9, 1, 9, 1)])
def test_counts_that_cannot_be_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="1 or more and eta of 2 or more"):
        plan_rungs(*arguments)


def test_of_equals_those_survive_who_stand_earlier_and_never_the_diverged() -> None:
    judgements = [
        Judged("a", 3, 0.8),
        Judged("b", 3, None),
        Judged("c", 3, 0.9),
        Judged("d", 3, 0.8),
        Judged("e", 3, 0.9),
    ]

    assert [judged.key for judged in survivors(judgements, 3)] == ["c", "e", "a"]
    assert [judged.key for judged in survivors(judgements, 9)] == ["c", "e", "a", "d"]


def module(seed: int) -> nn.Module:
    """Those of a higher seed see less of the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.MaxPool2d(1 + seed),
            nn.Conv2d(1, 4, 3, bias=False, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        )


def contenders(data: Split, count: int = 5) -> list[Contender]:
    return [Contender(f"n{seed}", partial(module, seed), lambda: data) for seed in range(count)]


class Killed(Exception):  # noqa: N818  it stands for a signal
    """Stands for the end of the process."""


def watcher(
    epochs: list[tuple[str, int]], judged: list[Judged], kill_after: int | None = None
) -> Watcher:
    """Writes down what it is told; ends the process after so many epochs."""

    def on_epoch(key: str, record: EpochRecord) -> None:
        epochs.append((key, record.epoch))
        if len(epochs) == kill_after:
            raise Killed

    return Watcher(on_epoch, judged.append)


RUNGS = rungs_of((1, 5), (2, 3), (4, 1))


def test_no_epoch_is_trained_twice_and_the_winner_is_trained_as_if_alone(
    data: Split, tmp_path: Path
) -> None:
    epochs: list[tuple[str, int]] = []
    judged: list[Judged] = []

    halved = run_halving(
        contenders(data), RUNGS, CONFIG, folder=tmp_path, watcher=watcher(epochs, judged)
    )

    assert len(epochs) == len(set(epochs)) == total_epochs(RUNGS)
    assert [each for found in halved.rounds for each in found] == judged
    assert [len(found) for found in halved.rounds] == [5, 3, 1]
    for found, following in itertools.pairwise(halved.rounds):
        best = [each.key for each in survivors(found, len(following))]
        assert [each.key for each in following] == best
    (winner,) = halved.finalists
    alone = train(module(int(winner[1])), data, CONFIG, checkpoint=tmp_path / "alone.pt")
    in_halving = train(module(int(winner[1])), data, CONFIG, checkpoint=tmp_path / f"{winner}.pt")
    assert [replace(record, seconds=0) for record in in_halving.history] == [
        replace(record, seconds=0) for record in alone.history
    ]
    assert halved.rounds_of(winner) == [(n, alone.best_until(n).quality) for n in (1, 2, 4)]
    assert halved.seconds[winner] == in_halving.seconds
    assert set(halved.seconds) == {"n0", "n1", "n2", "n3", "n4"}


@pytest.mark.parametrize("kill_after", [1, 5, 7, 9])
def test_stopped_anywhere_it_goes_on_and_ends_the_same(
    data: Split, tmp_path: Path, kill_after: int
) -> None:
    whole = run_halving(contenders(data), RUNGS, CONFIG, folder=tmp_path / "a")
    before: list[tuple[str, int]] = []
    after: list[tuple[str, int]] = []
    with pytest.raises(Killed):
        run_halving(
            contenders(data),
            RUNGS,
            CONFIG,
            folder=tmp_path / "b",
            watcher=watcher(before, [], kill_after),
        )

    halved = run_halving(
        contenders(data), RUNGS, CONFIG, folder=tmp_path / "b", watcher=watcher(after, [])
    )

    assert halved.rounds == whole.rounds
    assert halved.finalists == whole.finalists
    assert len(before) + len(after) == len({*before, *after}) == total_epochs(RUNGS)


def test_a_plan_with_room_for_fewer_trains_the_first(data: Split, tmp_path: Path) -> None:
    halved = run_halving(contenders(data), rungs_of((1, 2), (4, 1)), CONFIG, folder=tmp_path)

    assert [each.key for each in halved.rounds[0]] == ["n0", "n1"]


def test_the_last_round_ranks_the_finalists(data: Split, tmp_path: Path) -> None:
    halved = run_halving(contenders(data, 3), rungs_of((4, 3)), CONFIG, folder=tmp_path)

    qualities = {each.key: each.quality for each in halved.rounds[-1]}
    assert len(halved.finalists) == 3
    ranked = [qualities[key] for key in halved.finalists]
    assert ranked == sorted(ranked, key=lambda quality: -(quality or 0.0))


def infinite(seed: int) -> nn.Module:
    broken = module(seed)
    nn.init.constant_(broken.get_parameter("6.weight"), torch.inf)
    return broken


def test_what_diverges_is_left_out(data: Split, tmp_path: Path) -> None:
    both = [Contender("broken", partial(infinite, 0), lambda: data), *contenders(data, 2)]

    halved = run_halving(both, rungs_of((1, 3), (4, 2)), CONFIG, folder=tmp_path)

    assert halved.rounds[0][0] == Judged("broken", 1, None)
    assert set(halved.finalists) == {"n0", "n1"}
    assert halved.rounds_of("broken") == []
    assert halved.seconds["broken"] == 0.0


def test_where_all_diverge_it_says_so(data: Split, tmp_path: Path) -> None:
    broken = [Contender("broken", partial(infinite, 0), lambda: data)]

    with pytest.raises(DivergedError, match="none of 1 networks can be trained: lower"):
        run_halving(broken, rungs_of((4, 1)), CONFIG, folder=tmp_path)


def test_the_test_part_is_not_looked_at_by_any_rung(data: Split, tmp_path: Path) -> None:
    poisoned = replace(data, test=replace(data.test, inputs=np.zeros((0, 0), np.uint8)))

    found = [
        run_halving(contenders(each, 2), rungs_of((1, 2), (4, 1)), CONFIG, folder=tmp_path / name)
        for name, each in (("a", data), ("b", poisoned))
    ]

    assert found[0].rounds == found[1].rounds


def test_rungs_that_do_not_reach_the_end_are_an_error_of_the_caller(
    data: Split, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="do not end with the 4 epochs"):
        run_halving(contenders(data), rungs_of((3, 1)), CONFIG, folder=tmp_path)


def test_data_are_asked_for_only_when_a_contender_is_trained(data: Split, tmp_path: Path) -> None:
    asked: list[str] = []

    def asking(key: str) -> Callable[[], Split]:
        def give() -> Split:
            asked.append(key)
            return data

        return give

    both = [Contender(f"n{n}", partial(module, n), asking(f"n{n}")) for n in range(3)]

    run_halving(both, rungs_of((1, 2), (4, 1)), CONFIG, folder=tmp_path)

    assert "n2" not in asked
    assert asked[:2] == ["n0", "n1"]
