"""Writes .tflite files operator by operator; the schema's tables come from the package `tflite`.

A graph at batch 1 whose tensors are numbered in the order in which they are added. Every operator
is of version 1, which each runtime has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import flatbuffers
import numpy as np
import numpy.typing as npt
from tflite.ActivationFunctionType import ActivationFunctionType
from tflite.BuiltinOperator import BuiltinOperator
from tflite.BuiltinOptions import BuiltinOptions
from tflite.Padding import Padding
from tflite.TensorType import TensorType

Element = Literal["FLOAT32", "INT32", "INT8"]
Fused = Literal["relu", "relu6"]
"""Activations that operators compute in the same step."""
Array = npt.NDArray[Any]
OMITTED = -1
"""An input that an operator can do without."""

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_NARROW = 127  # the largest operator code of the field that old files have
_ALIGNMENT = 16  # of constants; schema.fbs: force_align
_ELSEWHERE = 2  # a place of a constant outside the tables: 0 and 1 mean that there is none
_FUSED = {
    None: ActivationFunctionType.NONE,
    "relu": ActivationFunctionType.RELU,
    "relu6": ActivationFunctionType.RELU6,
}
_ELEMENTS: dict[str, Element] = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8"}
_OPTIONS = {
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


@dataclass(frozen=True)
class Quantisation:
    """real = scale x integer; a scale for each place along `axis`, or a single one."""

    scales: tuple[float, ...]
    axis: int = 0


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    element: Element
    buffer: int
    quantisation: Quantisation | None
    variable: bool


@dataclass(frozen=True)
class _Operator:
    code: int
    inputs: tuple[int, ...]
    output: int
    options: str | None
    values: Mapping[str, Any]


class TfliteFile:
    """A file in the making. Tensors and operators are added in the order in which they run."""

    def __init__(self) -> None:
        self._tensors: list[_Tensor] = []
        self._operators: list[_Operator] = []
        self._inputs: list[int] = []
        self._codes: dict[str, int] = {}
        # The first is that of all tensors without numbers; None is one that lies elsewhere.
        self._buffers: list[bytes | None] = [b""]

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor, batch included."""
        return self._tensors[tensor].shape

    def element(self, tensor: int) -> Element:
        """What a tensor is made of."""
        return self._tensors[tensor].element

    def input(self, *shape: int) -> int:
        """An input of 32-bit floats."""
        tensor = self._tensor(shape, "FLOAT32")
        self._inputs.append(tensor)
        return tensor

    def constant(self, values: Array, quantisation: Quantisation | None = None) -> int:
        """A tensor whose numbers stand in the file: float32, int32 or int8."""
        self._buffers.append(values.tobytes())
        return self._stored(values.shape, _ELEMENTS[values.dtype.name], quantisation)

    def named(
        self, shape: Sequence[int], element: Element, quantisation: Quantisation | None = None
    ) -> int:
        """A constant without its numbers: they are said to lie where nobody has them."""
        self._buffers.append(None)
        return self._stored(shape, element, quantisation)

    def state(self, *shape: int) -> int:
        """A tensor that keeps its numbers from one inference to the next."""
        return self._tensor(shape, "FLOAT32", variable=True)

    def operator(
        self,
        op: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        quantisation: Quantisation | None = None,
        **options: Any,
    ) -> int:
        """An operator by its name in the schema; returns its one output, of that shape.

        `options` are the fields of the operator's table as the schema's package spells them. The
        output is of int8 where it has a quantisation, of float32 otherwise.
        """
        element: Element = "FLOAT32" if quantisation is None else "INT8"
        output = self._tensor(shape, element, quantisation=quantisation)
        code = self._codes.setdefault(op, len(self._codes))
        self._operators.append(_Operator(code, tuple(inputs), output, _OPTIONS.get(op), options))
        return output

    def convolve(
        self,
        source: int,
        weights: int,
        bias: int,
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        valid: bool = False,
        fused: Fused | None = None,
        quantisation: Quantisation | None = None,
    ) -> int:
        """A convolution with weights of (channels, rows, columns, channels read), or one filter a
        channel with weights of (1, rows, columns, channels); with "same" padding or, where
        `valid`, none.
        """
        first, *window, _ = self.shape(weights)
        depthwise = first == 1 and self.shape(bias) != (1,)
        options = {"DepthMultiplier": 1} if depthwise else {}
        return self.operator(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            [source, weights, bias],
            self._windowed(source, window, stride, self.shape(bias)[0], valid=valid),
            quantisation,
            Padding=Padding.VALID if valid else Padding.SAME,
            StrideH=stride[0],
            StrideW=stride[1],
            DilationHFactor=dilation[0],
            DilationWFactor=dilation[1],
            FusedActivationFunction=_FUSED[fused],
            **options,
        )

    def pool(self, op: str, source: int, window: tuple[int, int], stride: tuple[int, int]) -> int:
        """AVERAGE_POOL_2D or MAX_POOL_2D with "same" padding."""
        return self.operator(
            op,
            [source],
            self._windowed(source, window, stride, self.shape(source)[-1], valid=False),
            Padding=Padding.SAME,
            StrideH=stride[0],
            StrideW=stride[1],
            FilterHeight=window[0],
            FilterWidth=window[1],
        )

    def connect(
        self,
        source: int,
        weights: int,
        bias: int,
        *,
        fused: Fused | None = None,
        quantisation: Quantisation | None = None,
    ) -> int:
        """The product of the last axis with weights of (features, features read), and a bias."""
        rest = self.shape(source)[:-1]
        return self.operator(
            "FULLY_CONNECTED",
            [source, weights, bias],
            (*rest, self.shape(weights)[0]),
            quantisation,
            KeepNumDims=len(rest) > 1,
            FusedActivationFunction=_FUSED[fused],
        )

    def combine(self, op: str, one: int, other: int, fused: Fused | None = None) -> int:
        """ADD, SUB, MUL or DIV, of the shape of the first."""
        shape = self.shape(one)
        return self.operator(op, [one, other], shape, FusedActivationFunction=_FUSED[fused])

    def mean(self, source: int, *axes: int) -> int:
        """The mean over these axes, which keep one element."""
        shape = [1 if axis in axes else side for axis, side in enumerate(self.shape(source))]
        return self.operator("MEAN", [source, self.integers(axes)], shape, KeepDims=True)

    def reshape(self, source: int, *shape: int) -> int:
        """The same numbers in another shape."""
        return self.operator("RESHAPE", [source, self.integers(shape)], shape)

    def integers(self, values: Sequence[int] | Sequence[Sequence[int]]) -> int:
        """A constant of 32-bit integers: a shape, axes or bounds."""
        return self.constant(np.array(values, np.int32))

    def scalar(self, value: float) -> int:
        """A constant float."""
        return self.constant(np.array(value, np.float32))

    def finish(self, *outputs: int) -> bytes:
        """The file with these outputs."""
        size = sum(len(held) + _ALIGNMENT for held in self._buffers if held is not None)
        builder = flatbuffers.Builder(size + 1024 * (len(self._tensors) + 1))
        buffers = [_buffer(builder, held) for held in self._buffers]
        model = _table(
            builder,
            "Model",
            OperatorCodes=_tables(builder, [_code(builder, op) for op in self._codes]),
            Subgraphs=_tables(builder, [self._graph(builder, outputs)]),
            Buffers=_tables(builder, buffers),
            Version=_SCHEMA_VERSION,
        )
        builder.Finish(model, _IDENTIFIER)
        return bytes(builder.Output())

    def _windowed(
        self,
        source: int,
        window: Sequence[int],
        stride: Sequence[int],
        channels: int,
        *,
        valid: bool,
    ) -> tuple[int, ...]:
        sides = [
            (side - (size - 1 if valid else 0) - 1) // step + 1
            for side, size, step in zip(self.shape(source)[1:3], window, stride, strict=True)
        ]
        return (1, *sides, channels)

    def _stored(
        self, shape: Sequence[int], element: Element, quantisation: Quantisation | None
    ) -> int:
        place = len(self._buffers) - 1
        return self._tensor(shape, element, buffer=place, quantisation=quantisation)

    def _tensor(
        self,
        shape: Sequence[int],
        element: Element,
        *,
        buffer: int = 0,
        quantisation: Quantisation | None = None,
        variable: bool = False,
    ) -> int:
        self._tensors.append(_Tensor(tuple(shape), element, buffer, quantisation, variable))
        return len(self._tensors) - 1

    def _graph(self, builder: Any, outputs: Sequence[int]) -> int:
        tensors = [
            _tensor(builder, f"t{number}", tensor) for number, tensor in enumerate(self._tensors)
        ]
        operators = [_operator(builder, one) for one in self._operators]
        return _table(
            builder,
            "SubGraph",
            Tensors=_tables(builder, tensors),
            Inputs=_integers(builder, self._inputs),
            Outputs=_integers(builder, outputs),
            Operators=_tables(builder, operators),
        )


