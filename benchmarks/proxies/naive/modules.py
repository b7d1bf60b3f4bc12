"""What every naive proxy asks of a module: its weights, its graph, what its layers saw."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from host.network.graph import Network
from host.network.torch_module import NetworkModule

WEIGHTED = (nn.Conv2d, nn.Linear)
NORMALISATIONS = (_BatchNorm,)
RECTIFIERS = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Mish,
)
"""Activations with an on/off code: on where their input is above zero. Sigmoids are gates."""


def weights_of(module: nn.Module) -> list[torch.Tensor]:
    """The weight tensors of convolutions and matrix products, in the order of the module."""
    return [layer.weight for layer in module.modules() if isinstance(layer, WEIGHTED)]


def graph_of(module: nn.Module) -> Network:
    """The graph that the module was built from. Raises TypeError where there was none."""
    if not isinstance(module, NetworkModule):
        raise TypeError(f"{type(module).__name__} was not built from a Network")
    return module.network


def block_outputs(
    module: nn.Module, images: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What each block of the module's graph writes, and the logits, in one forward pass."""
    network = graph_of(module)
    values = [images]
    for index, node in enumerate(network.nodes[1:], start=1):
        layer = module.get_submodule(f"layers.{index}")
        values.append(layer(*(values[i] for i in node.inputs)))
    return [values[index] for index in network.blocks], values[-1]


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Put back afterwards what forward passes in training mode write into normalisations."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)


@contextmanager
def statistics_of_batch_fixed(module: nn.Module, images: torch.Tensor) -> Iterator[None]:
    """Normalisations in evaluation mode on the statistics of these images, so that none mix.

    The variance is the biased one, with which training mode normalises. Afterwards the
    normalisations are in training mode again, with the running statistics that they had.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, NORMALISATIONS)]

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        features = inputs[0]
        axes = [axis for axis in range(features.ndim) if axis != 1]
        layer.get_buffer("running_mean").copy_(features.mean(axes))
        layer.get_buffer("running_var").copy_(features.var(axes, correction=0))

    with running_statistics_kept(module):
        handles = [layer.register_forward_hook(note) for layer in layers]
        with torch.no_grad():
            module(images)
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.eval()
        try:
            yield
        finally:
            for layer in layers:
                layer.train()


@contextmanager
def inputs_recorded(
    module: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> Iterator[list[torch.Tensor]]:
    """What layers of these kinds read in the passes inside, in the order in which they ran."""
    seen: list[torch.Tensor] = []

    def note(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0])

    handles = [
        layer.register_forward_pre_hook(note)
        for layer in module.modules()
        if isinstance(layer, kinds)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def outputs_recorded(
    module: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> Iterator[list[torch.Tensor]]:
    """What layers of these kinds write in the passes inside, in the order in which they ran."""
    seen: list[torch.Tensor] = []

    def note(_layer: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append(output)

    handles = [
        layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, kinds)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def gradients_of(
    value: torch.Tensor, sources: Sequence[torch.Tensor], *, keep_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """The gradient of a number with respect to each tensor; zeros where it does not depend."""
    return torch.autograd.grad(
        value, sources, retain_graph=keep_graph, allow_unused=True, materialize_grads=True
    )


def weighed_in_turn(logits: torch.Tensor) -> torch.Tensor:
    """The sum of the logits of the first, third, ... image minus that of the others."""
    return logits[0::2].sum() - logits[1::2].sum()
