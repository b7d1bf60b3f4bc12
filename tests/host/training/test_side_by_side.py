"""Trainings in several processes: the same results, stopped and failing in every way."""

import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from host.data.split import Split
from host.network.graph import Conv, GlobalPool, Linear, Network, NetworkBuilder
from host.network.torch_module import build_module
from host.training.errors import TrainingError
from host.training.halving import Contender, Judged, Rung, Watcher, run_halving, total_epochs
from host.training.history import EpochRecord
from host.training.side_by_side import Diverged, Trainers, Training, trainers
from host.training.train import TrainConfig, TrainResult, train

CONFIG = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, patience=9)
RUNGS = (Rung(1, 5), Rung(2, 3), Rung(4, 1))


def network(channels: int) -> Network:
    builder = NetworkBuilder((1, 16, 16))
    index = builder.conv(0, Conv(channels, kernel=3, stride=2), "relu")
    return builder.build(builder.add(Linear(2), builder.add(GlobalPool(), index)))


def contenders(data: Split, count: int) -> list[Contender]:
    return [
        Contender(f"n{n}", partial(build_module, network(n + 2), seed=n), lambda: data)
        for n in range(count)
    ]


def training(folder: Path, key: str = "n0", **changes: object) -> Training:
    build = partial(build_module, network(2), seed=0)
    values = {"build": build, "config": CONFIG, "checkpoint": folder / f"{key}.pt", "until": 4}
    return Training(key=key, **(values | changes))  # type: ignore[arg-type]


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


@pytest.fixture
def two() -> Iterator[Trainers]:
    with trainers(2) as made:
        yield made


def silent(key: str, record: EpochRecord) -> None:
    pass


def test_several_processes_find_the_same(data: Split, tmp_path: Path) -> None:
    alone = run_halving(contenders(data, 5), RUNGS, CONFIG, folder=tmp_path / "a")
    epochs: list[tuple[str, int]] = []
    judged: list[Judged] = []

    halved = run_halving(
        contenders(data, 5),
        RUNGS,
        CONFIG,
        folder=tmp_path / "b",
        watcher=watcher(epochs, judged),
        processes=2,
    )

    assert halved.rounds == alone.rounds
    assert halved.finalists == alone.finalists
    assert len(epochs) == len(set(epochs)) == total_epochs(RUNGS)
    assert sorted(judged, key=str) == sorted((j for found in alone.rounds for j in found), key=str)
    assert halved.seconds.keys() == alone.seconds.keys()
    for key in halved.finalists:
        states = [
            torch.load(tmp_path / folder / f"{key}.pt", weights_only=True)["best"]
            for folder in ("a", "b")
        ]
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name])


def test_several_processes_are_stopped_and_go_on(data: Split, tmp_path: Path) -> None:
    whole = run_halving(contenders(data, 5), RUNGS, CONFIG, folder=tmp_path / "a")
    with pytest.raises(Killed):
        run_halving(
            contenders(data, 5),
            RUNGS,
            CONFIG,
            folder=tmp_path / "b",
            watcher=watcher([], [], kill_after=6),
            processes=2,
        )

    halved = run_halving(contenders(data, 5), RUNGS, CONFIG, folder=tmp_path / "b", processes=2)

    assert halved.rounds == whole.rounds
    assert multiprocessing.active_children() == []


def test_what_a_process_trains_is_what_this_one_would(
    data: Split, tmp_path: Path, two: Trainers
) -> None:
    module = build_module(network(2), seed=0)
    here = train(module, data, CONFIG, checkpoint=tmp_path / "here.pt")

    ((key, there),) = two.run([(training(tmp_path), data)], silent)

    assert key == "n0"
    assert isinstance(there, TrainResult)
    assert [record.merit for record in there.history] == [record.merit for record in here.history]
    best = torch.load(tmp_path / "n0.pt", weights_only=True)["best"]
    for name, value in module.state_dict().items():
        assert torch.equal(best[name], value)


def test_a_divergence_is_an_outcome(data: Split, tmp_path: Path, two: Trainers) -> None:
    hot = TrainConfig(epochs=2, batch_size=8, learning_rate=1e30, warmup_fraction=0.0)
    tasks = [
        (training(tmp_path, "hot", config=hot, until=2), data),
        (training(tmp_path, "cold"), data),
    ]

    found = dict(two.run(tasks, silent))

    assert isinstance(found["hot"], Diverged)
    assert "lower the learning rate of 1e+30" in found["hot"].sentence
    assert isinstance(found["cold"], TrainResult)


def test_a_damaged_checkpoint_is_named(data: Split, tmp_path: Path, two: Trainers) -> None:
    (tmp_path / "n0.pt").write_bytes(b"damaged")

    with pytest.raises(TrainingError, match=r"n0.pt is damaged: remove it"):
        list(two.run([(training(tmp_path), data)], silent))


def test_a_process_that_ends_is_a_sentence(data: Split, tmp_path: Path, two: Trainers) -> None:
    ends = training(tmp_path, build=partial(os._exit, 3))

    with pytest.raises(
        TrainingError, match=r"while it trained n0 \(its exit code was 3\): if memory ran out"
    ):
        list(two.run([(ends, data)], silent))


def test_no_process_is_left_behind(data: Split, tmp_path: Path) -> None:
    with trainers(3) as made:
        for _ in made.run([(training(tmp_path, f"n{n}"), data) for n in range(2)], silent):
            break

    assert multiprocessing.active_children() == []
