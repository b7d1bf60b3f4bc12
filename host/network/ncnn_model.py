"""A `Network` as an ncnn model: float32, one example; it answers as the torch module.

ncnn knows no batch. Convolutions and products take in an activation that alone reads them, where
ncnn computes it in the same pass. Names are those of the ONNX file: "input", "logits", and "n"
with the index of the node between them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from host.network.graph import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Conv,
    GlobalPool,
    Input,
    Linear,
    Network,
    Node,
    Pool,
    Scale,
    pair,
    weight_elements,
)
from host.network.ncnn_file import (
    NcnnLayer,
    NcnnModel,
    Value,
    layers_of,
    ncnn_file,
    param_text,
)
from host.network.weights import Array, Weights

INPUT_NAME = "input"
OUTPUT_NAME = "logits"

_HARD = {0: 1 / 6, 1: 0.5}
_LAYERS: dict[ActivationKind, tuple[str, dict[int, float]]] = {
    "relu": ("ReLU", {}),
    "relu6": ("Clip", {0: 0.0, 1: 6.0}),
    "hard_swish": ("HardSwish", _HARD),
    "sigmoid": ("Sigmoid", {}),
    "hard_sigmoid": ("HardSigmoid", _HARD),
}
_FUSED: dict[ActivationKind, dict[int, Value]] = {
    "relu": {9: 1},
    "relu6": {9: 3, 10: (0.0, 6.0)},
    "sigmoid": {9: 4},
    "hard_swish": {9: 6, 10: (1 / 6, 0.5)},
}
"""The parameters `activation_type` and `activation_params` of a convolution or product."""
_FLOAT32 = np.zeros(1, "<u4")
"""What stands before weights that are kept as they are: ncnn knows other forms by other marks."""


def ncnn_bytes(
    network: Network, weights: Weights, metadata: Mapping[str, str] | None = None
) -> bytes:
    """The file of a network with these weights, by index of the node.

    Input `input` is float32 of shape (C, H, W), or (C, 1, L) for signals, output `logits` of shape
    (classes,). `metadata` is told in a table of its own.
    """
    writer = _Writer(network, weights)
    param = param_text(writer.layers())
    return ncnn_file(NcnnModel(param, b"".join(writer.content), metadata or {}))


def layer_types_of(network: Network) -> tuple[str, ...]:
    """The types of the layers of a network's file, each once."""
    layers = layers_of(param_text(_Writer(network, None).layers()))
    return tuple(dict.fromkeys(layer.type for layer in layers))


