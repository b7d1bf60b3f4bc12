"""Norms and saliencies of the weights, from the gradient of the cross-entropy.

Abdelfattah et al. 2021 (arXiv:2101.08134) collects them: snip of Lee et al. 2019
(arXiv:1810.02340), grasp of Wang et al. 2020 (arXiv:2002.07376), fisher of Turner et al. 2020
(arXiv:1906.04113).
"""

import copy

import torch
from torch import nn
from torch.nn import functional

from benchmarks.proxies.naive.modules import (
    WEIGHTED,
    gradients_of,
    outputs_recorded,
    running_statistics_kept,
    weights_of,
)


def l2_norm(module: nn.Module, _images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Sum over weight tensors of ||w||."""
    return sum(float(weight.detach().norm()) for weight in weights_of(module))


def grad_norm(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over weight tensors of ||dL/dw||."""
    with running_statistics_kept(module):
        loss = functional.cross_entropy(module(images), labels)
        gradients = gradients_of(loss, weights_of(module))
    return sum(float(gradient.norm()) for gradient in gradients)


def plain(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over weights of w dL/dw."""
    weights = weights_of(module)
    with running_statistics_kept(module):
        loss = functional.cross_entropy(module(images), labels)
        gradients = gradients_of(loss, weights)
    return sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True))


def snip(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over weights of |w dL/dw|."""
    weights = weights_of(module)
    with running_statistics_kept(module):
        loss = functional.cross_entropy(module(images), labels)
        gradients = gradients_of(loss, weights)
    return sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True))


def grasp(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Minus the sum over weights of w (H g), with the Hessian H of the loss.

    H g is the derivative of g . c at the constant c = g.
    """
    copied = _twice_differentiable_copy(module)
    weights = weights_of(copied)
    loss = functional.cross_entropy(copied(images), labels)
    gradients = torch.autograd.grad(
        loss, weights, create_graph=True, allow_unused=True, materialize_grads=True
    )
    product = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
    curved = gradients_of(product, weights)
    return -sum(float((w.detach() * h).sum()) for w, h in zip(weights, curved, strict=True))


class _HardSigmoid(nn.Module):
    """As torch's, whose gradient cannot be differentiated again."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return functional.relu6(features + 3.0) / 6.0


def _twice_differentiable_copy(module: nn.Module) -> nn.Module:
    copied = copy.deepcopy(module)
    for layer in list(copied.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.Hardsigmoid):
                setattr(layer, name, _HardSigmoid())
    return copied


def fisher(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over channels of 0.5 * mean over images of (sum over positions of a dL/da)^2.

    a is what each convolution and matrix product writes, before any normalisation.
    """
    with running_statistics_kept(module), outputs_recorded(module, WEIGHTED) as outputs:
        loss = functional.cross_entropy(module(images), labels)
        gradients = gradients_of(loss, outputs)
    score = 0.0
    for output, gradient in zip(outputs, gradients, strict=True):
        per_channel = (output.detach() * gradient).reshape(*output.shape[:2], -1).sum(dim=2)
        score += float(0.5 * per_channel.square().mean(dim=0).sum())
    return score
