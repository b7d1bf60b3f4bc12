"""The benchmark of a whole study: what it compares, and what counts as missed."""

from dataclasses import replace

import pytest

from benchmarks.study.__main__ import Fresh, Outcome
from benchmarks.study.rivals import Trained, largest, random_of_size
from host.spaces.base import Task
from host.spaces.resnet_lite import ResNetLite

SPACE = ResNetLite({"resolution": (96,), "width": (16, 32), "depth": (1, 2)})
TASK = Task(channels=1, classes=2)


def test_a_random_rival_is_within_a_tenth_of_the_size_and_within_the_limits() -> None:
    wanted = random_of_size(SPACE, TASK, 60_000, fits=lambda _: True, seed=1)
    other = random_of_size(SPACE, TASK, 60_000, fits=lambda p: p.key != wanted.key, seed=1)

    for proposal in (wanted, other):
        assert 54_000 <= proposal.network.parameters <= 66_000
    assert other.key != wanted.key
    assert largest([wanted, other]).network.parameters == max(
        wanted.network.parameters, other.network.parameters
    )


def test_the_interval_is_that_of_the_mean_of_the_seeds() -> None:
    low, high = Trained("winner", "r96", 1, (0.84, 0.86, 0.88)).interval

    assert (low, high) == pytest.approx((0.86 - 0.0497, 0.86 + 0.0497), abs=1e-4)
    assert Trained("winner", "r96", 1, (0.84,)).interval == (0.0, 1.0)


def test_every_target_that_is_missed_is_named() -> None:
    fresh = Fresh("ab", "onnx-1", "onnx-fp32", 1e-3, 5e7, "OK", ())
    good, worse = Trained("winner", "r96", 1, (0.9,)), Trained("other", "r96", 1, (0.8,))
    held = Outcome(600.0, (fresh,), good, worse, worse)

    assert held.missed() == []
    broken = replace(fresh, broken=("max_latency_ms = 1 on onnx-1, got 0.002",))
    missed = Outcome(3000.0, (broken,), worse, good, good).missed()
    assert missed == [
        "45 minutes",
        "test AUROC of 0.85",
        "better than a random candidate of equal size",
        "better than the largest candidate",
        "onnx-1 onnx-fp32: max_latency_ms = 1 on onnx-1, got 0.002",
    ]
