"""Writes small ONNX models operator by operator, for old runtimes: opset 17 and IR 8."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

OPSET = 17
IR_VERSION = 8
_STEERS = 64
"""Constants of fewer elements are always written: shapes, bounds and scales."""

Attribute = int | float | str | Sequence[int]


@dataclass(frozen=True)
class Tensor:
    """A float32 activation, batch included."""

    name: str
    shape: tuple[int, ...]


class ModelWriter:
    """One model in the making. Each method adds an operator and returns what it writes.

    Weights are drawn from `seed`, scaled so that a chain of any length stays finite; where not
    `filled` they are only named, as external data that nobody has: enough to read kernels from.
    """

    def __init__(self, seed: int = 0, *, filled: bool = True) -> None:
        self._random = np.random.default_rng(seed)
        self._filled = filled
        self._graph = onnx.GraphProto(name="genba")
        self._made = 0

    def input(self, *shape: int) -> Tensor:
        """The model's input."""
        self._graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))
        return Tensor("input", shape)

    def finish(self, output: Tensor) -> bytes:
        """The model with that output, serialised."""
        self._graph.output.append(
            helper.make_tensor_value_info(output.name, TensorProto.FLOAT, output.shape)
        )
        model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="genba", graph=self._graph)
        model.opset_import.add(domain="", version=OPSET)
        return model.SerializeToString()

    def weights(self, *shape: int, fan_in: int = 1) -> str:
        """Normal float32 weights of variance 1 / fan_in; returns their name."""
        name = self._name("weight")
        if self._is_named_only(shape):
            return self._external(name, shape, TensorProto.FLOAT)
        values = self._random.standard_normal(shape, dtype=np.float32)
        return self.constant((values / math.sqrt(fan_in)).astype(np.float32), name)

    def integer_weights(self, *shape: int) -> str:
        """Uniform int8 weights of 7 bits, which no CPU's saturating sums overflow."""
        name = self._name("weight")
        if self._is_named_only(shape):
            return self._external(name, shape, TensorProto.INT8)
        return self.constant(self._random.integers(-63, 64, shape).astype(np.int8), name)

    def constant(self, values: npt.NDArray[np.generic], name: str = "") -> str:
        """A constant of given values; returns its name."""
        name = name or self._name("constant")
        self._graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name

    def sizes(self, *values: int) -> str:
        """A constant int64 vector: a shape, axes or bounds."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def op(
        self,
        op: str,
        inputs: Sequence[Tensor | str],
        shape: Sequence[int] | None = None,
        **attributes: Attribute,
    ) -> Tensor:
        """An operator with one output, by default of the shape of its first input."""
        (output,) = self.ops(op, inputs, [shape], **attributes)
        return output

    def ops(
        self,
        op: str,
        inputs: Sequence[Tensor | str],
        shapes: Sequence[Sequence[int] | None],
        **attributes: Attribute,
    ) -> list[Tensor]:
        """An operator with several outputs."""
        first = inputs[0]
        same = first.shape if isinstance(first, Tensor) else ()
        outputs = [
            Tensor(self._name(op), same if shape is None else tuple(shape)) for shape in shapes
        ]
        names = [one.name if isinstance(one, Tensor) else one for one in inputs]
        node = self._graph.node.add(
            op_type=op,
            name=outputs[0].name,
            input=names,
            output=[one.name for one in outputs],
        )
        node.attribute.extend(
            helper.make_attribute(name, value) for name, value in sorted(attributes.items())
        )
        return outputs

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: int | tuple[int, ...] = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        activation: str | None = "Relu",
    ) -> Tensor:
        """Convolution in one or two dimensions with padding, and an activation."""
        dimensions = len(x.shape) - 2
        window = (kernel,) * dimensions if isinstance(kernel, int) else kernel
        pads = [dilation * (k - 1) // 2 for k in window]
        fan_in = x.shape[1] // groups
        sizes = [
            (size + 2 * pad - dilation * (k - 1) - 1) // stride + 1
            for size, k, pad in zip(x.shape[2:], window, pads, strict=True)
        ]
        weights = self.weights(channels, fan_in, *window, fan_in=fan_in * math.prod(window))
        made = self.op(
            "Conv",
            [x, weights, self.weights(channels)],
            (1, channels, *sizes),
            kernel_shape=list(window),
            pads=pads * 2,
            strides=[stride] * dimensions,
            dilations=[dilation] * dimensions,
            group=groups,
        )
        return made if activation is None else self.op(activation, [made])

    def depthwise(self, x: Tensor, kernel: int = 3, *, stride: int = 1) -> Tensor:
        """One filter a channel, and Relu."""
        return self.conv(x, x.shape[1], kernel, stride=stride, groups=x.shape[1])

    def dense(self, x: Tensor, width: int, *, activation: str | None = "Relu") -> Tensor:
        """Gemm on a matrix, MatMul and Add on more dimensions, and an activation."""
        inside = x.shape[-1]
        shape = (*x.shape[:-1], width)
        weights, bias = self.weights(inside, width, fan_in=inside), self.weights(width)
        if len(x.shape) == 2:
            made = self.op("Gemm", [x, weights, bias], shape)
        else:
            made = self.op("Add", [self.op("MatMul", [x, weights], shape), bias])
        return made if activation is None else self.op(activation, [made])

    def layer_norm(self, x: Tensor) -> Tensor:
        """LayerNormalization over the last axis."""
        size = x.shape[-1]
        return self.op("LayerNormalization", [x, self.weights(size), self.weights(size)], axis=-1)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU in the primitives that exporters write: x (1 + erf(x / sqrt 2)) / 2."""
        inside = self.op("Erf", [self.op("Div", [x, self.scalar(math.sqrt(2))])])
        shifted = self.op("Add", [inside, self.scalar(1.0)])
        return self.op("Mul", [self.op("Mul", [x, shifted]), self.scalar(0.5)])

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        """The same values in another shape."""
        return self.op("Reshape", [x, self.sizes(*shape)], shape)

    def transpose(self, x: Tensor, *order: int) -> Tensor:
        """The axes in another order."""
        return self.op("Transpose", [x], [x.shape[axis] for axis in order], perm=list(order))

    def concat(self, tensors: Sequence[Tensor], axis: int = 1) -> Tensor:
        """The tensors one after another along an axis."""
        shape = list(tensors[0].shape)
        shape[axis] = sum(one.shape[axis] for one in tensors)
        return self.op("Concat", list(tensors), shape, axis=axis)

    def pool(self, x: Tensor, kind: str = "MaxPool", kernel: int = 3, stride: int = 1) -> Tensor:
        """MaxPool or AveragePool with padding."""
        pad = (kernel - 1) // 2
        sizes = [(size + 2 * pad - kernel) // stride + 1 for size in x.shape[2:]]
        return self.op(
            kind,
            [x],
            (*x.shape[:2], *sizes),
            kernel_shape=[kernel] * 2,
            pads=[pad] * 4,
            strides=[stride] * 2,
        )

    def global_pool(self, x: Tensor) -> Tensor:
        """The mean of each channel, as (1, C, 1, 1)."""
        return self.op("GlobalAveragePool", [x], (*x.shape[:2], *(1 for _ in x.shape[2:])))

    def classify(self, x: Tensor, classes: int = 10) -> Tensor:
        """Global pooling and a dense layer: how most image networks end."""
        flat = self.op("Flatten", [self.global_pool(x)], x.shape[:2])
        return self.dense(flat, classes, activation=None)

    def _name(self, what: str) -> str:
        self._made += 1
        return f"{what}_{self._made}"

    def _is_named_only(self, shape: Sequence[int]) -> bool:
        return not self._filled and math.prod(shape) >= _STEERS

    def _external(self, name: str, shape: Sequence[int], data_type: int) -> str:
        tensor = self._graph.initializer.add(
            name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value="absent")
        return name
