"""Scores a network by several proxies in one shared pass."""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from host.errors import UsageError
from host.network.graph import Network
from host.network.torch_module import build_module
from host.proxies.base import ACTIVATIONS, Evidence, Proxy
from host.proxies.flops import FLOPS
from host.proxies.jacob_cov import JACOB_COV
from host.proxies.naswot import NASWOT
from host.proxies.parameters import PARAMETERS
from host.proxies.synflow import SYNFLOW

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy for proxy in (PARAMETERS, FLOPS, JACOB_COV, NASWOT, SYNFLOW)
}
"""Every proxy by name, the free ones first."""


def proxies_by_name(names: Sequence[str]) -> tuple[Proxy, ...]:
    """The proxies of those names.

    Raises UsageError for a name that is none.
    """
    for name in names:
        if name not in PROXIES:
            raise UsageError(f'there is no proxy "{name}"; choose from {", ".join(PROXIES)}')
    return tuple(PROXIES[name] for name in names)


def score(
    network: Network, proxies: Sequence[Proxy], *, batch: torch.Tensor, seed: int
) -> dict[str, float]:
    """The score of an untrained network by each proxy; nan where it is not finite.

    `batch` is (N, C, H, W) float32, the same for all networks that are to be compared; smaller
    images than the network's own make it cheaper at little loss. The result is a pure function of
    the network (the order of its nodes included), the proxies, the batch and the seed, up to the
    number of threads, which changes the order of sums: weights are drawn from key and seed, and the
    global random state is neither read nor changed. Free proxies alone build no module.

    Raises UsageError where the batch does not suit the network.
    """
    needs = {proxy.needs for proxy in proxies}
    if needs <= {"network"}:
        evidence = Evidence(network)
    else:
        _check_batch(network, batch)
        module = build_module(network, seed=weight_seed(network, seed))
        # This order of memory is faster on CPUs; it changes no value's place.
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = batch.contiguous(memory_format=torch.channels_last)
        evidence = collect_evidence(network, module, images, proxies)
    return {proxy.name: _finite(proxy.compute(evidence)) for proxy in proxies}


def weight_seed(network: Network, seed: int) -> int:
    """The seed of a network's weights: its own for each key, whatever the order of scoring."""
    digest = hashlib.blake2b(f"{network.key}:{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def collect_evidence(
    network: Network, module: nn.Module, batch: torch.Tensor, proxies: Sequence[Proxy]
) -> Evidence:
    """Run the passes that the proxies need, at most one forward and one backward over the batch.

    The module runs in training mode, so normalisations use the batch's statistics. Afterwards its
    mode, its running statistics and its parameters are as before.
    """
    needs = {proxy.needs for proxy in proxies}
    gradients = agreement = None
    if needs & {"input_gradients", "activation_codes"}:
        gradients, agreement = _shared_pass(
            module,
            batch,
            with_gradients="input_gradients" in needs,
            with_codes="activation_codes" in needs,
        )
    return Evidence(network, module, gradients, agreement)


def _shared_pass(
    module: nn.Module, batch: torch.Tensor, *, with_gradients: bool, with_codes: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    was_training = {layer: layer.training for layer in module.modules()}
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    codes = _CodeAgreement(len(batch))
    handles = codes.watch(module) if with_codes else []
    try:
        module.train()
        # Only gradients of the images are wanted: those of the weights would double the work.
        module.requires_grad_(requires_grad=False)
        gradients = _run(module, batch, with_gradients=with_gradients)
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trainable:
            parameter.requires_grad_()
        for layer, training in was_training.items():
            layer.training = training
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
    return gradients, codes.matrix


def _run(module: nn.Module, batch: torch.Tensor, *, with_gradients: bool) -> torch.Tensor | None:
    # Dropout and the like draw from the global state: it is put back, and starts from one value.
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(with_gradients):
        torch.manual_seed(0)
        images = batch.detach().clone().requires_grad_(with_gradients)
        logits = module(images)
        if not with_gradients or not logits.requires_grad:
            return None
        # An image that the logits do not depend on has a gradient of zeros.
        (gradients,) = torch.autograd.grad(
            logits.sum(), images, allow_unused=True, materialize_grads=True
        )
    return gradients.flatten(1)


class _CodeAgreement:
    """Adds up, layer by layer, in how many units the codes of two images agree.

    With codes of +1 and -1 a layer of U units adds (U + s s^T) / 2: no code is kept.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self.matrix: torch.Tensor | None = None

    def watch(self, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Look at the input of every activation that has a code."""
        hook: Callable[[nn.Module, tuple[torch.Tensor, ...]], None] = self._add
        return [
            layer.register_forward_pre_hook(hook)
            for layer in module.modules()
            if isinstance(layer, ACTIVATIONS)
        ]

    def _add(self, _layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        signs = (inputs[0].detach().flatten(1) > 0).float().mul_(2.0).sub_(1.0)
        # Sums of +-1 are exact in float32 up to 2^24 units a layer.
        layer = (signs @ signs.T).double().add_(signs.shape[1]).mul_(0.5)
        self.matrix = layer if self.matrix is None else self.matrix + layer


def _check_batch(network: Network, batch: torch.Tensor) -> None:
    if batch.ndim != 4 or len(batch) < 2 or batch.shape[1] != network.input_shape[0]:
        raise UsageError(
            f"proxies need a batch of two images or more with {network.input_shape[0]} channels, "
            f"got an array of shape {tuple(batch.shape)}"
        )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
