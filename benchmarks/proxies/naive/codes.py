"""On/off codes of the activation units over the images of a batch.

naswot: Mellor et al. 2021 (arXiv:2006.04647v3). linear_regions: Hanin and Rolnick 2019
(arXiv:1901.09021). swap: Peng et al. 2024 (arXiv:2403.04161).
"""

import torch
from torch import nn

from benchmarks.proxies.naive.modules import RECTIFIERS, inputs_recorded, running_statistics_kept

_SWAP_IMAGES = 63


@torch.no_grad()
def naswot(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """log |det K|, K counting the units whose codes agree for two images."""
    with running_statistics_kept(module), inputs_recorded(module, RECTIFIERS) as inputs:
        module(images)
    codes = torch.cat([(features > 0).flatten(1) for features in inputs], dim=1).float()
    agreeing = codes @ codes.T + (1.0 - codes) @ (1.0 - codes).T
    return float(torch.linalg.slogdet(agreeing.double()).logabsdet)


@torch.no_grad()
def linear_regions(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Mean over pairs of images of the number of units whose codes differ."""
    with running_statistics_kept(module), inputs_recorded(module, RECTIFIERS) as inputs:
        module(images)
    codes = torch.cat([(features > 0).flatten(1) for features in inputs], dim=1).float()
    # Counts above the diagonal: each pair of images once.
    differing = (codes @ (1.0 - codes).T + (1.0 - codes) @ codes.T).triu(diagonal=1)
    return float(differing.double().sum()) / (len(images) * (len(images) - 1) / 2)


@torch.no_grad()
def swap(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Number of distinct patterns: a unit's pattern is its code over the first 63 images."""
    with running_statistics_kept(module), inputs_recorded(module, RECTIFIERS) as inputs:
        module(images)
    codes = torch.cat([(features > 0).flatten(1) for features in inputs], dim=1)
    return float(len(torch.unique(codes[:_SWAP_IMAGES].T, dim=0)))
