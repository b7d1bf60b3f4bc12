"""What a proxy is: a number from an untrained network, and what it is computed from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from host.network.graph import Network

Cost = Literal["free", "forward", "backward"]
"""What one score takes: the graph alone, a forward pass, or a forward and a backward pass."""

Need = Literal["network", "activation_codes", "input_gradients", "module"]

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Mish,
)
"""Layers whose units are on above zero and off below; sigmoids are gates and not among them."""


@dataclass(frozen=True)
class Evidence:
    """What the shared pass over a network leaves behind for the proxies to read.

    `input_gradients` has one row per image: the gradient of the summed logits with respect to that
    image. `code_agreement` counts, for each pair of images, the activation units whose on/off codes
    agree. A part that no proxy asked for, or that the network does not have, is None.
    """

    network: Network
    module: nn.Module | None = None
    input_gradients: torch.Tensor | None = None
    code_agreement: torch.Tensor | None = None


@dataclass(frozen=True)
class Proxy:
    """A named way to score an untrained network; scores of two versions are not compared.

    `compute` is a pure function of the evidence named by `needs`; it may return a number that is
    not finite where the network has no score.
    """

    name: str
    version: int
    higher_is_better: bool
    cost: Cost
    needs: Need
    compute: Callable[[Evidence], float]
