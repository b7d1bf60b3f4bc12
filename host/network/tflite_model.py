"""A `Network` as TFLite bytes: float32, batch 1, channels last; it answers as the torch module.

Convolutions, products and sums take in a ReLU that alone reads them. Names are those of the ONNX
file: "input", "logits", and "n" with the index of the node between them.
"""

from collections.abc import Mapping

import numpy as np

from host.network.graph import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Conv,
    GlobalPool,
    Linear,
    Network,
    Node,
    Pool,
    Scale,
    Shape,
    flat,
    pair,
)
from host.network.tflite_file import Fused, TfliteFile
from host.network.tflite_metadata import with_tflite_metadata
from host.network.tflite_tables import Graph, encoded
from host.network.weights import LayerWeights, Weights
from host.network.windows import Placement, place, shares_of_map

INPUT_NAME = "input"
OUTPUT_NAME = "logits"
SIGNATURE = "serving_default"

_LOWEST = float(np.finfo(np.float32).min)
_UNARY: dict[ActivationKind, str] = {
    "relu": "RELU",
    "relu6": "RELU6",
    "hard_swish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
}


def tflite_bytes(
    network: Network, weights: Weights | None, metadata: Mapping[str, str] | None = None
) -> bytes:
    """The file of a network with these weights, by index of the node; where there are none they
    are only named, which is enough to read kernels from.

    Input `input` is float32 of shape (1, H, W, C), or (1, 1, L, C) for signals, output `logits` of
    shape (1, classes). `metadata` is told as `host.network.tflite_metadata` says.
    """
    content = encoded(_Renderer(network, weights).render())
    return with_tflite_metadata(content, metadata) if metadata else content


def tflite_graph(network: Network) -> Graph:
    """What the file of a network holds, without its numbers."""
    return _Renderer(network, None).render()