class _Writer:
    """Writes layer after layer, and the weights in the order in which ncnn will read them."""

    def __init__(self, network: Network, weights: Weights | None) -> None:
        """Without weights the layers are all there is."""
        self.content: list[bytes] = []
        self._network, self._weights = network, weights
        self._blobs: list[str] = []
        self._flat: list[bool] = []
        self._layers: list[NcnnLayer] = []
        self._readers: list[list[Node]] = [[] for _ in network.nodes]
        for node in network.nodes:
            for source in node.inputs:
                self._readers[source].append(node)

    def layers(self) -> list[NcnnLayer]:
        last = len(self._network.nodes) - 1
        if self._is_fused(last):
            (last,) = self._network.nodes[last].inputs
        for index, node in enumerate(self._network.nodes):
            if self._is_fused(index):
                source = node.inputs[0]
                self._blobs.append(self._blobs[source])
                self._flat.append(self._flat[source])
                continue
            fused = self._fused_into(index)
            self._blobs.append(OUTPUT_NAME if index == last else f"n{index}")
            self._flat.append(self._is_flat(node))
            self._write(index, node, fused)
        return self._layers

    def _fused_into(self, index: int) -> ActivationKind | None:
        """The activation that a node takes in."""
        if not isinstance(self._network.nodes[index].layer, Conv | Linear):
            return None
        match [node.layer for node in self._readers[index]]:
            case [Activation(kind=kind)] if kind in _FUSED:
                return kind
            case _:
                return None

    def _is_fused(self, index: int) -> bool:
        """Whether the node is an activation that the node before it computes."""
        node = self._network.nodes[index]
        return isinstance(node.layer, Activation) and bool(self._fused_into(node.inputs[0]))

    def _is_flat(self, node: Node) -> bool:
        """Whether what the node writes has one axis in ncnn: a mean over the map has lost the
        other two, and what can be told of the channels alone goes on so.
        """
        layer, reads = node.layer, [self._flat[source] for source in node.inputs]
        match layer:
            case GlobalPool() | Linear():
                return True
            case Conv():
                return reads[0] and _is_product(layer)
            case Activation() | BatchNorm() | Add():
                return all(reads)
            case _:
                return False

    def _write(self, index: int, node: Node, fused: ActivationKind | None) -> None:
        layer = node.layer
        activation = {} if fused is None else _FUSED[fused]
        match layer:
            case Input():
                self._write_input(node)
            case Conv():
                self._write_conv(index, layer, activation)
            case Linear():
                self._write_product(index, layer, activation)
            case BatchNorm():
                self._write_norm(index, node)
            case Activation():
                kind, params = _LAYERS[layer.kind]
                self._add(kind, index, self._as_written(index), params)
            case Pool():
                self._add("Pooling", index, [self._map(index, 0)], _pooling(layer))
            case GlobalPool():
                self._add("Pooling", index, [self._map(index, 0)], {0: 1, 4: 1})
            case Add():
                both = self._as_written(index) if self._flat[index] else self._maps(index)
                self._add("BinaryOp", index, both, {0: 0})
            case Scale():
                # Of a gate with one axis, ncnn repeats each number over its channel's map.
                gate = self._blobs[node.inputs[1]]
                self._add("BinaryOp", index, [self._map(index, 0), gate], {0: 2})

    def _write_input(self, node: Node) -> None:
        channels, height, width = node.shape
        self._blobs[0] = INPUT_NAME
        self._add("Input", 0, [], {0: width, 1: height, 2: channels})

    def _write_conv(self, index: int, layer: Conv, activation: Mapping[int, Value]) -> None:
        if self._flat[index]:
            self._write_product(index, layer, activation)
            return
        source = self._map(index, 0)
        (height, width), (above, left) = pair(layer.kernel), layer.padding
        down, right = pair(layer.stride)
        params = {
            0: layer.out_channels,
            1: width,
            11: height,
            3: right,
            13: down,
            4: left,
            14: above,
            5: 1,
            6: self._elements(index),
            **activation,
        }
        if layer.groups == 1:
            self._add("Convolution", index, [source], params)
        else:
            self._add("ConvolutionDepthWise", index, [source], {**params, 7: layer.groups})
        self._keep(index)

    def _write_product(
        self, index: int, layer: Conv | Linear, activation: Mapping[int, Value]
    ) -> None:
        outputs = layer.out_channels if isinstance(layer, Conv) else layer.out_features
        params = {0: outputs, 1: 1, 2: self._elements(index), **activation}
        self._add("InnerProduct", index, self._as_written(index), params)
        self._keep(index)

    def _write_norm(self, index: int, node: Node) -> None:
        channels = node.shape[0]
        self._add("BatchNorm", index, self._as_written(index), {0: channels})
        if self._weights is None:
            return
        scale, shift = self._weights[index]
        mean, variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        self._append(scale, mean, variance, shift)

    def _elements(self, index: int) -> int:
        node = self._network.nodes[index]
        return weight_elements(node.layer, self._network.nodes[node.inputs[0]].shape)

    def _keep(self, index: int) -> None:
        if self._weights is None:
            return
        weight, bias = self._weights[index]
        self.content.append(_FLOAT32.tobytes())
        self._append(weight, bias)

    def _append(self, *arrays: Array) -> None:
        self.content += [np.ascontiguousarray(array, "<f4").tobytes() for array in arrays]

    def _as_written(self, index: int) -> list[str]:
        return [self._blobs[source] for source in self._network.nodes[index].inputs]

    def _maps(self, index: int) -> list[str]:
        places = range(len(self._network.nodes[index].inputs))
        return [self._map(index, place) for place in places]

    def _map(self, index: int, place: int) -> str:
        """The blob that a node reads there, with three axes."""
        source = self._network.nodes[index].inputs[place]
        if not self._flat[source]:
            return self._blobs[source]
        channels = self._network.nodes[source].shape[0]
        name = f"n{index}.map{place}"
        sizes: dict[int, Value] = {0: 1, 1: 1, 2: channels}
        self._layers.append(NcnnLayer("Reshape", name, (self._blobs[source],), (name,), sizes))
        return name

    def _add(
        self, kind: str, index: int, inputs: Sequence[str], params: Mapping[int, Value]
    ) -> None:
        output = self._blobs[index]
        self._layers.append(NcnnLayer(kind, output, tuple(inputs), (output,), params))


def _is_product(layer: Conv) -> bool:
    """Whether it is a product with a matrix where there is one place only."""
    return layer.kernel == 1 and layer.groups == 1


def _pooling(layer: Pool) -> dict[int, Value]:
    (height, width), (down, right) = pair(layer.kernel), pair(layer.stride)
    above, left = pair(layer.padding)
    return {
        0: int(layer.kind == "average"),
        1: width,
        11: height,
        2: right,
        12: down,
        3: left,
        13: above,
        14: left,
        15: above,
        5: 1,  # as many windows as fit, none that reaches further than the padding
        6: 0,  # a mean leaves the padding out
    }
