"""The flow of a signal of ones through the network of its weights' magnitudes."""

import copy

import torch
from torch import nn

from host.proxies.evidence import Flow
from host.proxies.layers import activations, normalisations, weight_layers


@torch.enable_grad()
def flow(module: nn.Module, input_shape: tuple[int, ...]) -> Flow:
    """Derivatives of the summed logits of one image of ones, with respect to each weight.

    Every parameter is replaced by its magnitude and normalisations are bypassed. On this positive
    signal ReLU is the identity; so that networks with other activations compare with it, every
    activation is taken as the identity (ReLU6 would cut the signal off). Gates (sigmoids) are kept.
    In float64: the flow overflows float32 on networks of ordinary depth.
    Source: Tanaka et al. 2020 (arXiv:2006.05467).
    """
    # The copy keeps the caller's weights, precision and hooks as they are.
    module = copy.deepcopy(module).double().eval().requires_grad_(requires_grad=False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    for layer in (*normalisations(module), *activations(module)):
        layer.register_forward_hook(_pass_input_on)
    weights = [layer.weight.requires_grad_() for layer in weight_layers(module)]
    if not weights:
        return Flow((), ())
    image = torch.ones(1, *input_shape, dtype=torch.float64, device=weights[0].device)
    summed = module(image).sum()
    # A weight that the logits do not depend on adds nothing.
    gradients = torch.autograd.grad(summed, weights, allow_unused=True, materialize_grads=True)
    return Flow(tuple(weight.detach() for weight in weights), gradients)


def _pass_input_on(
    _layer: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object
) -> torch.Tensor:
    return inputs[0]
