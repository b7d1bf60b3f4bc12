"""Writes .tflite files operator by operator.

A graph at batch 1 whose tensors are numbered in the order in which they are added. Every operator
is of version 1, which each runtime has.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tflite.ActivationFunctionType import ActivationFunctionType
from tflite.Padding import Padding

from host.network.tflite_tables import (
    OPTIONS,
    Element,
    Graph,
    Operator,
    Quantisation,
    Tensor,
    encoded,
)

Fused = Literal["relu", "relu6"]
"""Activations that operators compute in the same step."""
Array = npt.NDArray[Any]
OMITTED = -1
"""An input that an operator can do without."""

FUSED: dict[Fused | None, int] = {
    None: ActivationFunctionType.NONE,
    "relu": ActivationFunctionType.RELU,
    "relu6": ActivationFunctionType.RELU6,
}
_ELEMENTS: dict[str, Element] = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8"}


class TfliteFile:
    """A file in the making. Tensors and operators are added in the order in which they run."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._operators: list[Operator] = []
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

    def rename(self, tensor: int, name: str) -> None:
        """Call a tensor otherwise than "t" and its number. Names must differ."""
        self._tensors[tensor] = replace(self._tensors[tensor], name=name)

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
        self._operators.append(Operator(code, tuple(inputs), output, OPTIONS.get(op), options))
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
            FusedActivationFunction=FUSED[fused],
            **options,
        )

    def pool(
        self,
        op: str,
        source: int,
        window: tuple[int, int],
        stride: tuple[int, int],
        *,
        valid: bool = False,
    ) -> int:
        """AVERAGE_POOL_2D or MAX_POOL_2D with "same" padding or, where `valid`, none."""
        return self.operator(
            op,
            [source],
            self._windowed(source, window, stride, self.shape(source)[-1], valid=valid),
            Padding=Padding.VALID if valid else Padding.SAME,
            StrideH=stride[0],
            StrideW=stride[1],
            FilterHeight=window[0],
            FilterWidth=window[1],
        )

    def pad(
        self,
        source: int,
        rows: tuple[int, int],
        columns: tuple[int, int],
        value: float = 0.0,
    ) -> int:
        """An image with a border of that value: rows above and below, columns left and right."""
        batch, height, width, channels = self.shape(source)
        amounts = self.integers([[0, 0], rows, columns, [0, 0]])
        shape = (batch, height + sum(rows), width + sum(columns), channels)
        if value == 0:
            return self.operator("PAD", [source, amounts], shape)
        return self.operator("PADV2", [source, amounts, self.scalar(value)], shape)

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
            FusedActivationFunction=FUSED[fused],
        )

    def combine(self, op: str, one: int, other: int, fused: Fused | None = None) -> int:
        """ADD, SUB, MUL or DIV, of the shape of the first."""
        shape = self.shape(one)
        return self.operator(op, [one, other], shape, FusedActivationFunction=FUSED[fused])

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

    def finish(self, *outputs: int, signature: str | None = None) -> bytes:
        """The file with these outputs. By its signature, if named, a runtime takes inputs and
        outputs by their names.
        """
        return encoded(self.graph(*outputs, signature=signature))

    def graph(self, *outputs: int, signature: str | None = None) -> Graph:
        """What the file with these outputs holds."""
        return Graph(
            tensors=tuple(self._tensors),
            operators=tuple(self._operators),
            inputs=tuple(self._inputs),
            outputs=outputs,
            codes=tuple(self._codes),
            buffers=tuple(self._buffers),
            signature=signature,
        )

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
        number = len(self._tensors)
        self._tensors.append(
            Tensor(f"t{number}", tuple(shape), element, buffer, quantisation, variable)
        )
        return number
