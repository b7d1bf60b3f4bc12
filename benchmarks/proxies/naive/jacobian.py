"""How alike the network responds to different images: correlations of input gradients.

jacob_cov: Mellor et al. 2020 (arXiv:2006.04647v1). epe_nas: Lopes et al. 2021 (arXiv:2102.08099).
"""

import torch
from torch import nn

from benchmarks.proxies.naive.modules import gradients_of, running_statistics_kept, weighed_in_turn

_K = 1e-5


def jacob_cov(module: nn.Module, images: torch.Tensor, _labels: torch.Tensor) -> float:
    """-sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the rows' correlation matrix."""
    inputs = images.clone().requires_grad_()
    with running_statistics_kept(module):
        (rows,) = gradients_of(weighed_in_turn(module(inputs)), [inputs])
    correlation = torch.corrcoef(rows.flatten(1).double())
    if not bool(correlation.isfinite().all()):
        return float("nan")
    # Semi-definite: what rounding takes below zero is zero.
    values = torch.linalg.eigvalsh(correlation).clamp(min=0.0) + _K
    return -float((values.log() + 1.0 / values).sum())


def epe_nas(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over classes of |sum of log(|R| + k)|, R the correlations of the class's rows."""
    inputs = images.clone().requires_grad_()
    with running_statistics_kept(module):
        (rows,) = gradients_of(weighed_in_turn(module(inputs)), [inputs])
    score = 0.0
    for label in set(labels.tolist()):
        of_class = rows[labels == label].flatten(1).double()
        if len(of_class) >= 2:
            score += abs(float((torch.corrcoef(of_class).abs() + _K).log().sum()))
    return score
