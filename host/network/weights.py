"""The numbers of a network as an exported file holds them: normalisations folded."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from host.network.graph import (
    BatchNorm,
    Conv,
    Linear,
    Network,
    Shape,
    flat,
    pair,
    weight_elements,
)

if TYPE_CHECKING:
    from torch import nn

    from host.network.torch_module import NetworkModule

Array = npt.NDArray[np.float32]
_POOL_SIZE = 1 << 20


class LayerWeights(NamedTuple):
    """Weight and bias of a convolution or matrix product; scale and shift of a normalisation."""

    weight: Array
    bias: Array


Weights = Mapping[int, LayerWeights]
"""By index of the node."""


def random_weights(network: Network, *, seed: int) -> dict[int, LayerWeights]:
    """Weights for measuring an untrained network, a pure function of the seed.

    They are slices of one fixed sample of the normal distribution, scaled to variance 2 / fan-in:
    a runtime's speed does not depend on the values as long as activations stay in a normal range,
    and drawing millions of fresh numbers would take longer than all the rest of the export.
    """
    weights = {}
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, BatchNorm):
            channels = node.shape[0]
            weights[index] = LayerWeights(
                np.ones(channels, np.float32), np.zeros(channels, np.float32)
            )
        elif isinstance(node.layer, Conv | Linear):
            reads = network.nodes[node.inputs[0]].shape
            shape = _weight_shape(node.layer, reads)
            size = weight_elements(node.layer, reads)
            scale = np.float32(math.sqrt(2.0 / (size // shape[0])))
            drawn = _slice_of_pool(seed + 7919 * index, size) * scale
            weights[index] = LayerWeights(drawn.reshape(shape), np.zeros(shape[0], np.float32))
    return weights


def folded_weights(module: "NetworkModule") -> dict[int, LayerWeights]:
    """The module's weights with each normalisation folded into the convolution before it.

    Uses the running statistics, as the module does in evaluation mode.
    """
    from torch import nn

    weights = {}
    for name, layer in module.layers.items():
        index = int(name)
        if isinstance(layer, nn.BatchNorm2d):
            weights[index] = LayerWeights(*_scale_and_shift(layer))
        elif isinstance(layer, nn.Conv2d):
            weights[index] = LayerWeights(_array(layer.weight), _bias(layer))
        elif isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d):
            scale, shift = _scale_and_shift(layer[1])
            kernel = _array(layer[0].weight)
            bias = shift + scale * _bias(layer[0])
            weights[index] = LayerWeights(kernel * scale[:, None, None, None], bias)
        elif isinstance(layer, nn.Sequential):
            weights[index] = LayerWeights(_array(layer[1].weight), _array(layer[1].bias))
    return weights


def _weight_shape(layer: Conv | Linear, reads: Shape) -> tuple[int, ...]:
    if isinstance(layer, Linear):
        return (layer.out_features, flat(reads))
    return (layer.out_channels, reads[0] // layer.groups, *pair(layer.kernel))


@lru_cache(maxsize=1)
def _pool() -> Array:
    sample = np.random.default_rng(0).standard_normal(_POOL_SIZE, dtype=np.float32)
    return np.concatenate([sample, sample])


def _slice_of_pool(start: int, size: int) -> Array:
    start %= _POOL_SIZE
    if size <= _POOL_SIZE:
        return _pool()[start : start + size]
    return np.resize(_pool()[start : start + _POOL_SIZE], size)


def _scale_and_shift(norm: "nn.Module") -> tuple[Array, Array]:
    from torch import nn

    if not isinstance(norm, nn.BatchNorm2d):
        raise TypeError(f"{norm} is no batch normalisation")
    mean, variance = _array(norm.running_mean), _array(norm.running_var)
    scale = _array(norm.weight) / np.sqrt(variance + np.float32(norm.eps))
    return scale, _array(norm.bias) - mean * scale


def _bias(layer: "nn.Conv2d") -> Array:
    if layer.bias is None:
        return np.zeros(layer.out_channels, np.float32)
    return _array(layer.bias)


def _array(tensor: object) -> Array:
    return tensor.detach().cpu().numpy().astype(np.float32)  # type: ignore[attr-defined, no-any-return]
