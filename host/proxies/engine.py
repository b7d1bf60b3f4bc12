"""Scores a network by several proxies from the fewest passes that serve them all."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from host.errors import UsageError
from host.network.graph import Network
from host.network.torch_module import NetworkModule, build_module
from host.proxies.base import Need, Proxy
from host.proxies.blocks import blocks_of
from host.proxies.evidence import Evidence
from host.proxies.flow import flow
from host.proxies.layers import left_as_it_was
from host.proxies.per_image import PER_IMAGE_NEEDS, per_image
from host.proxies.perturbation import perturbation
from host.proxies.response import RESPONSE_NEEDS, response


def score(
    network: Network,
    proxies: Sequence[Proxy],
    *,
    batch: torch.Tensor,
    seed: int,
    labels: torch.Tensor | None = None,
) -> dict[str, float]:
    """The score of an untrained network by each proxy; nan where it is not finite.

    `batch` is (N, C, H, W) float32, the same for all networks that are to be compared; smaller
    images than the network's own make it cheaper at little loss. `labels` (N,) int64 are classes of
    the images; where there are none they are drawn from the seed, each class equally often. The
    result is a pure function of the network (the order of its nodes included), the proxies, the
    batch, the labels and the seed, up to rounding, which threads and company of proxies change:
    weights are drawn from key and seed, and the global random state is neither read nor changed.
    Free proxies alone build no module. A batch on another device than the CPU takes the module
    there.

    Raises UsageError where batch or labels do not suit the network.
    """
    if not any(proxy.needs for proxy in proxies):
        return _scores(proxies, Evidence(network))
    _check_batch(batch, network.input_shape[0])
    drawn = weight_seed(network.key, seed)
    module = build_module(network, seed=drawn).to(batch.device)
    # This order of memory is faster on CPUs; it changes no value's place.
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = batch.contiguous(memory_format=torch.channels_last)
    evidence = collect_evidence(network, module, images, proxies, labels=labels, seed=drawn)
    return _scores(proxies, evidence)


def score_module(
    module: nn.Module,
    proxies: Sequence[Proxy],
    *,
    batch: torch.Tensor,
    seed: int,
    labels: torch.Tensor | None = None,
) -> dict[str, float]:
    """As `score`, for a module of any origin with the weights that it has.

    Proxies that read our graph (depth, blocks) score nan where the module is not of our spaces.
    """
    network = module.network if isinstance(module, NetworkModule) else None
    _check_batch(batch, None)
    evidence = collect_evidence(network, module, batch, proxies, labels=labels, seed=seed)
    return _scores(proxies, evidence)


def weight_seed(key: str, seed: int) -> int:
    """The seed of a network's weights: its own for each key, whatever the order of scoring."""
    digest = hashlib.blake2b(f"{key}:{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@torch.enable_grad()
def collect_evidence(
    network: Network | None,
    module: nn.Module,
    batch: torch.Tensor,
    proxies: Sequence[Proxy],
    *,
    labels: torch.Tensor | None = None,
    seed: int = 0,
) -> Evidence:
    """Run the passes that the proxies need: `response`, `per_image`, `flow`, `perturbation`.

    Afterwards the module's mode, statistics and parameters are as before. `seed` draws what is
    random in a pass. Raises UsageError where the labels do not suit the batch or the module.
    """
    needs = frozenset[Need]().union(*(proxy.needs for proxy in proxies))
    classes = _classes(module, batch)
    known = _labels(labels, len(batch), classes, seed).to(batch.device)
    found: dict[str, Any] = {"images": batch, "labels": known}
    if needs & RESPONSE_NEEDS:
        found |= response(module, batch, known, needs, blocks=blocks_of(module), seed=seed)
    if needs & PER_IMAGE_NEEDS:
        found |= per_image(module, batch, known, needs)
    if "flow" in needs:
        found["flow"] = flow(module, tuple(batch.shape[1:]))
    if "perturbation" in needs:
        found["perturbation"] = perturbation(
            module, batch.shape, torch.Generator().manual_seed(seed)
        )
    return Evidence(network, module, **found)


def _classes(module: nn.Module, images: torch.Tensor) -> int:
    if isinstance(module, NetworkModule):
        return math.prod(module.network.output_shape)
    with left_as_it_was(module), torch.no_grad():
        logits = module.eval()(images[:2])
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise UsageError(
            "proxies need a network that answers one row of logits an image; this one answers "
            + (str(tuple(logits.shape)) if isinstance(logits, torch.Tensor) else "several tensors")
        )
    return int(logits.shape[1])


def _labels(labels: torch.Tensor | None, images: int, classes: int, seed: int) -> torch.Tensor:
    if labels is None:
        # As few classes as give each two images, so that images of one class can be compared.
        balanced = torch.arange(images) % max(1, min(classes, images // 2))
        return balanced[torch.randperm(images, generator=torch.Generator().manual_seed(seed))]
    if labels.shape != (images,) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UsageError(
            f"{images} images need {images} labels from 0 to {classes - 1}, "
            f"got {tuple(labels.shape)} from {int(labels.min())} to {int(labels.max())}"
        )
    return labels


def _check_batch(batch: torch.Tensor, channels: int | None) -> None:
    if batch.ndim not in {3, 4} or len(batch) < 2 or channels not in {None, batch.shape[1]}:
        wanted = "" if channels is None else f" with {channels} channels"
        raise UsageError(
            f"proxies need a batch of two images or more{wanted}, "
            f"got an array of shape {tuple(batch.shape)}"
        )


def _scores(proxies: Sequence[Proxy], evidence: Evidence) -> dict[str, float]:
    return {proxy.name: _finite(proxy.compute(evidence)) for proxy in proxies}


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
