"""Gradients of each image by itself, with the statistics of normalisations held constant.

One forward pass, then one backward to the outputs of the layers for each kind of gradient; the
gradient of a weight for one image is the product of what its layer read and of the derivative of
what it wrote, so no backward runs image by image.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from host.proxies.base import Need
from host.proxies.layers import WeightLayer, left_as_it_was, normalisations, weight_layers

PER_IMAGE_NEEDS: frozenset[Need] = frozenset({"kernel_matrix", "sign_agreement", "fisher_spectrum"})


@torch.enable_grad()
def per_image(
    module: nn.Module, batch: torch.Tensor, labels: torch.Tensor, needs: frozenset[Need]
) -> dict[str, Any]:
    """The parts of the evidence that `needs` names, by attribute of `Evidence`."""
    with left_as_it_was(module):
        module.train()
        module.requires_grad_(requires_grad=False)
        layers: list[WeightLayer] = []
        reads: list[torch.Tensor] = []
        writes: list[torch.Tensor] = []

        def keep(
            layer: WeightLayer, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> None:
            layers.append(layer)
            reads.append(inputs[0].detach())
            writes.append(output)

        handles = [layer.register_forward_hook(keep) for layer in weight_layers(module)]
        for norm in normalisations(module):
            norm.eval()
            handles.append(norm.register_forward_pre_hook(_use_statistics_of_the_batch))
        images = batch.detach().clone().requires_grad_()
        try:
            logits = module(images)
        finally:
            for handle in handles:
                handle.remove()
        found: dict[str, Any] = {}
        if not writes:
            return found
        if needs & {"kernel_matrix", "sign_agreement"}:
            summed = _derivatives(logits.sum(), writes) if "kernel_matrix" in needs else None
            losses = functional.cross_entropy(logits, labels, reduction="sum")
            lost = _derivatives(losses, writes) if "sign_agreement" in needs else None
            found |= _gradients(layers, reads, summed, lost)
        if "fisher_spectrum" in needs:
            found["fisher_spectrum"] = _fisher_spectrum(logits, layers, reads, writes)
    return found


def _use_statistics_of_the_batch(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return
    values = inputs[0].detach()
    over = [d for d in range(values.ndim) if d != 1]
    variance, mean = torch.var_mean(values, dim=over, correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _derivatives(value: torch.Tensor, places: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return list(
        torch.autograd.grad(
            value, places, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


def _gradients(
    layers: Sequence[WeightLayer],
    reads: Sequence[torch.Tensor],
    summed: Sequence[torch.Tensor] | None,
    lost: Sequence[torch.Tensor] | None,
) -> dict[str, Any]:
    """Kernel matrix and sign agreement, layer by layer: no layer's gradients are kept."""
    matrix: torch.Tensor | None = None
    agreement = 0.0
    for number, (layer, read) in enumerate(zip(layers, reads, strict=True)):
        patches = _patches(layer, read)
        if summed is not None:
            rows = _weight_gradients(layer, patches, summed[number])
            gram = (rows @ rows.T).double()
            matrix = gram if matrix is None else matrix + gram
        if lost is not None:
            rows = _weight_gradients(layer, patches, lost[number])
            agreement += float(rows.sign().sum(0).abs().double().sum())
    return {
        "kernel_matrix": matrix,
        "sign_agreement": agreement if lost is not None else None,
    }


def _patches(layer: WeightLayer, read: torch.Tensor) -> torch.Tensor:
    """What each output position of each image reads: (N, groups, inputs, positions)."""
    if isinstance(layer, nn.Linear):
        return read.reshape(len(read), 1, -1, read.shape[-1]).transpose(2, 3)
    kernel, stride, padding, dilation = _window(layer)
    if read.ndim == 3:
        read = read.unsqueeze(2)
    columns = functional.unfold(read, kernel, dilation, padding, stride)
    return columns.reshape(len(read), layer.groups, -1, columns.shape[-1])


def _weight_gradients(
    layer: WeightLayer, patches: torch.Tensor, derivative: torch.Tensor
) -> torch.Tensor:
    """(N, weights) from what was read and the derivative of what was written."""
    images, groups, _, positions = patches.shape
    if isinstance(layer, nn.Linear):
        sent = derivative.reshape(images, 1, positions, -1).transpose(2, 3)
    else:
        sent = derivative.reshape(images, groups, -1, positions)
    return (sent @ patches.transpose(2, 3)).flatten(1)


def _window(layer: nn.Conv1d | nn.Conv2d) -> Iterator[tuple[int, int]]:
    """Kernel, stride, padding and dilation, in two dimensions."""
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise NotImplementedError(f"padding {layer.padding!r} of mode {layer.padding_mode!r}")
    neutral = (1, 1, 0, 1)
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return iter(
        [
            (size[0], size[1]) if len(size) == 2 else (none, size[0])
            for size, none in zip(sizes, neutral, strict=True)
        ]
    )


def _fisher_spectrum(
    logits: torch.Tensor,
    layers: Sequence[WeightLayer],
    reads: Sequence[torch.Tensor],
    writes: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Eigenvalues of mean_i J_i^T (diag(p_i) - p_i p_i^T) J_i, J of each layer's first weight."""
    first_reads = [_first_patch(layer, read) for layer, read in zip(layers, reads, strict=True)]
    shape = (*logits.shape, len(layers))
    jacobian = torch.empty(shape, dtype=torch.float64, device=logits.device)
    for label in range(logits.shape[1]):
        derivatives = _derivatives(logits[:, label].sum(), writes)
        for number, (layer, read) in enumerate(zip(layers, first_reads, strict=True)):
            sent = derivatives[number]
            first = sent[..., 0] if isinstance(layer, nn.Linear) else sent[:, 0]
            jacobian[:, label, number] = (first.reshape(len(read), -1) * read).sum(1)
    probabilities = logits.detach().double().softmax(1)
    weighted = probabilities.unsqueeze(2) * jacobian
    mean = weighted.sum(1)
    fisher = (jacobian.mT @ weighted).sum(0) - mean.T @ mean
    spectrum: torch.Tensor = torch.linalg.eigvalsh(fisher / len(logits))
    return spectrum.clamp(min=0.0)


def _first_patch(layer: WeightLayer, read: torch.Tensor) -> torch.Tensor:
    """What each output position reads through the first weight: (N, positions)."""
    if isinstance(layer, nn.Linear):
        column: torch.Tensor = read[..., 0]
        return column.reshape(len(read), -1)
    (height, width), stride, padding, dilation = _window(layer)
    image = read[:, 0].unsqueeze(1) if read.ndim == 3 else read[:, 0]
    padded: torch.Tensor = functional.pad(image, (padding[1], padding[1], padding[0], padding[0]))
    rows = padded.shape[1] - dilation[0] * (height - 1)
    columns = padded.shape[2] - dilation[1] * (width - 1)
    first = padded[:, : rows : stride[0], : columns : stride[1]]
    return first.reshape(len(read), -1)
