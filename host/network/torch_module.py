"""A `Network` as a torch module: for proxies and for training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from host.network.graph import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Conv,
    GlobalPool,
    Input,
    Layer,
    Linear,
    Network,
    Node,
    Pool,
    Scale,
    flat,
)


class HardSigmoid(nn.Module):
    """min(max(x + 3, 0), 6) / 6; torch's own has no second derivative."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return functional.relu6(features + 3.0) / 6.0


_ACTIVATIONS: dict[ActivationKind, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": HardSigmoid,
}


class AddInputs(nn.Module):
    """The sum of two tensors."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


class ScaleChannels(nn.Module):
    """A tensor times one number per channel."""

    def forward(self, features: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return features * scale


class NetworkModule(nn.Module):
    """The layers of a network under their node's index.

    (N, C, H, W) float in, or (N, C, 1, L) for signals; logits out.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleDict(
            {
                str(index): _module(node, network)
                for index, node in enumerate(network.nodes)
                if not isinstance(node.layer, Input)
            }
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = [images]
        for index, node in enumerate(self.network.nodes[1:], start=1):
            values.append(self.layers[str(index)](*(values[i] for i in node.inputs)))
        return values[-1]


def build_module(network: Network, *, seed: int) -> NetworkModule:
    """The network with fresh weights, a pure function of the seed.

    Convolutions are drawn from a normal distribution of variance 2 / fan-in (He et al. 2015,
    arXiv:1502.01852, eq. 10), the classifier from one of standard deviation 0.01; normalisations
    start as the identity and biases at zero. The global random state is neither read nor changed.
    """
    module = NetworkModule(network)
    draw_weights(module, seed=seed)
    return module


def draw_weights(module: nn.Module, *, seed: int) -> None:
    """Give a module fresh weights in place, as `build_module` does.

    Layers that are no convolution, matrix product or normalisation keep theirs.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            layer.reset_running_stats()
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Puts each layer back into the mode that it was in, training or evaluation."""
    was_training = {layer: layer.training for layer in module.modules()}
    try:
        yield
    finally:
        for layer, training in was_training.items():
            layer.training = training


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and each layer back into its own afterwards."""
    with modes_kept(module):
        module.eval()
        yield


class _UndrawnConv2d(nn.Conv2d):
    """Leaves its weights to `draw_weights`: to draw them twice takes longer than a forward pass."""

    def reset_parameters(self) -> None:
        """Do nothing."""


class _UndrawnLinear(nn.Linear):
    """As `_UndrawnConv2d`."""

    def reset_parameters(self) -> None:
        """Do nothing."""


def _module(node: Node, network: Network) -> nn.Module:
    layer = node.layer
    if isinstance(layer, Conv):
        return _convolution(layer, network.input_shapes(node)[0][0])
    if isinstance(layer, BatchNorm):
        return nn.BatchNorm2d(node.shape[0])
    if isinstance(layer, Linear):
        features = flat(network.input_shapes(node)[0])
        return nn.Sequential(nn.Flatten(), _UndrawnLinear(features, layer.out_features))
    return _weightless(layer)


def _weightless(layer: Layer) -> nn.Module:
    match layer:
        case Activation():
            return _ACTIVATIONS[layer.kind]()
        case Pool(kind="average"):
            return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding, count_include_pad=False)
        case Pool():
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
        case GlobalPool():
            return nn.AdaptiveAvgPool2d(1)
        case Add():
            return AddInputs()
        case Scale():
            return ScaleChannels()
        case _:
            raise TypeError(f"{layer} is no layer without weights")


def _convolution(layer: Conv, in_channels: int) -> nn.Module:
    convolution = _UndrawnConv2d(
        in_channels,
        layer.out_channels,
        layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        bias=layer.bias,
    )
    if not layer.norm:
        return convolution
    return nn.Sequential(convolution, nn.BatchNorm2d(layer.out_channels))
