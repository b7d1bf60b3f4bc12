"""Both implementations of every proxy behind one call."""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.proxies.naive.catalogue import NAIVE
from host.network.graph import Network
from host.network.torch_module import NetworkModule, build_module
from host.proxies.catalogue import proxies_by_name
from host.proxies.engine import score, score_module, weight_seed

SEED = 0
Scored = Callable[[str, nn.Module | Network, torch.Tensor, torch.Tensor], float]
"""The score by proxy name of a module, or of a network with the weights of SEED."""


def module_as_scored(network: Network, seed: int = SEED) -> NetworkModule:
    """The module that the engine builds of a network for that seed."""
    return build_module(network, seed=weight_seed(network.key, seed)).train()


def naive(
    name: str, scored: nn.Module | Network, images: torch.Tensor, labels: torch.Tensor
) -> float:
    module = module_as_scored(scored) if isinstance(scored, Network) else scored.train()
    return NAIVE[name](module, images, labels)


def engine(
    name: str, scored: nn.Module | Network, images: torch.Tensor, labels: torch.Tensor
) -> float:
    proxies = proxies_by_name([name])
    if isinstance(scored, Network):
        return score(scored, proxies, batch=images, seed=SEED, labels=labels)[name]
    return score_module(scored, proxies, batch=images, seed=SEED, labels=labels)[name]


def labels_for(images: torch.Tensor) -> torch.Tensor:
    """Labels for proxies that read none."""
    return torch.zeros(len(images), dtype=torch.int64)
