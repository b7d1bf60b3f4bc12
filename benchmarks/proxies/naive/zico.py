"""How steady the gradients are from one half of the batch to the other.

Li et al. 2023 (ZiCo, arXiv:2301.11300).
"""

import math

import torch
from torch import nn
from torch.nn import functional

from benchmarks.proxies.naive.modules import gradients_of, running_statistics_kept, weights_of


def zico(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over weight tensors of log(sum over weights of mean |g| / std |g|).

    Mean and population standard deviation are over the two halves' gradients; weights of no
    deviation are left out, and tensors with no other.
    """
    weights = weights_of(module)
    half = len(images) // 2
    with running_statistics_kept(module):
        logits = module(images)
        first = functional.cross_entropy(logits[:half], labels[:half])
        second = functional.cross_entropy(logits[half:], labels[half:])
        firsts = gradients_of(first, weights, keep_graph=True)
        seconds = gradients_of(second, weights)
    score = 0.0
    for gradients in zip(firsts, seconds, strict=True):
        magnitudes = torch.stack(gradients).abs()
        mean, deviation = magnitudes.mean(dim=0), magnitudes.std(dim=0, correction=0)
        varying = deviation > 0
        if bool(varying.any()):
            score += math.log(float((mean[varying] / deviation[varying]).sum()))
    return score
