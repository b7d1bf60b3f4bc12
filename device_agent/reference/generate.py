"""Writes the models of this folder: `python -m device_agent.reference.generate`.

For developers, standard library only: the same bytes on every machine and with every version of
other tools. ONNX is protobuf (field numbers of onnx.proto3), TFLite a flatbuffer (schema.fbs,
version 3), ncnn a text and weights in a ZIP; all are written by hand below.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_agent.reference import REFERENCE_FOLDER
from device_agent.reference.encoding import I8, I32, field, flatbuffer, stored_zip

# Every onnxruntime since 1.8 reads these; every onnx tool since 1.10 too.
_OPSET, _IR_VERSION = 13, 7
_SEED = 20_240_229
_SIZE = 96
_KERNEL = 3
_AVERAGE_POOL_2D, _CONV_2D, _FULLY_CONNECTED = 1, 3, 9
_TFLITE_VERSION = 3

TFLITE_IDENTIFIER = b"TFL3"
FLOAT32 = 0
"""TFLite's number of the type."""

NCNN_FLOAT32 = bytes(4)
"""What stands before ncnn's weights where they are float32."""


@dataclass(frozen=True)
class Convolution:
    """3x3 with "same" padding, its weights as output channel, input channel, row, column; ReLU
    follows.
    """

    stride: int
    inputs: int
    outputs: int
    weights: tuple[float, ...]
    bias: tuple[float, ...]

    def channels_last(self) -> tuple[float, ...]:
        """The weights as output channel, row, column, input channel."""
        area = _KERNEL * _KERNEL
        return tuple(
            self.weights[(out * self.inputs + channel) * area + position]
            for out in range(self.outputs)
            for position in range(area)
            for channel in range(self.inputs)
        )


def convolutions() -> tuple[Convolution, ...]:
    """The layers of the reference model: 17 million multiplications for an input of 96x96x3."""
    draw = random.Random(_SEED)  # noqa: S311 - a fixed network, no secret
    layers = []
    for stride, inputs, outputs in ((2, 3, 16), (1, 16, 24), (1, 24, 16)):
        # Uniform values of this width keep the activations' size from layer to layer.
        width = (6 / (inputs * _KERNEL * _KERNEL)) ** 0.5
        count = inputs * outputs * _KERNEL * _KERNEL
        weights = tuple(_single(draw.uniform(-width, width)) for _ in range(count))
        bias = tuple(_single(draw.uniform(-0.1, 0.1)) for _ in range(outputs))
        layers.append(Convolution(stride, inputs, outputs, weights, bias))
    return tuple(layers)


def reference_onnx() -> bytes:
    """Convolutions with ReLU, then the mean of each channel: "x" 1x3x96x96 to "y" 1x16x1x1."""
    nodes, tensors, value = [], [], "x"
    for number, layer in enumerate(convolutions()):
        # Strided "same" padding of an even size is one row and column at the end.
        pads = (0, 0, 1, 1) if layer.stride == 2 else (1, 1, 1, 1)
        weights, bias, out = f"w{number}", f"b{number}", f"conv{number}"
        attributes = {
            "kernel_shape": (_KERNEL, _KERNEL),
            "strides": (layer.stride, layer.stride),
            "pads": pads,
        }
        nodes.append(_node("Conv", (value, weights, bias), out, attributes))
        value = f"relu{number}"
        nodes.append(_node("Relu", (out,), value, {}))
        shape = (layer.outputs, layer.inputs, _KERNEL, _KERNEL)
        tensors += [
            _tensor(weights, shape, layer.weights),
            _tensor(bias, shape[:1], layer.bias),
        ]
    nodes.append(_node("GlobalAveragePool", (value,), "y", {}))
    return _model("reference", nodes, tensors, x=(1, 3, _SIZE, _SIZE), y=(1, 16, 1, 1))


def tiny_onnx() -> bytes:
    """The product of "x" 1x2 with [[1, 2], [3, 4]]."""
    weights = _tensor("w", (2, 2), (1.0, 2.0, 3.0, 4.0))
    return _model("tiny", [_node("MatMul", ("x", "w"), "y", {})], [weights], x=(1, 2), y=(1, 2))


def reference_tflite() -> bytes:
    """The same arithmetic as `reference_onnx` with channels last: 1x96x96x3 to 1x1x1x16."""
    graph = TfliteGraph(x=(1, _SIZE, _SIZE, 3))
    value, size = 0, _SIZE
    for number, layer in enumerate(convolutions()):
        size //= layer.stride
        shape = (layer.outputs, _KERNEL, _KERNEL, layer.inputs)
        weights = graph.tensor(f"w{number}", shape, _floats(layer.channels_last()))
        bias = graph.tensor(f"b{number}", shape[:1], _floats(layer.bias))
        out = graph.tensor(f"relu{number}", (1, size, size, layer.outputs))
        # Conv2DOptions: stride_w, stride_h, fused_activation_function (RELU); padding is SAME.
        options = {1: I32(layer.stride), 2: I32(layer.stride), 3: I8(1)}
        graph.operator(_CONV_2D, (value, weights, bias), out, (1, options))
        value = out
    out = graph.tensor("y", (1, 1, 1, 16))
    # Pool2DOptions: padding VALID, strides, filter.
    options = {0: I8(1), 1: I32(1), 2: I32(1), 3: I32(size), 4: I32(size)}
    graph.operator(_AVERAGE_POOL_2D, (value,), out, (5, options))
    return graph.model(out)


