"""How far the features of a Gaussian network move when Gaussian images move a little."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from host.proxies.evidence import Perturbation
from host.proxies.layers import left_as_it_was, normalisations, weight_layers

_GLOBAL_POOLINGS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)

STEP = 0.01
"""The scale of the noise that is added to the images."""


def perturbation(
    module: nn.Module, shape: torch.Size, generator: torch.Generator
) -> Perturbation | None:
    """Forward images x ~ N(0, 1) of that shape (N, C, H, W) and x + STEP * noise.

    Weights are taken at the scale of N(0, 1) for the time of the pass, in training mode. Features
    are what the last global pooling reads, or without one the last tensor with more than one
    position. None where the module has neither, or no weights.
    Source: Lin et al. 2021 (arXiv:2102.01063).
    """
    weights = [layer.weight for layer in weight_layers(module)]
    if not weights:
        return None
    still = torch.randn(shape, generator=generator)
    moved = still + STEP * torch.randn(shape, generator=generator)
    with left_as_it_was(module), torch.no_grad(), _scaled_to_one(weights), _statistics_kept(module):
        module.train()
        first = _features(module, _as_the_weights(still, weights[0]))
        variances = tuple(
            float(norm.running_var.mean())
            for norm in normalisations(module)
            if norm.running_var is not None
        )
        second = _features(module, _as_the_weights(moved, weights[0]))
    if first is None or second is None:
        return None
    return Perturbation(float((first - second).abs().mean()), variances)


def _features(module: nn.Module, images: torch.Tensor) -> torch.Tensor | None:
    found: list[torch.Tensor] = []

    def read(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found[:] = [inputs[0]]

    def written(_layer: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim > 2 and output[0, 0].numel() > 1:
            found[:] = [output]

    poolings = [layer for layer in module.modules() if isinstance(layer, _GLOBAL_POOLINGS)]
    leaves = [layer for layer in module.modules() if not list(layer.children())]
    handles = (
        [poolings[-1].register_forward_pre_hook(read)]
        if poolings
        else [leaf.register_forward_hook(written) for leaf in leaves]
    )
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Inside, normalisations keep the variance of the last batch, which they compute anyway."""
    norms = normalisations(module)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def _scaled_to_one(weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """Inside, the root mean square of each weight is 1."""
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.div_(weight.square().mean().sqrt().clamp(min=1e-30))
    try:
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)


def _as_the_weights(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """On their device, in their precision and order of memory."""
    placed = images.to(weight)
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return placed.contiguous(memory_format=torch.channels_last) if last else placed
