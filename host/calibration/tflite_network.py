"""A network as a .tflite file of 32-bit floats, as its ONNX file is: for timing.

Windows with a stride stand where TFLite's "same" padding puts them, which for even sizes is half a
stride from where ONNX has them: as fast, but another answer.
"""

import numpy as np

from host.calibration.tflite_file import Fused, TfliteFile
from host.network.graph import (
    Activation,
    ActivationKind,
    Add,
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
from host.network.weights import LayerWeights, Weights

_UNARY: dict[ActivationKind, str] = {
    "relu": "RELU",
    "relu6": "RELU6",
    "hard_swish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
}


def tflite_bytes(network: Network, weights: Weights | None) -> bytes:
    """The file of a network with these weights, by index of the node; where there are none they
    are only named, which is enough to read kernels from.

    Convolutions, products and sums take in a ReLU that alone reads them. Raises ValueError for a
    layer that is not written here.
    """
    return _Renderer(network, weights).render()


class _Renderer:
    def __init__(self, network: Network, weights: Weights | None) -> None:
        self._network, self._weights = network, weights
        self._file = TfliteFile()
        self._readers: dict[int, list[Node]] = {}
        for node in network.nodes:
            for source in node.inputs:
                self._readers.setdefault(source, []).append(node)

    def render(self) -> bytes:
        network = self._network
        places = [self._file.input(1, *_last(network.input_shape))]
        for index, node in enumerate(network.nodes[1:], 1):
            reads = [places[source] for source in node.inputs]
            if self._is_fused(index):
                places.append(reads[0])
                continue
            places.append(self._written(index, node, reads, self._fused_into(index)))
            self._check(index, node, places[-1])
        return self._file.finish(places[-1])

    def _is_fused(self, index: int) -> bool:
        """Whether the node is an activation that the node before it computes."""
        node = self._network.nodes[index]
        return isinstance(node.layer, Activation) and bool(self._fused_into(node.inputs[0]))

    def _fused_into(self, index: int) -> Fused | None:
        """The activation that a node takes in."""
        if not isinstance(self._network.nodes[index].layer, Conv | Linear | Add):
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
                op = "AVERAGE_POOL_2D" if layer.kind == "average" else "MAX_POOL_2D"
                return file.pool(op, reads[0], pair(layer.kernel), pair(layer.stride))
            case GlobalPool():
                return file.mean(reads[0], 1, 2)
            case Add():
                return file.combine("ADD", reads[0], reads[1], fused)
            case Scale():
                return file.combine("MUL", reads[0], reads[1])
            case Activation():
                return self._activated(layer.kind, reads[0])
            case _:
                raise ValueError(f"{layer} is not written as TFLite here")

    def _check(self, index: int, node: Node, place: int) -> None:
        shape = self._file.shape(place)
        wanted = (1, *_last(node.shape))
        if shape != wanted:
            raise ValueError(
                f"{node.layer} of node {index} is not written as TFLite here: its windows lie"
                f" otherwise, it would give {shape} instead of {wanted}"
            )

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
        return self._file.convolve(source, weights, bias, stride=pair(layer.stride), fused=fused)

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
