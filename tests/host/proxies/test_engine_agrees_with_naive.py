"""The shared engine gives what separate passes give, proxy by proxy, on networks of our spaces."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch

from benchmarks.proxies.naive.catalogue import NAIVE
from benchmarks.proxies.naive.features import az_trainability
from benchmarks.proxies.naive.gaussian import zen
from host.network.graph import Network
from host.proxies.catalogue import PROXIES
from host.proxies.engine import score, score_module
from host.spaces.base import Task
from host.spaces.mobile import Mobile
from host.spaces.nasbench201 import NasBench201
from tests.host.proxies.implementations import SEED, module_as_scored

pytestmark = pytest.mark.usefixtures("one_thread")

TASK = Task(channels=3, classes=5)
IMAGES = 12
CELLS = {
    "all 3x3": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    "|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "mixed": "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+"
    "|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    "poolings": "|avg_pool_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|avg_pool_3x3~2|",
    "skip": "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
}
MOBILES = {
    "relu": "r32 w0.25 relu stem2 head320 | k3e1d1 | k3e3d2 | k5e3d1 | k3e1d1 | k3e3d1",
    "relu6": "r32 w0.25 relu6 stem4 head320 | k3e3d1se | k7e3d1 | k3e3d1se | k3e1d1 | k3e1d2",
    "hard_swish": "r32 w0.35 hard_swish stem2 head0 | k3e3d1 | k3e1d2se | k3e3d1 | k3e3d1 | k3e1d1",
}
NETWORKS = [*(("nasbench201", cell) for cell in CELLS), *(("mobile", name) for name in MOBILES)]
_RANDOM = {"zen", "az_trainability"}
_ROUNDING = {"zico": 1e-2}
"""Relative, in float32: `zico` sums inverses of differences, so rounding moves the largest."""
_CANCELLING = {"plain": 1e-6, "grasp": 1e-6}
"""Absolute, in float32, for sums whose terms cancel behind a normalisation."""


CASES = [
    pytest.param(which, name, id=f"{name}, {which[0]}: {which[1]}")
    for which in NETWORKS
    for name in NAIVE
    if name not in _RANDOM
]


@cache
def network_of(which: tuple[str, str]) -> Network:
    space, name = which
    if space == "nasbench201":
        cells = NasBench201(resolution=16, width=4, cells=1)
        return cells.build(cells.parse(CELLS[name]), TASK)
    mobile = Mobile()
    return mobile.build(mobile.parse(MOBILES[name]), TASK)


def batch_for(network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    images = torch.randn(IMAGES, *network.input_shape, generator=generator)
    return images, torch.randint(0, TASK.classes, (IMAGES,), generator=generator)


@cache
def scores_of_one_call(which: tuple[str, str]) -> dict[str, float]:
    network = network_of(which)
    images, labels = batch_for(network)
    return score(network, tuple(PROXIES.values()), batch=images, seed=SEED, labels=labels)


def test_there_is_a_naive_implementation_of_every_proxy() -> None:
    assert set(NAIVE) == set(PROXIES)


@pytest.mark.parametrize(("which", "name"), CASES)
def test_the_engine_computes_what_the_naive_function_does(
    which: tuple[str, str], name: str
) -> None:
    images, labels = batch_for(network_of(which))
    images = images.double()
    module = module_as_scored(network_of(which)).double()

    expected = NAIVE[name](module, images, labels)

    value = score_module(module, (PROXIES[name],), batch=images, seed=SEED, labels=labels)[name]
    assert value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("which", "name"), CASES)
def test_one_call_for_all_proxies_agrees_with_the_naive_scores_but_for_rounding(
    which: tuple[str, str], name: str
) -> None:
    images, labels = batch_for(network_of(which))

    expected = NAIVE[name](module_as_scored(network_of(which)), images, labels)

    value = scores_of_one_call(which)[name]
    assert value == pytest.approx(
        expected, rel=_ROUNDING.get(name, 1e-3), abs=_CANCELLING.get(name, 0.0)
    )


def standard_errors_apart(left: Sequence[float], right: Sequence[float]) -> float:
    """Welch's t of the difference of two means."""
    error = math.hypot(*(np.std(each, ddof=1) / math.sqrt(len(each)) for each in (left, right)))
    return abs(float(np.mean(left) - np.mean(right))) / error


def draws(value: Callable[[torch.Generator], float], count: int) -> list[float]:
    return [value(torch.Generator().manual_seed(seed)) for seed in range(count)]


@pytest.mark.parametrize("which", NETWORKS, ids=": ".join)
def test_zen_has_the_mean_of_the_naive_draws(which: tuple[str, str]) -> None:
    network = network_of(which)
    images, labels = batch_for(network)
    module = module_as_scored(network)

    expected = draws(lambda generator: zen(module, images, labels, generator), 20)

    values = [
        score(network, (PROXIES["zen"],), batch=images, seed=seed)["zen"] for seed in range(20)
    ]
    assert standard_errors_apart(values, expected) < 4.0


@pytest.mark.parametrize("which", NETWORKS, ids=": ".join)
def test_trainability_has_the_mean_of_the_naive_draws(which: tuple[str, str]) -> None:
    network = network_of(which)
    images, labels = batch_for(network)
    module = module_as_scored(network)
    proxy = PROXIES["az_trainability"]

    expected = draws(lambda generator: az_trainability(module, images, labels, generator), 20)

    values = [
        score_module(module, (proxy,), batch=images, seed=seed)[proxy.name] for seed in range(20)
    ]
    assert standard_errors_apart(values, expected) < 4.0
