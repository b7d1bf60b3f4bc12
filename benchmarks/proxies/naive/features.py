"""What layers and blocks write: how independent the channels are, how gradients pass a block.

meco: Jiang et al. 2023 (NeurIPS). az_*: Lee and Ham 2024 (AZ-NAS, arXiv:2403.19232).
Ours: response_variance, after De and Smith 2020 (arXiv:2002.10444), gradient_balance, after Yang et
al. 2019 (arXiv:1902.08129).
"""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from benchmarks.proxies.naive.modules import (
    NORMALISATIONS,
    WEIGHTED,
    block_outputs,
    gradients_of,
    running_statistics_kept,
    weighed_in_turn,
)


@torch.no_grad()
def meco(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Sum over weight layers of the smallest eigenvalue of the channels' correlation matrix.

    The channels are those of the first image's feature map, after the layer's normalisation.
    Layers of one channel or one position are left out; a constant channel correlates with none.
    """
    maps: list[torch.Tensor] = []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, WEIGHTED):
            maps.append(output)
        elif maps and inputs[0] is maps[-1]:
            maps[-1] = output

    kinds = (*WEIGHTED, *NORMALISATIONS)
    handles = [
        layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, kinds)
    ]
    with running_statistics_kept(module):
        module(images)
    for handle in handles:
        handle.remove()
    score = 0.0
    for features in maps:
        channels = features[0].flatten(1) if features.ndim == 4 else features[0][:, None]
        if min(channels.shape) >= 2:
            correlation = torch.corrcoef(channels.double()).nan_to_num(nan=0.0)
            score += float(torch.linalg.eigvalsh(correlation)[0])
    return score


@torch.no_grad()
def az_expressivity(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Sum over blocks of the entropy of the spectrum of their channels' covariance."""
    with running_statistics_kept(module):
        blocks, _ = block_outputs(module, images)
    return sum(_spectral_entropy(block) for block in blocks)


@torch.no_grad()
def az_progressivity(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """The smallest rise of that entropy from a block to the next."""
    with running_statistics_kept(module):
        blocks, _ = block_outputs(module, images)
    entropies = [_spectral_entropy(block) for block in blocks]
    return min(after - before for before, after in pairwise(entropies))


@torch.no_grad()
def response_variance(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """The log of the variance of what the last block writes, over all its elements."""
    with running_statistics_kept(module):
        blocks, _ = block_outputs(module, images)
    return math.log(float(blocks[-1].var(correction=0)))


def gradient_balance(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """-|log(mean square of the summed logits' gradient at the first block / at the last)|."""
    with running_statistics_kept(module):
        blocks, logits = block_outputs(module, images)
        first, last = gradients_of(weighed_in_turn(logits), [blocks[0], blocks[-1]])
    return -abs(math.log(float(first.square().mean() / last.square().mean())))


def az_trainability(
    module: nn.Module,
    images: torch.Tensor,
    _labels: torch.Tensor,
    generator: torch.Generator | None = None,
) -> float:
    """Mean over consecutive blocks of 2 - s - 1 / s, s the spectral norm of the step between.

    The step's channel Jacobian is estimated from what a random gradient of +-1 at the later block
    is at the earlier one.
    """
    with running_statistics_kept(module):
        blocks, _ = block_outputs(module, images)
        return _mean_over_steps(list(pairwise(blocks)), generator)


def _mean_over_steps(
    steps: list[tuple[torch.Tensor, torch.Tensor]], generator: torch.Generator | None
) -> float:
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    values: list[float] = []
    for before, after in steps:
        signs = torch.randint(0, 2, after.shape, generator=generator) * 2.0 - 1.0
        (arriving,) = torch.autograd.grad(after, before, signs, retain_graph=True)
        arriving = functional.adaptive_avg_pool2d(arriving, (after.shape[2], after.shape[3]))
        rows_after = _one_row_a_position(signs).double()
        rows_before = _one_row_a_position(arriving).double()
        jacobian = rows_after.T @ rows_before / len(rows_after)
        norm = float(torch.linalg.matrix_norm(jacobian, ord=2))
        values.append(2.0 - norm - 1.0 / norm)
    return sum(values) / len(values)


def _spectral_entropy(features: torch.Tensor) -> float:
    rows = _one_row_a_position(features).double()
    rows = rows - rows.mean(dim=0)
    values = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0.0)
    shares = values / values.sum()
    return -float(torch.xlogy(shares, shares).sum())


def _one_row_a_position(features: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) as (N * H * W, C)."""
    return features.movedim(1, -1).flatten(0, -2)
