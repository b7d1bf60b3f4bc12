"""The shared pass: one forward over the batch in training mode, and the backwards from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from host.proxies.base import Need
from host.proxies.evidence import LayerGradient
from host.proxies.layers import (
    activations,
    left_as_it_was,
    normalised_layers,
    weight_layers,
)

RESPONSE_NEEDS: frozenset[Need] = frozenset(
    {
        "code_agreement",
        "distinct_patterns",
        "block_entropies",
        "block_variances",
        "block_gradients",
        "smallest_correlations",
        "input_gradients",
        "block_jacobians",
        "loss_gradients",
        "half_gradients",
        "curvature",
        "saliency",
    }
)
_WEIGHT_NEEDS: frozenset[Need] = frozenset(
    {"loss_gradients", "half_gradients", "curvature", "saliency"}
)
_IMAGE_NEEDS: frozenset[Need] = frozenset({"input_gradients", "block_gradients", "block_jacobians"})
_BLOCK_NEEDS: frozenset[Need] = frozenset(
    {
        "block_entropies",
        "block_variances",
        "block_gradients",
        "block_jacobians",
    }
)
_IMAGES_OF_A_PATTERN = 63
_BITS_OF_A_WORD = 24  # sums of powers of two that float32 holds exactly


@torch.enable_grad()
def response(
    module: nn.Module,
    batch: torch.Tensor,
    labels: torch.Tensor,
    needs: frozenset[Need],
    *,
    blocks: Sequence[nn.Module],
    seed: int,
) -> dict[str, Any]:
    """The parts of the evidence that `needs` names, by attribute of `Evidence`.

    One forward pass serves all; every kind of gradient takes one backward through it, those of the
    images alone leave the weights' out. `blocks` are the submodules that end a block, in order.
    """
    with left_as_it_was(module):
        module.train()
        module.requires_grad_(requires_grad=bool(needs & _WEIGHT_NEEDS))
        recorder = _Recorder(needs, len(batch))
        recorder.watch(module, blocks)
        differentiable = bool(needs & (_WEIGHT_NEEDS | _IMAGE_NEEDS))
        images = batch.detach().clone().requires_grad_(bool(needs & _IMAGE_NEEDS))
        try:
            with torch.set_grad_enabled(differentiable):
                logits = module(images)
        finally:
            recorder.forget_module()
        found = recorder.found()
        outputs = [recorder.blocks[block] for block in blocks if block in recorder.blocks]
        found |= _block_spectra(outputs, needs)
        if needs & {"input_gradients", "block_gradients"} and logits.requires_grad:
            found |= _summed_gradients(logits, images, outputs)
        if "block_jacobians" in needs:
            found["block_jacobians"] = _block_jacobians(outputs, seed)
        if needs & _WEIGHT_NEEDS:
            weights = [layer.weight for layer in weight_layers(module)]
            found |= _loss_derivatives(logits, labels, weights, recorder.outputs, needs)
    return found


@dataclass
class _Recorder:
    """Keeps of a forward pass what was asked for."""

    needs: frozenset[Need]
    images: int
    agreement: torch.Tensor | None = None
    patterns: list[torch.Tensor] = field(default_factory=list)
    correlations: list[float] = field(default_factory=list)
    blocks: dict[nn.Module, torch.Tensor] = field(default_factory=dict)
    outputs: list[torch.Tensor] = field(default_factory=list)
    _handles: list[torch.utils.hooks.RemovableHandle] = field(default_factory=list)

    def watch(self, module: nn.Module, blocks: Sequence[nn.Module]) -> None:
        if self.needs & {"code_agreement", "distinct_patterns"}:
            for layer in activations(module):
                self._handles.append(layer.register_forward_pre_hook(self._codes))
        if self.needs & _BLOCK_NEEDS:
            for block in blocks:
                self._handles.append(block.register_forward_hook(self._block))
        if "smallest_correlations" in self.needs:
            for layer in normalised_layers(module):
                self._handles.append(layer.register_forward_hook(self._correlations))
        if "saliency" in self.needs:
            for layer in weight_layers(module):
                self._handles.append(layer.register_forward_hook(self._output))

    def forget_module(self) -> None:
        for handle in self._handles:
            handle.remove()

    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "code_agreement" in self.needs:
            found["code_agreement"] = self.agreement
        if "distinct_patterns" in self.needs and self.patterns:
            found["distinct_patterns"] = len(torch.unique(torch.cat(self.patterns)))
        if "smallest_correlations" in self.needs and self.correlations:
            found["smallest_correlations"] = tuple(self.correlations)
        return found

    def _codes(self, _layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        on = _units(inputs[0].detach()) > 0
        if "code_agreement" in self.needs:
            # With codes of +1 and -1 a layer of U units adds (U + s s^T) / 2. Sums of +-1 are exact
            # in float32 up to 2^24 units a layer.
            signs = on.float().mul_(2.0).sub_(1.0)
            layer = (signs @ signs.T).double().add_(signs.shape[1]).mul_(0.5)
            self.agreement = layer if self.agreement is None else self.agreement + layer
        if "distinct_patterns" in self.needs:
            self.patterns.append(_patterns(on[:_IMAGES_OF_A_PATTERN]))

    def _block(self, layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self.blocks[layer] = output

    def _correlations(self, _layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        value = _smallest_correlation(output.detach()[0])
        if value is not None:
            self.correlations.append(value)

    def _output(self, _layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self.outputs.append(output)


def _units(values: torch.Tensor) -> torch.Tensor:
    """(N, units), in the order of memory: what is counted does not depend on it."""
    if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.flatten(1)


def _patterns(on: torch.Tensor) -> torch.Tensor:
    """One 64-bit number a unit: its codes over the images, (N, U) -> (U,)."""
    words = []
    for start in range(0, len(on), _BITS_OF_A_WORD):
        bits = on[start : start + _BITS_OF_A_WORD].float()
        powers = 2.0 ** torch.arange(len(bits), device=bits.device)
        words.append((powers @ bits).long())
    whole = words[0]
    for word in words[1:]:
        whole = (whole << _BITS_OF_A_WORD) | word
    distinct: torch.Tensor = torch.unique(whole)
    return distinct


def _block_spectra(
    outputs: Sequence[torch.Tensor], needs: frozenset[Need]
) -> dict[str, tuple[float, ...] | None]:
    found: dict[str, tuple[float, ...] | None] = {}
    seen = [output.detach() for output in outputs]
    if "block_entropies" in needs:
        found["block_entropies"] = tuple(_spectral_entropy(each) for each in seen) or None
    if "block_variances" in needs:
        variances = tuple(float(each.var(correction=0)) for each in seen)
        found["block_variances"] = variances or None
    return found


def _spectral_entropy(features: torch.Tensor) -> float:
    """-sum p log p over the normalised spectrum of the channel covariance; nan where it is zero."""
    rows = features.flatten(2).transpose(1, 2).reshape(-1, features.shape[1])
    rows = rows - rows.mean(dim=0)
    spectrum = torch.linalg.eigvalsh((rows.T @ rows).double()).clamp(min=0.0)
    shares = spectrum / spectrum.sum()
    return float(torch.special.entr(shares).sum())


def _smallest_correlation(features: torch.Tensor) -> float | None:
    """Of (channels, positions…); None where there is nothing to correlate."""
    if features.ndim < 2 or len(features) < 2 or features[0].numel() < 2:
        return None
    rows = features.flatten(1).double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    rows = functional.normalize(rows, dim=1, eps=1e-30)
    # A constant channel correlates with nothing, itself included.
    return float(torch.linalg.eigvalsh(rows @ rows.T)[0])


def _summed_gradients(
    logits: torch.Tensor, images: torch.Tensor, outputs: Sequence[torch.Tensor]
) -> dict[str, Any]:
    # The plain sum of a network that ends in a normalisation depends on no image: images are
    # weighed +1 and -1 in turn. What the logits do not depend on has a gradient of zeros.
    signs = (1.0 - 2.0 * (torch.arange(len(logits)) % 2)).to(logits)
    of_images, *of_blocks = torch.autograd.grad(
        (signs @ logits.flatten(1)).sum(),
        [images, *outputs],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    squares = tuple(float(gradient.square().mean()) for gradient in of_blocks)
    return {"input_gradients": of_images.flatten(1), "block_gradients": squares or None}


def _block_jacobians(outputs: Sequence[torch.Tensor], seed: int) -> tuple[float, ...] | None:
    if not all(output.requires_grad for output in outputs[1:]):
        return None
    rng = np.random.default_rng(seed)
    return tuple(_block_jacobian(*pair, rng) for pair in pairwise(outputs)) or None


def _block_jacobian(before: torch.Tensor, after: torch.Tensor, rng: np.random.Generator) -> float:
    sent = _signs_like(after, rng)
    (arrived,) = torch.autograd.grad(
        after, before, sent, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return _spectral_norm(sent.detach(), arrived)


def _signs_like(tensor: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """+1 and -1, equally likely: one random bit each, not one random number."""
    bits = np.frombuffer(rng.bytes((tensor.numel() + 7) // 8), np.uint8)
    signs = torch.from_numpy(np.unpackbits(bits)[: tensor.numel()]).to(tensor.dtype)
    flat = signs.mul_(2.0).sub_(1.0).to(tensor.device)
    return torch.empty_like(tensor).copy_(flat.view(tensor.shape))


def _spectral_norm(sent: torch.Tensor, arrived: torch.Tensor) -> float:
    """Of the channel Jacobian that, by least squares, took what was sent to what arrived.

    The entries of `sent` are +1 and -1 and independent, so its Gram matrix is its length.
    """
    if arrived.ndim > 2 and arrived.shape[2:] != sent.shape[2:]:
        arrived = functional.adaptive_avg_pool2d(arrived, (sent.shape[2], sent.shape[3]))
    rows_sent = sent.flatten(2).transpose(1, 2).reshape(-1, sent.shape[1])
    rows_arrived = arrived.flatten(2).transpose(1, 2).reshape(-1, arrived.shape[1])
    jacobian = rows_sent.T @ rows_arrived / len(rows_sent)
    return float(torch.linalg.matrix_norm(jacobian.double(), ord=2))


def _loss_derivatives(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    needs: frozenset[Need],
) -> Mapping[str, Any]:
    losses = functional.cross_entropy(logits, labels, reduction="none")
    middle = len(losses) // 2
    curved = "curvature" in needs
    places = [*weights, *outputs]
    derive: Callable[[torch.Tensor], list[torch.Tensor]] = lambda loss: list(  # noqa: E731
        torch.autograd.grad(
            loss,
            places,
            retain_graph=True,
            create_graph=curved,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    halves: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(weights)
    if "half_gradients" in needs:
        first, second = derive(losses[:middle].mean()), derive(losses[middle:].mean())
        share = middle / len(losses)
        gradients = [share * a + (1 - share) * b for a, b in zip(first, second, strict=True)]
        halves = [
            (a.detach(), b.detach())
            for a, b in zip(first[: len(weights)], second[: len(weights)], strict=True)
        ]
    else:
        gradients = derive(losses.mean())
    curvatures: Sequence[torch.Tensor | None] = [None] * len(weights)
    if curved:
        product = torch.stack([(g * g.detach()).sum() for g in gradients[: len(weights)]]).sum()
        curvatures = torch.autograd.grad(
            product, weights, allow_unused=True, materialize_grads=True
        )
    found: dict[str, Any] = {
        "loss_gradients": tuple(
            LayerGradient(weight.detach(), gradient.detach(), half, curvature)
            for weight, gradient, half, curvature in zip(
                weights, gradients, halves, curvatures, strict=False
            )
        )
    }
    if "saliency" in needs:
        found["saliency"] = _saliency(outputs, gradients[len(weights) :])
    return found


def _saliency(outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> float:
    total = 0.0
    for output, gradient in zip(outputs, gradients, strict=True):
        channels = (
            (output * gradient).detach().flatten(2).sum(2)
            if output.ndim > 2
            else (output * gradient).detach()
        )
        total += float(channels.square().mean(0).sum()) / 2
    return total
