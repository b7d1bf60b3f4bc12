"""How much signal flows through the network of magnitudes: no data, no labels.

Tanaka et al. 2020 (arXiv:2006.05467); with the logarithm of the gradient, Cavagnero et al. 2023
(FreeREA, arXiv:2207.05135).
"""

import copy
import math

import torch
from torch import nn

from benchmarks.proxies.naive.modules import NORMALISATIONS, RECTIFIERS, gradients_of, weights_of


def synflow(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """The log of the sum over weights of |w| dR/d|w|, R the sum of the logits on ones."""
    magnitudes = _linear_copy_of_magnitudes(module)
    weights = weights_of(magnitudes)
    flow = magnitudes(torch.ones_like(images[:1], dtype=torch.float64)).sum()
    gradients = gradients_of(flow, weights)
    return _log(sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True)))


def log_synflow(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """The log of the sum over weights of |w| log(1 + dR/d|w|), R the sum of the logits on ones."""
    magnitudes = _linear_copy_of_magnitudes(module)
    weights = weights_of(magnitudes)
    flow = magnitudes(torch.ones_like(images[:1], dtype=torch.float64)).sum()
    gradients = gradients_of(flow, weights)
    return _log(
        sum(float((w.detach() * g.log1p()).sum()) for w, g in zip(weights, gradients, strict=True))
    )


def _linear_copy_of_magnitudes(module: nn.Module) -> nn.Module:
    """In float64, every parameter its magnitude, normalisations and activations the identity."""
    copied = copy.deepcopy(module).double()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.abs_()
    for layer in list(copied.modules()):
        for name, child in layer.named_children():
            if isinstance(child, (*NORMALISATIONS, *RECTIFIERS)):
                setattr(layer, name, nn.Identity())
    return copied


def _log(total: float) -> float:
    return math.log(total) if total > 0.0 else -math.inf
