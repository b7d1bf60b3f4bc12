"""How much the features of a network of Gaussian weights move with the input.

Lin et al. 2021 (Zen-NAS, arXiv:2102.01063).
"""

import copy
import math

import torch
from torch import nn

from benchmarks.proxies.naive.modules import NORMALISATIONS, inputs_recorded, weights_of

_NOISE = 0.01
_EPSILON = 1e-5


@torch.no_grad()
def zen(
    module: nn.Module,
    images: torch.Tensor,
    _labels: torch.Tensor,
    generator: torch.Generator | None = None,
) -> float:
    """log mean |phi(x) - phi(x + 0.01 noise)| plus the logs of the scales that norms take out.

    phi is what the last global pooling reads; x, the noise and the weights are N(0, 1). A
    normalisation takes out sqrt(mean over channels of the batch's variance + 1e-5).
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    network = copy.deepcopy(module)
    for weight in weights_of(network):
        weight.normal_(generator=generator)
    x = torch.randn(images.shape, generator=generator)
    moved = x + _NOISE * torch.randn(images.shape, generator=generator)
    with (
        inputs_recorded(network, (nn.AdaptiveAvgPool2d,)) as pooled,
        inputs_recorded(network, NORMALISATIONS) as normalised,
    ):
        network(x)
    with inputs_recorded(network, (nn.AdaptiveAvgPool2d,)) as pooled_moved:
        network(moved)
    score = math.log(float((pooled[-1] - pooled_moved[-1]).abs().mean()))
    for features in normalised:
        variance = features.var(dim=(0, 2, 3), correction=0).mean()
        score += math.log(math.sqrt(float(variance) + _EPSILON))
    return score
