"""The naive implementations leave no trace on a module, and draw from their generator alone."""

from collections.abc import Callable

import pytest
import torch

from benchmarks.proxies.naive.catalogue import NAIVE
from benchmarks.proxies.naive.features import az_trainability
from benchmarks.proxies.naive.gaussian import zen
from host.network.torch_module import NetworkModule
from host.spaces.base import Task
from host.spaces.nasbench201 import NasBench201
from tests.host.proxies.implementations import module_as_scored

pytestmark = pytest.mark.usefixtures("one_thread")

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
LABELS = torch.tensor([0, 1, 1, 0])


@pytest.fixture
def module() -> NetworkModule:
    space = NasBench201(resolution=8, width=4, cells=1)
    return module_as_scored(space.build(space.parse(CELL), Task(channels=3, classes=2)))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_proxy_leaves_module_images_and_random_state_as_they_were(
    module: NetworkModule, images: torch.Tensor, name: str
) -> None:
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.get_rng_state()
    copy = images.clone()

    NAIVE[name](module, images, LABELS)

    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(layer.training for layer in module.modules())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert not any(layer._forward_hooks for layer in module.modules())
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, copy)
    assert not images.requires_grad


@pytest.mark.parametrize("proxy", [zen, az_trainability])
def test_what_is_random_is_drawn_from_the_generator(
    module: NetworkModule, images: torch.Tensor, proxy: Callable[..., float]
) -> None:
    def draw(seed: int) -> float:
        return proxy(module, images, LABELS, torch.Generator().manual_seed(seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
