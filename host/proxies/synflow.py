"""How much signal flows through the untrained network, whatever the data.

Formula: every parameter is replaced by its magnitude, normalisations are bypassed, the input is
one image of ones, R is the sum of the logits; the score is
log(sum over weights of convolutions and matrix products of weight * dR/dweight), in float64: the
sum itself overflows float32 on networks of ordinary depth. On this positive signal ReLU is the
identity; so that networks with other activations compare with it, every activation is taken as the
identity (ReLU6 would cut the signal off). Gates (sigmoids) are kept.
Source: Tanaka et al. 2020 (arXiv:2006.05467); Abdelfattah et al. 2021 (arXiv:2101.08134).
Direction: higher is better. Cost: backward, of a single image.
"""

import copy
import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from host.proxies.base import ACTIVATIONS, Evidence, Proxy


def synflow(evidence: Evidence) -> float:
    """The score; -inf where no signal arrives."""
    if evidence.module is None:
        return math.nan
    # The copy keeps the caller's weights, precision and hooks as they are.
    module = copy.deepcopy(evidence.module).double().eval().requires_grad_(requires_grad=False)
    weights: list[torch.Tensor] = []
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    for layer in module.modules():
        if isinstance(layer, (_BatchNorm, *ACTIVATIONS)):
            layer.register_forward_hook(_pass_input_on)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            weights.append(layer.weight.requires_grad_())
    image = torch.ones(1, *evidence.network.input_shape, dtype=torch.float64)
    with torch.enable_grad():
        flow = module(image).sum()
    # A weight that the logits do not depend on adds nothing.
    gradients = torch.autograd.grad(flow, weights, allow_unused=True, materialize_grads=True)
    total = 0.0
    for weight, gradient in zip(weights, gradients, strict=True):
        total += float((weight.detach() * gradient).sum())
    return math.log(total) if total > 0.0 else -math.inf


def _pass_input_on(
    _layer: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object
) -> torch.Tensor:
    return inputs[0]


SYNFLOW = Proxy(
    "synflow",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs="module",
    compute=synflow,
)
