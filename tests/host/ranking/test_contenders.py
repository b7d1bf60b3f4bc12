"""What is drawn from a space, and what files are ranked."""

from pathlib import Path

import numpy as np
import pytest

from host.errors import UsageError
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.ranking.contenders import FileModel, drawn, of_files
from host.spaces.base import Task, sample
from host.spaces.mobile import Mobile
from host.spaces.nasbench201 import NasBench201

TASK = Task(channels=3, classes=10)


def nothing(_value: object) -> None:
    """Nobody listens."""


def keys(count: int, seed: int = 0) -> list[str]:
    found = drawn(NasBench201(cells=1), TASK, count, seed=seed, on_drawn=nothing)
    return [one.subject.key for one in found]


def test_a_sample_is_a_function_of_the_seed_and_a_larger_one_begins_with_it() -> None:
    assert keys(8) == keys(20)[:8]
    assert keys(8) != keys(8, seed=1)


def test_no_network_is_drawn_twice() -> None:
    assert len(set(keys(60))) == 60


def test_a_space_with_fewer_networks_gives_all_of_them() -> None:
    space = Mobile(
        {
            "resolution": (32,),
            "width": (0.25,),
            "activation": ("relu",),
            "stem": (2,),
            "head": (0,),
            "kernel": (3,),
            "expansion": (1,),
            "depth": (1, 2),
            "squeeze": (False,),
        }
    )

    found = drawn(space, TASK, 50, seed=0, on_drawn=nothing)

    assert len({one.subject.key for one in found}) == len(found) == 32


def test_drawing_tells_how_far_it_is() -> None:
    told: list[int] = []

    drawn(NasBench201(cells=1), TASK, 5, seed=0, on_drawn=told.append)

    assert told == [1, 2, 3, 4, 5]


def test_a_candidate_has_its_own_counts_and_proxies_see_the_stand_in() -> None:
    space = NasBench201()

    (one,) = drawn(space, TASK, 1, seed=0, on_drawn=nothing)

    network = space.build(space.parse(one.subject.text), TASK)
    assert one.subject.macs == network.macs == one.graph.macs
    assert one.subject.looked_at is not None
    assert one.subject.looked_at.macs < network.macs


def written(folder: Path, name: str, seed: int) -> Path:
    path = folder / name
    space = Mobile({"resolution": (32,), "width": (0.25,)})
    network = space.build(sample(space, np.random.default_rng(seed)), TASK)
    path.write_bytes(onnx_bytes(network, random_weights(network, seed=seed)))
    return path


def test_files_of_one_content_are_ranked_once(tmp_path: Path) -> None:
    files = [written(tmp_path, name, seed) for name, seed in (("a.onnx", 1), ("b.onnx", 2))]
    (tmp_path / "copy.onnx").write_bytes(files[0].read_bytes())
    said: list[str] = []

    found = of_files([*files, tmp_path / "copy.onnx"], said.append)

    assert [one.subject.text for one in found] == ["a.onnx", "b.onnx"]
    assert said == ["copy.onnx has the content of a.onnx: ranked once"]
    assert all(one.graph.macs == one.subject.macs > 0 for one in found)


def test_a_file_that_changes_while_it_is_ranked_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.onnx", 1)
    (one,) = of_files([path], nothing)
    model = one.subject.network
    assert isinstance(model, FileModel)
    written(tmp_path, "a.onnx", 2)

    with pytest.raises(UsageError, match=r"a\.onnx has changed"):
        model.module(0)


def test_weights_of_a_file_are_drawn_from_the_seed(tmp_path: Path) -> None:
    (one,) = of_files([written(tmp_path, "a.onnx", 1)], nothing)
    model = one.subject.network
    assert isinstance(model, FileModel)

    first, same, other = (
        [p.detach().numpy() for p in model.module(seed).parameters()] for seed in (0, 0, 1)
    )

    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
