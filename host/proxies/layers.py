"""Finds in any torch module the layers that proxies look at."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from host.network.torch_module import modes_kept

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

WeightLayer = nn.Conv1d | nn.Conv2d | nn.Linear
_WEIGHT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


def weight_layers(module: nn.Module) -> list[WeightLayer]:
    """Convolutions and matrix products, in the order in which they were made."""
    return [layer for layer in module.modules() if isinstance(layer, _WEIGHT_LAYERS)]


def activations(module: nn.Module) -> list[nn.Module]:
    """Activation layers that have on/off codes."""
    return [layer for layer in module.modules() if isinstance(layer, ACTIVATIONS)]


def normalisations(module: nn.Module) -> list[_BatchNorm]:
    """Batch normalisations."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def normalised_layers(module: nn.Module) -> list[nn.Module]:
    """Each weight layer together with its normalisation, where one container holds both."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for layer in module.modules():
        if isinstance(layer, nn.Sequential) and len(layer) and isinstance(layer[0], _WEIGHT_LAYERS):
            if all(isinstance(each, _BatchNorm) for each in list(layer)[1:]):
                found.append(layer)
                inside.add(layer[0])
        elif isinstance(layer, _WEIGHT_LAYERS) and layer not in inside:
            found.append(layer)
    return found


@contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Puts modes, buffers and the need of gradients back at the end; weights are not its matter.

    Inside, layers that draw numbers (dropout) start from one fixed state.
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    trainable = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        with modes_kept(module), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        for parameter, required in trainable.items():
            parameter.requires_grad_(required)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
