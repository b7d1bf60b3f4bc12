"""The naive implementation of each proxy, by the proxy's name."""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.proxies.naive.codes import linear_regions, naswot, swap
from benchmarks.proxies.naive.features import (
    az_expressivity,
    az_progressivity,
    az_trainability,
    gradient_balance,
    meco,
    response_variance,
)
from benchmarks.proxies.naive.gaussian import zen
from benchmarks.proxies.naive.graph import depth, flops, layers, nn_degree, nn_mass, parameters
from benchmarks.proxies.naive.jacobian import epe_nas, jacob_cov
from benchmarks.proxies.naive.per_image import gradsign, ntk_condition, vkdnw
from benchmarks.proxies.naive.saliency import fisher, grad_norm, grasp, l2_norm, plain, snip
from benchmarks.proxies.naive.synflow import log_synflow, synflow
from benchmarks.proxies.naive.zico import zico

Score = Callable[[nn.Module, torch.Tensor, torch.Tensor], float]

_ALL: tuple[Score, ...] = (
    parameters,
    flops,
    depth,
    layers,
    nn_mass,
    nn_degree,
    l2_norm,
    grad_norm,
    plain,
    snip,
    grasp,
    fisher,
    synflow,
    log_synflow,
    jacob_cov,
    epe_nas,
    naswot,
    linear_regions,
    swap,
    gradsign,
    ntk_condition,
    vkdnw,
    zen,
    zico,
    meco,
    az_expressivity,
    az_progressivity,
    response_variance,
    gradient_balance,
    az_trainability,
)

NAIVE: dict[str, Score] = {score.__name__: score for score in _ALL}
"""`zen` and the two trainabilities draw at random: a torch.Generator is their last, optional
argument."""
