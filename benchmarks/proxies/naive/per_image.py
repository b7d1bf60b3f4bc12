"""Proxies of per-image gradients: one forward and backward pass for each image.

gradsign: Zhang and Jia 2022 (arXiv:2110.08616). ntk_condition: Chen et al. 2021 (TE-NAS,
arXiv:2102.11535). vkdnw: Tybl and Neumann 2025 (arXiv:2502.04975).
"""

import math

import torch
from torch import nn
from torch.nn import functional

from benchmarks.proxies.naive.modules import gradients_of, statistics_of_batch_fixed, weights_of


def gradsign(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over weights of |sum over images of the sign of the image's gradient|."""
    weights = weights_of(module)
    signs = [torch.zeros_like(weight) for weight in weights]
    with statistics_of_batch_fixed(module, images):
        for image, label in zip(torch.split(images, 1), torch.split(labels, 1), strict=True):
            loss = functional.cross_entropy(module(image), label)
            for total, gradient in zip(signs, gradients_of(loss, weights), strict=True):
                total.add_(gradient.sign())
    return sum(float(total.abs().sum()) for total in signs)


def ntk_condition(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Largest over smallest eigenvalue of the Gram matrix of the summed logits' gradients."""
    weights = weights_of(module)
    rows: list[torch.Tensor] = []
    with statistics_of_batch_fixed(module, images):
        for image in torch.split(images, 1):
            gradients = gradients_of(module(image).sum(), weights)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows).double()
    values = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    smallest, largest = float(values[0]), float(values[-1])
    return largest / smallest if smallest > 0.0 else math.inf


def vkdnw(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Weight layers plus the entropy of the normalised deciles of the Fisher matrix's spectrum.

    The Fisher matrix is that of the softmax output in one weight of each layer, its first.
    """
    weights = weights_of(module)
    fisher = torch.zeros(len(weights), len(weights), dtype=torch.float64)
    with statistics_of_batch_fixed(module, images):
        for image in torch.split(images, 1):
            logits = module(image)[0]
            jacobian = torch.stack([_first_elements(logit, weights) for logit in logits]).double()
            p = logits.detach().double().softmax(dim=0)
            fisher += jacobian.T @ (p.diag() - p.outer(p)) @ jacobian / len(images)
    # Semi-definite: what rounding takes below zero is zero.
    values = torch.linalg.eigvalsh(fisher).clamp(min=0.0)
    deciles = values.quantile(torch.arange(1, 10, dtype=torch.float64) / 10.0)
    shares = deciles / deciles.sum()
    return len(weights) - float(torch.xlogy(shares, shares).sum())


def _first_elements(logit: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    gradients = gradients_of(logit, weights, keep_graph=True)
    return torch.stack([gradient.flatten()[0] for gradient in gradients])
