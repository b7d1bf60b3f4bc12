"""A `Network` as ONNX bytes, without tracing: opset 17 and IR 8, which runtimes of 2022 load."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper

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
    PoolKind,
    Scale,
    pair,
)
from host.network.kernels import ACTIVATION_OPS
from host.network.weights import Array, Weights

Attribute = int | float | tuple[int, ...]

OPSET = 17
IR_VERSION = 8
INPUT_NAME = "input"
OUTPUT_NAME = "logits"
_OPERATORS: dict[type, tuple[str, ...]] = {
    Input: (),
    Conv: ("Conv",),
    BatchNorm: ("BatchNormalization",),
    GlobalPool: ("GlobalAveragePool",),
    Add: ("Add",),
    Scale: ("Mul",),
}
_NORM_EPSILON = 1e-5
_POOLS: dict[PoolKind, str] = {"average": "AveragePool", "maximum": "MaxPool"}
_ACTIVATION_ATTRIBUTES: dict[ActivationKind, dict[str, float]] = {
    "hard_sigmoid": {"alpha": 1 / 6, "beta": 0.5},
}


def onnx_bytes(
    network: Network, weights: Weights, metadata: Mapping[str, str] | None = None
) -> bytes:
    """The network as a serialised ONNX model.

    Input `input` is float32 of shape (1, C, H, W), or (1, C, 1, L) for signals, output `logits` of
    shape (1, classes).
    `metadata` becomes the file's `metadata_props`.
    """
    model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="genba")
    model.opset_import.add(domain="", version=OPSET)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    model.graph.name = "genba"
    model.graph.input.append(_value(INPUT_NAME, network.input_shape))
    model.graph.output.append(_value(OUTPUT_NAME, network.output_shape))
    writer = _Writer(model.graph)
    last = len(network.nodes) - 1
    for index, node in enumerate(network.nodes):
        writer.output = OUTPUT_NAME if index == last else f"n{index}"
        writer.inputs = [INPUT_NAME if i == 0 else f"n{i}" for i in node.inputs]
        _write(writer, index, node, weights)
    return model.SerializeToString()


def operators_of(network: Network) -> tuple[str, ...]:
    """The operators of a network's file, each once."""
    names = (name for node in network.nodes for name in _operators(node.layer))
    return tuple(dict.fromkeys(names))


def _operators(layer: Layer) -> tuple[str, ...]:
    match layer:
        case Activation(kind=kind):
            return (ACTIVATION_OPS[kind],)
        case Pool(kind=kind):
            return (_POOLS[kind],)
        case Linear():
            return ("Flatten", "Gemm")
        case _:
            return _OPERATORS[type(layer)]


class _Writer:
    """Appends to a graph, in place: copies of the weights cost more than all the rest.

    Holds the names of what the node being written reads and writes.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self.inputs: list[str] = []
        self.output = ""

    def node(self, op: str, extra: Sequence[str] = (), **attributes: Attribute) -> None:
        """An operator on the current inputs and the extra ones, writing the current output."""
        node = self._graph.node.add(
            op_type=op, input=[*self.inputs, *extra], output=[self.output], name=self.output
        )
        node.attribute.extend(_attribute(name, value) for name, value in attributes.items())

    def constant(self, name: str, values: Array) -> str:
        """An initialiser; returns its name."""
        self._graph.initializer.add(
            name=name,
            data_type=TensorProto.FLOAT,
            dims=values.shape,
            raw_data=np.ascontiguousarray(values, dtype="<f4").tobytes(),
        )
        return name

    def weights(self, index: int, weights: Weights) -> list[str]:
        """The two initialisers of a node with weights."""
        weight, bias = weights[index]
        return [
            self.constant(f"n{index}.weight", weight),
            self.constant(f"n{index}.bias", bias),
        ]


@lru_cache(maxsize=1024, typed=True)
def _attribute(name: str, value: Attribute) -> onnx.AttributeProto:
    return helper.make_attribute(name, value)


def _write(writer: _Writer, index: int, node: Node, weights: Weights) -> None:
    layer = node.layer
    match layer:
        case Conv():
            _write_conv(writer, index, layer, weights)
        case BatchNorm():
            _write_norm(writer, index, node, weights)
        case Activation():
            _write_activation(writer, layer.kind)
        case Pool():
            _write_pool(writer, layer)
        case GlobalPool():
            writer.node("GlobalAveragePool")
        case Add():
            writer.node("Add")
        case Scale():
            writer.node("Mul")
        case Linear():
            _write_linear(writer, index, weights)
        case Input():
            pass


def _write_conv(writer: _Writer, index: int, layer: Conv, weights: Weights) -> None:
    writer.node(
        "Conv",
        writer.weights(index, weights),
        kernel_shape=pair(layer.kernel),
        strides=pair(layer.stride),
        pads=layer.padding * 2,
        group=layer.groups,
    )


def _write_norm(writer: _Writer, index: int, node: Node, weights: Weights) -> None:
    channels = node.shape[0]
    names = writer.weights(index, weights)
    names.append(writer.constant(f"n{index}.mean", np.zeros(channels, np.float32)))
    # The weights hold scale and shift already: this variance makes the operator's own scale one.
    variance = np.full(channels, 1.0 - _NORM_EPSILON, np.float32)
    names.append(writer.constant(f"n{index}.variance", variance))
    writer.node("BatchNormalization", names, epsilon=_NORM_EPSILON)


def _write_activation(writer: _Writer, kind: ActivationKind) -> None:
    bounds = []
    if kind == "relu6":
        bounds = [
            writer.constant(f"{writer.output}.low", np.array(0.0, np.float32)),
            writer.constant(f"{writer.output}.high", np.array(6.0, np.float32)),
        ]
    writer.node(ACTIVATION_OPS[kind], bounds, **_ACTIVATION_ATTRIBUTES.get(kind, {}))


def _write_pool(writer: _Writer, layer: Pool) -> None:
    writer.node(
        _POOLS[layer.kind],
        kernel_shape=pair(layer.kernel),
        strides=pair(layer.stride),
        pads=pair(layer.padding) * 2,
    )


def _write_linear(writer: _Writer, index: int, weights: Weights) -> None:
    output = writer.output
    writer.output = f"n{index}.flat"
    writer.node("Flatten")
    writer.inputs, writer.output = [writer.output], output
    writer.node("Gemm", writer.weights(index, weights), transB=1)


def _value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, *shape))