def tiny_tflite() -> bytes:
    """The product of "x" 1x2 with [[1, 2], [3, 4]]."""
    graph = TfliteGraph(x=(1, 2))
    weights = graph.tensor("w", (2, 2), _floats((1.0, 3.0, 2.0, 4.0)))
    bias = graph.tensor("b", (2,), _floats((0.0, 0.0)))
    out = graph.tensor("y", (1, 2))
    graph.operator(_FULLY_CONNECTED, (0, weights, bias), out, (8, {}))
    return graph.model(out)


def reference_ncnn() -> bytes:
    """The same arithmetic as `reference_onnx` without a batch: "x" 3x96x96 to "y" 16."""
    layers, content, value = [f"Input x 0 1 x 0={_SIZE} 1={_SIZE} 2=3"], [], "x"
    for number, layer in enumerate(convolutions()):
        # Padding on the left, right, top and bottom; activation 1 is ReLU.
        pads = "4=0 15=1 14=0 16=1" if layer.stride == 2 else "4=1"
        out = f"relu{number}"
        layers.append(
            f"Convolution {out} 1 1 {value} {out} 0={layer.outputs} 1={_KERNEL} 3={layer.stride}"
            f" {pads} 5=1 6={len(layer.weights)} 9=1"
        )
        content += [NCNN_FLOAT32, _floats(layer.weights), _floats(layer.bias)]
        value = out
    layers.append(f"Pooling y 1 1 {value} y 0=1 4=1")
    return ncnn_model(layers, b"".join(content))


def tiny_ncnn() -> bytes:
    """The product of "x" 2 with [[1, 2], [3, 4]]."""
    layers = ["Input x 0 1 x 0=2", "InnerProduct y 1 1 x y 0=2 1=0 2=4"]
    return ncnn_model(layers, NCNN_FLOAT32 + _floats((1.0, 3.0, 2.0, 4.0)))


FILES = {
    "reference.onnx": reference_onnx,
    "reference.tflite": reference_tflite,
    "reference.ncnn": reference_ncnn,
    "tiny.onnx": tiny_onnx,
    "tiny.tflite": tiny_tflite,
    "tiny.ncnn": tiny_ncnn,
}
"""What each shipped file is made by."""


def _single(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def _floats(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def _tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    dims = b"".join(field(1, size) for size in shape)
    return dims + field(2, 1) + field(8, name) + field(9, _floats(values))


def _node(
    kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Sequence[int]]
) -> bytes:
    # AttributeProto: name, ints, type INTS.
    written = [
        field(1, name) + b"".join(field(8, value) for value in values) + field(20, 7)
        for name, values in attributes.items()
    ]
    return (
        b"".join(field(1, name) for name in inputs)
        + field(2, output)
        + field(3, output)
        + field(4, kind)
        + b"".join(field(5, attribute) for attribute in written)
    )


def _value_info(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def _model(
    name: str,
    nodes: Sequence[bytes],
    tensors: Sequence[bytes],
    *,
    x: Sequence[int],
    y: Sequence[int],
) -> bytes:
    graph = (
        b"".join(field(1, node) for node in nodes)
        + field(2, name)
        + b"".join(field(5, tensor) for tensor in tensors)
        + field(11, _value_info("x", x))
        + field(12, _value_info("y", y))
    )
    return (
        field(1, _IR_VERSION)
        + field(2, "genba")
        + field(7, graph)
        + field(8, field(1, "") + field(2, _OPSET))
    )


def ncnn_model(layers: Sequence[str], weights: bytes) -> bytes:
    """The container of these lines of ncnn's text, each of which writes what its counts say."""
    blobs = sum(int(line.split()[3]) for line in layers)
    text = "\n".join(["7767517", f"{len(layers)} {blobs}", *layers, ""])
    return stored_zip({"model.param": text.encode(), "model.bin": weights})


class TfliteGraph:
    """One graph with an input "x"; buffer 0 is the empty one, as the format demands."""

    def __init__(self, x: Sequence[int], kind: int = FLOAT32) -> None:
        self._tensors: list[dict[int, Any]] = []
        self._buffers: list[dict[int, Any]] = [{}]
        self._operators: list[dict[int, Any]] = []
        self._codes: list[int] = []
        self.tensor("x", x, kind=kind)

    def tensor(
        self, name: str, shape: Sequence[int], data: bytes = b"", *, kind: int = FLOAT32
    ) -> int:
        """Add a tensor, a constant one where it has data; its index."""
        buffer = 0
        if data:
            buffer = len(self._buffers)
            self._buffers.append({0: data})
        self._tensors.append({0: tuple(shape), 1: I8(kind), 2: I32(buffer), 3: name})
        return len(self._tensors) - 1

    def operator(
        self, code: int, inputs: Sequence[int], output: int, options: tuple[int, dict[int, Any]]
    ) -> None:
        """Add an operator; options are the number of their type and their table."""
        if code not in self._codes:
            self._codes.append(code)
        kind, table = options
        self._operators.append(
            {
                0: I32(self._codes.index(code)),
                1: tuple(inputs),
                2: (output,),
                3: I8(kind),
                4: table,
            }
        )

    def tree(self, output: int) -> dict[int, Any]:
        """The model as `flatbuffer` takes it."""
        graph = {0: self._tensors, 1: (0,), 2: (output,), 3: self._operators, 4: "main"}
        codes = [{0: I8(code), 2: I32(1), 3: I32(code)} for code in self._codes]
        return {0: I32(_TFLITE_VERSION), 1: codes, 2: [graph], 3: "genba", 4: self._buffers}

    def model(self, output: int) -> bytes:
        """The file."""
        return flatbuffer(self.tree(output), TFLITE_IDENTIFIER)


if __name__ == "__main__":
    for file_name, make in FILES.items():
        (REFERENCE_FOLDER / file_name).write_bytes(make())