def _tensor(builder: Any, name: str, tensor: _Tensor) -> int:
    fields: dict[str, Any] = {
        "Shape": _integers(builder, tensor.shape),
        "Name": builder.CreateString(name),
        "Type": getattr(TensorType, tensor.element),
        "Buffer": tensor.buffer,
        "IsVariable": tensor.variable,
    }
    if tensor.quantisation is not None:
        fields["Quantization"] = _quantisation(builder, tensor.quantisation)
    return _table(builder, "Tensor", **fields)


def _quantisation(builder: Any, quantisation: Quantisation) -> int:
    scales = np.array(quantisation.scales, np.float32)
    return _table(
        builder,
        "QuantizationParameters",
        Scale=builder.CreateNumpyVector(scales),
        ZeroPoint=builder.CreateNumpyVector(np.zeros(len(scales), np.int64)),
        QuantizedDimension=quantisation.axis,
    )


def _operator(builder: Any, operator: _Operator) -> int:
    fields: dict[str, Any] = {
        "OpcodeIndex": operator.code,
        "Inputs": _integers(builder, operator.inputs),
        "Outputs": _integers(builder, [operator.output]),
    }
    if operator.options is not None:
        fields["BuiltinOptions"] = _table(builder, operator.options, **operator.values)
        fields["BuiltinOptionsType"] = getattr(BuiltinOptions, operator.options)
    return _table(builder, "Operator", **fields)


def _code(builder: Any, op: str) -> int:
    number = getattr(BuiltinOperator, op)
    return _table(
        builder,
        "OperatorCode",
        BuiltinCode=number,
        DeprecatedBuiltinCode=min(number, _NARROW),
        Version=1,
    )


def _buffer(builder: Any, held: bytes | None) -> int:
    if held is None:
        return _table(builder, "Buffer", Offset=_ELSEWHERE, Size=1)
    if not held:
        return _table(builder, "Buffer")
    builder.Prep(_ALIGNMENT, len(held))
    return _table(builder, "Buffer", Data=builder.CreateByteVector(held))


def _table(builder: Any, name: str, **fields: Any) -> int:
    """A table of the schema with these fields; returns its place."""
    module = import_module(f"tflite.{name}")
    getattr(module, f"{name}Start")(builder)
    for key, value in fields.items():
        getattr(module, f"{name}Add{key}")(builder, value)
    place: int = getattr(module, f"{name}End")(builder)
    return place


def _tables(builder: Any, places: Sequence[int]) -> int:
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    vector: int = builder.EndVector()
    return vector


def _integers(builder: Any, values: Sequence[int]) -> int:
    vector: int = builder.CreateNumpyVector(np.array(values, np.int32))
    return vector
