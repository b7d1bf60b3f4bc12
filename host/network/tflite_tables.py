"""A graph as the bytes of a .tflite file; the schema's tables come from the package `tflite`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import flatbuffers
import numpy as np
from tflite.BuiltinOperator import BuiltinOperator
from tflite.BuiltinOptions import BuiltinOptions
from tflite.TensorType import TensorType

Element = Literal["FLOAT32", "INT32", "INT8"]

IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_NARROW = 127  # the largest operator code of the field that old files have
_ALIGNMENT = 16  # of constants; schema.fbs: force_align
_ELSEWHERE = 2  # a place of a constant outside the tables: 0 and 1 mean that there is none
OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GELU": "GeluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SUB": "SubOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
}
"""The table of an operator's options, where it has any."""


@dataclass(frozen=True)
class Quantisation:
    """real = scale x integer; a scale for each place along `axis`, or a single one."""

    scales: tuple[float, ...]
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor by its name; its numbers stand in a buffer, 0 where it has none."""

    name: str
    shape: tuple[int, ...]
    element: Element
    buffer: int
    quantisation: Quantisation | None
    variable: bool


@dataclass(frozen=True)
class Operator:
    """A step: its code by number, tensors by number, and the fields of its table of options."""

    code: int
    inputs: tuple[int, ...]
    output: int
    options: str | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """What a file holds. `codes` are operators by their name in the schema. The first buffer is
    that of all tensors without numbers; None is one that lies elsewhere.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    codes: tuple[str, ...]
    buffers: tuple[bytes | None, ...]
    signature: str | None


def encoded(graph: Graph) -> bytes:
    """The file of a graph."""
    size = sum(len(held) + _ALIGNMENT for held in graph.buffers if held is not None)
    builder = flatbuffers.Builder(size + 1024 * (len(graph.tensors) + 1))
    buffers = [_buffer(builder, held) for held in graph.buffers]
    model = table(
        builder,
        "Model",
        OperatorCodes=tables(builder, [_code(builder, op) for op in graph.codes]),
        Subgraphs=tables(builder, [_graph(builder, graph)]),
        Buffers=tables(builder, buffers),
        Version=_SCHEMA_VERSION,
        **_signed(builder, graph),
    )
    builder.Finish(model, IDENTIFIER)
    return bytes(builder.Output())


def table(builder: Any, name: str, **fields: Any) -> int:
    """A table of the schema with these fields; returns its place."""
    module = import_module(f"tflite.{name}")
    getattr(module, f"{name}Start")(builder)
    for key, value in fields.items():
        getattr(module, f"{name}Add{key}")(builder, value)
    place: int = getattr(module, f"{name}End")(builder)
    return place


def tables(builder: Any, places: Sequence[int]) -> int:
    """A vector of tables by their places; returns its own."""
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    vector: int = builder.EndVector()
    return vector


def _graph(builder: Any, graph: Graph) -> int:
    tensors = [_tensor(builder, tensor) for tensor in graph.tensors]
    operators = [_operator(builder, one) for one in graph.operators]
    return table(
        builder,
        "SubGraph",
        Tensors=tables(builder, tensors),
        Inputs=_integers(builder, graph.inputs),
        Outputs=_integers(builder, graph.outputs),
        Operators=tables(builder, operators),
    )


def _signed(builder: Any, graph: Graph) -> dict[str, int]:
    if graph.signature is None:
        return {}
    made = table(
        builder,
        "SignatureDef",
        Inputs=tables(builder, [_argument(builder, graph, one) for one in graph.inputs]),
        Outputs=tables(builder, [_argument(builder, graph, one) for one in graph.outputs]),
        SignatureKey=builder.CreateString(graph.signature),
    )
    return {"SignatureDefs": tables(builder, [made])}


def _argument(builder: Any, graph: Graph, tensor: int) -> int:
    name = builder.CreateString(graph.tensors[tensor].name)
    return table(builder, "TensorMap", Name=name, TensorIndex=tensor)


def _tensor(builder: Any, tensor: Tensor) -> int:
    fields: dict[str, Any] = {
        "Shape": _integers(builder, tensor.shape),
        "Name": builder.CreateString(tensor.name),
        "Type": getattr(TensorType, tensor.element),
        "Buffer": tensor.buffer,
        "IsVariable": tensor.variable,
    }
    if tensor.quantisation is not None:
        fields["Quantization"] = _quantisation(builder, tensor.quantisation)
    return table(builder, "Tensor", **fields)


def _quantisation(builder: Any, quantisation: Quantisation) -> int:
    scales = np.array(quantisation.scales, np.float32)
    return table(
        builder,
        "QuantizationParameters",
        Scale=builder.CreateNumpyVector(scales),
        ZeroPoint=builder.CreateNumpyVector(np.zeros(len(scales), np.int64)),
        QuantizedDimension=quantisation.axis,
    )


def _operator(builder: Any, operator: Operator) -> int:
    fields: dict[str, Any] = {
        "OpcodeIndex": operator.code,
        "Inputs": _integers(builder, operator.inputs),
        "Outputs": _integers(builder, [operator.output]),
    }
    if operator.options is not None:
        fields["BuiltinOptions"] = table(builder, operator.options, **operator.values)
        fields["BuiltinOptionsType"] = getattr(BuiltinOptions, operator.options)
    return table(builder, "Operator", **fields)


def _code(builder: Any, op: str) -> int:
    number = getattr(BuiltinOperator, op)
    return table(
        builder,
        "OperatorCode",
        BuiltinCode=number,
        DeprecatedBuiltinCode=min(number, _NARROW),
        Version=1,
    )


def _buffer(builder: Any, held: bytes | None) -> int:
    if held is None:
        return table(builder, "Buffer", Offset=_ELSEWHERE, Size=1)
    if not held:
        return table(builder, "Buffer")
    builder.Prep(_ALIGNMENT, len(held))
    return table(builder, "Buffer", Data=builder.CreateByteVector(held))


def _integers(builder: Any, values: Sequence[int]) -> int:
    vector: int = builder.CreateNumpyVector(np.array(values, np.int32))
    return vector