class _Renderer:
    def __init__(self, network: Network, weights: Weights | None) -> None:
        self._network, self._weights = network, weights
        self._file = TfliteFile()
        self._readers: dict[int, list[Node]] = {}
        for node in network.nodes:
            for source in node.inputs:
                self._readers.setdefault(source, []).append(node)

    def render(self) -> Graph:
        network, file = self._network, self._file
        places = [file.input(1, *_last(network.input_shape))]
        file.rename(places[0], INPUT_NAME)
        for index, node in enumerate(network.nodes[1:], 1):
            reads = [places[source] for source in node.inputs]
            if self._is_fused(index):
                places.append(reads[0])
                continue
            places.append(self._written(index, node, reads, self._fused_into(index)))
            file.rename(places[-1], f"n{index}")
        file.rename(places[-1], OUTPUT_NAME)
        return file.graph(places[-1], signature=SIGNATURE)

    def _is_fused(self, index: int) -> bool:
        """Whether the node is an activation that the node before it computes."""
        node = self._network.nodes[index]
        return isinstance(node.layer, Activation) and bool(self._fused_into(node.inputs[0]))

    def _fused_into(self, index: int) -> Fused | None:
        """The activation that a node takes in."""
        if not isinstance(self._network.nodes[index].layer, Conv | Linear | Add | BatchNorm):
            return None
        match [node.layer for node in self._readers.get(index, ())]:
            case [Activation(kind="relu" | "relu6" as kind)]:
                return kind
            case _:
                return None

    def _written(self, index: int, node: Node, reads: list[int], fused: Fused | None) -> int:
        file, layer = self._file, node.layer
        match layer:
            case Conv():
                return self._convolved(index, layer, reads[0], fused)
            case Linear():
                return self._connected(index, layer, reads[0], fused)
            case Pool():
                return self._pooled(node, layer, reads[0])
            case GlobalPool():
                return file.mean(reads[0], 1, 2)
            case BatchNorm():
                return self._normalised(index, reads[0], fused)
            case Add():
                return file.combine("ADD", reads[0], reads[1], fused)
            case Scale():
                return file.combine("MUL", reads[0], reads[1])
            case Activation():
                return self._activated(layer.kind, reads[0])
            case _:
                raise ValueError(f"{layer} is not executed")

    def _convolved(self, index: int, layer: Conv, source: int, fused: Fused | None) -> int:
        before = self._file.shape(source)[-1]
        depthwise = layer.groups == layer.out_channels == before
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        shape = (layer.out_channels, before // layer.groups, *pair(layer.kernel))
        held = self._held(index)
        if held is None:
            weights = self._file.named([shape[axis] for axis in order], "FLOAT32")
            bias = self._file.named([layer.out_channels], "FLOAT32")
        else:
            weights = self._file.constant(np.ascontiguousarray(held.weight.transpose(order)))
            bias = self._file.constant(held.bias)
        placement = self._placement(layer, source)
        return self._file.convolve(
            self._bordered(source, placement),
            weights,
            bias,
            stride=pair(layer.stride),
            valid=placement.valid,
            fused=fused,
        )

    def _pooled(self, node: Node, layer: Pool, source: int) -> int:
        """The padding is no part of a mean, and less than everything that a maximum reads."""
        file, window, stride = self._file, pair(layer.kernel), pair(layer.stride)
        placement = self._placement(layer, source)
        if layer.kind == "maximum":
            border = 0.0 if self._is_positive(node.inputs[0]) else _LOWEST
            bordered = self._bordered(source, placement, border)
            return file.pool("MAX_POOL_2D", bordered, window, stride, valid=placement.valid)
        bordered = self._bordered(source, placement)
        means = file.pool("AVERAGE_POOL_2D", bordered, window, stride, valid=placement.valid)
        if not placement.needs_border:
            return means
        size = file.shape(source)[1:3]
        shares = shares_of_map((size[0], size[1]), window, stride, pair(layer.padding))
        return file.combine("MUL", means, file.constant(shares[np.newaxis, :, :, np.newaxis]))

    def _placement(self, layer: Conv | Pool, source: int) -> Placement:
        _, height, width, _ = self._file.shape(source)
        return place((height, width), pair(layer.kernel), pair(layer.stride), pair(layer.padding))

    def _bordered(self, source: int, placement: Placement, value: float = 0.0) -> int:
        if not placement.needs_border:
            return source
        return self._file.pad(source, placement.rows, placement.columns, value)

    def _is_positive(self, index: int) -> bool:
        """Whether a node never writes less than zero."""
        node = self._network.nodes[index]
        match node.layer:
            case Activation(kind=kind):
                return kind != "hard_swish"
            case Pool() | GlobalPool() | Add() | Scale():
                return all(self._is_positive(source) for source in node.inputs)
            case _:
                return False

    def _connected(self, index: int, layer: Linear, source: int, fused: Fused | None) -> int:
        """The layer reads its input flattened with the channels first."""
        file, read = self._file, self._file.shape(source)[1:]
        features = flat(read)
        if len(read) > 1:
            source = file.reshape(source, 1, features)
        held = self._held(index)
        if held is None:
            weights = file.named([layer.out_features, features], "FLOAT32")
            bias = file.named([layer.out_features], "FLOAT32")
        else:
            matrix = held.weight
            if len(read) > 1:
                height, width, channels = read
                image = matrix.reshape(-1, channels, height, width)
                matrix = image.transpose(0, 2, 3, 1).reshape(-1, features)
            weights = file.constant(np.ascontiguousarray(matrix))
            bias = file.constant(held.bias)
        return file.connect(source, weights, bias, fused=fused)

    def _normalised(self, index: int, source: int, fused: Fused | None) -> int:
        """Times a scale, plus a shift: one of each a channel."""
        file = self._file
        channels = file.shape(source)[-1:]
        held = self._held(index)
        if held is None:
            scale, shift = (file.named(channels, "FLOAT32") for _ in range(2))
        else:
            scale, shift = file.constant(held.weight), file.constant(held.bias)
        return file.combine("ADD", file.combine("MUL", source, scale), shift, fused)

    def _activated(self, kind: ActivationKind, source: int) -> int:
        file = self._file
        if kind != "hard_sigmoid":
            return file.operator(_UNARY[kind], [source], file.shape(source))
        shifted = file.combine("ADD", source, file.scalar(3.0), "relu6")
        return file.combine("MUL", shifted, file.scalar(1 / 6))

    def _held(self, index: int) -> LayerWeights | None:
        return None if self._weights is None else self._weights[index]


def _last(shape: Shape) -> Shape:
    """Channels last."""
    return (*shape[1:], shape[0])
