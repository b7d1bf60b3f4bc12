"""Synthetic networks as ONNX, operator by operator, for old runtimes: opset 17 and IR 8."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from host.calibration.model_writer import (
    Activation,
    Arithmetic,
    Convolution,
    Enlargement,
    Function,
    ImageAxis,
    ModelWriter,
    PoolKind,
    Recurrence,
    Tensor,
)
from host.calibration.specimens import LARGEST_DEPTHWISE

OPSET = 17
IR_VERSION = 8
_STEERS = 64
"""Constants of fewer elements are always written: shapes, bounds and scales."""

_FUNCTIONS: Mapping[Function, str] = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "hard_swish": "HardSwish",
    "tanh": "Tanh",
    "exp": "Exp",
    "erf": "Erf",
    "negative": "Neg",
}
_ARITHMETIC: Mapping[Arithmetic, str] = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
}
_POOLS: Mapping[PoolKind, str] = {"maximum": "MaxPool", "average": "AveragePool"}
_AXES: Mapping[ImageAxis, int] = {"channels": 1, "height": 2, "width": 3}
_GATES: Mapping[Recurrence, int] = {"LSTM": 4, "GRU": 3}
_INTEGER_SCALE = 0.05
_INTEGER_ZERO = np.array(128, np.uint8)

Attribute = int | float | str | Sequence[int]


class OnnxWriter(ModelWriter):
    """Images are (1, channels, height, width), signals (1, channels, length).

    Weights are drawn from `seed`; where not `filled` they are only named, as external data that
    nobody has: enough to read kernels from.
    """

    largest_depthwise = LARGEST_DEPTHWISE["onnx"]

    def __init__(self, seed: int = 0, *, filled: bool = True) -> None:
        self._random = np.random.default_rng(seed)
        self._filled = filled
        self._graph = onnx.GraphProto(name="genba")
        self._made = 0
        self._quantisation: tuple[str, str] | None = None

    def image(self, channels: int, height: int, width: int) -> Tensor:
        return self.rows(1, channels, height, width)

    def signal(self, channels: int, length: int) -> Tensor:
        return self.rows(1, channels, length)

    def sequence(self, steps: int, features: int) -> Tensor:
        return self.rows(steps, 1, features)

    def rows(self, *shape: int) -> Tensor:
        self._graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))
        return Tensor("input", shape)

    def finish(self, output: Tensor) -> bytes:
        self._graph.output.append(
            helper.make_tensor_value_info(output.name, TensorProto.FLOAT, output.shape)
        )
        model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="genba", graph=self._graph)
        model.opset_import.add(domain="", version=OPSET)
        return model.SerializeToString()

    def channels(self, x: Tensor) -> int:
        return x.shape[1]

    def convolve(self, x: Tensor, layer: Convolution) -> Tensor:
        dimensions = len(x.shape) - 2
        kernel, channels, dilation = layer.kernel, layer.channels, layer.dilation
        window = (kernel,) * dimensions if isinstance(kernel, int) else kernel
        pads = [dilation * (k - 1) // 2 for k in window]
        fan_in = x.shape[1] // layer.groups
        sizes = [
            (size + 2 * pad - dilation * (k - 1) - 1) // layer.stride + 1
            for size, k, pad in zip(x.shape[2:], window, pads, strict=True)
        ]
        weights = self._weights(channels, fan_in, *window, fan_in=fan_in * math.prod(window))
        made = self._op(
            "Conv",
            [x, weights, self._weights(channels)],
            (1, channels, *sizes),
            kernel_shape=list(window),
            pads=pads * 2,
            strides=[layer.stride] * dimensions,
            dilations=[dilation] * dimensions,
            group=layer.groups,
        )
        return self._activated(made, layer.activation)

    def patches(self, x: Tensor, channels: int, size: int) -> Tensor:
        before, height, width = x.shape[1:]
        weights = self._weights(channels, before, size, size, fan_in=before * size * size)
        return self._op(
            "Conv",
            [x, weights, self._weights(channels)],
            (1, channels, height // size, width // size),
            kernel_shape=[size, size],
            strides=[size, size],
        )

    def dense(self, x: Tensor, width: int, *, activation: Activation | None = "relu") -> Tensor:
        """Gemm on a matrix, MatMul and Add on more dimensions."""
        inside = x.shape[-1]
        shape = (*x.shape[:-1], width)
        weights, bias = self._weights(inside, width, fan_in=inside), self._weights(width)
        if len(x.shape) == 2:
            made = self._op("Gemm", [x, weights, bias], shape)
        else:
            made = self._op("Add", [self._op("MatMul", [x, weights], shape), bias])
        return self._activated(made, activation)

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        return self._op("MatMul", [x, y], (*x.shape[:-1], y.shape[-1]))

    def recurrent(self, x: Tensor, kind: Recurrence, hidden: int) -> Tensor:
        steps, _, features = x.shape
        gates = _GATES[kind]
        weights = (
            self._weights(1, gates * hidden, features, fan_in=features),
            self._weights(1, gates * hidden, hidden, fan_in=hidden),
            self._weights(1, 2 * gates * hidden),
        )
        made = self._op(kind, [x, *weights], (steps, 1, 1, hidden), hidden_size=hidden)
        return self._op("Squeeze", [made, self._sizes(1)], (steps, 1, hidden))

    def arithmetic(
        self, kind: Arithmetic, x: Tensor, y: Tensor | float, activation: Activation | None = None
    ) -> Tensor:
        other = y if isinstance(y, Tensor) else self._scalar(y)
        return self._activated(self._op(_ARITHMETIC[kind], [x, other]), activation)

    def apply(self, function: Function, x: Tensor) -> Tensor:
        return self._op(_FUNCTIONS[function], [x])

    def gelu(self, x: Tensor) -> Tensor:
        """The primitives that exporters write: x (1 + erf(x / sqrt 2)) / 2."""
        inside = self.apply("erf", self.arithmetic("divide", x, math.sqrt(2)))
        shifted = self.arithmetic("add", inside, 1.0)
        return self.arithmetic("multiply", self.arithmetic("multiply", x, shifted), 0.5)

    def softmax(self, x: Tensor) -> Tensor:
        return self._op("Softmax", [x], axis=-1)

    def layer_norm(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        return self._op(
            "LayerNormalization", [x, self._weights(size), self._weights(size)], axis=-1
        )

    def instance_norm(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return self._op(
            "InstanceNormalization", [x, self._weights(channels), self._weights(channels)]
        )

    def scale_channels(self, x: Tensor, factor: float) -> Tensor:
        scale = self._constant(np.full((1, x.shape[1], 1, 1), factor, np.float32))
        return self.apply("relu", self._op("Mul", [x, scale]))

    def pool(self, x: Tensor, kind: PoolKind = "maximum", size: int = 3, stride: int = 1) -> Tensor:
        pad = (size - 1) // 2
        sizes = [(side + 2 * pad - size) // stride + 1 for side in x.shape[2:]]
        return self._op(
            _POOLS[kind],
            [x],
            (*x.shape[:2], *sizes),
            kernel_shape=[size] * 2,
            pads=[pad] * 4,
            strides=[stride] * 2,
        )

    def global_pool(self, x: Tensor) -> Tensor:
        return self._op("GlobalAveragePool", [x], (*x.shape[:2], *(1 for _ in x.shape[2:])))

    def mean(self, x: Tensor) -> Tensor:
        return self._op("ReduceMean", [x], (*x.shape[:-1], 1), axes=[-1], keepdims=1)

    def concat(self, tensors: Sequence[Tensor]) -> Tensor:
        first, *_ = tensors
        shape = (first.shape[0], sum(one.shape[1] for one in tensors), *first.shape[2:])
        return self._op("Concat", tensors, shape, axis=1)

    def cut(self, x: Tensor, axis: ImageAxis, start: int, size: int) -> Tensor:
        place = _AXES[axis]
        shape = (*x.shape[:place], size, *x.shape[place + 1 :])
        bounds = [self._sizes(start), self._sizes(start + size), self._sizes(place)]
        return self._op("Slice", [x, *bounds], shape)

    def pad(self, x: Tensor, border: int) -> Tensor:
        batch, channels, height, width = x.shape
        return self._op(
            "Pad",
            [x, self._sizes(0, 0, border, border, 0, 0, border, border)],
            (batch, channels, height + 2 * border, width + 2 * border),
        )

    def enlarge(self, x: Tensor, kind: Enlargement) -> Tensor:
        batch, channels, height, width = x.shape
        scales = self._constant(np.array([1, 1, 2, 2], np.float32))
        return self._op(
            "Resize",
            [x, "", scales],
            (batch, channels, 2 * height, 2 * width),
            mode=kind,
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        batch, channels, height, width = x.shape
        split = self.reshape(x, batch, groups, channels // groups, height, width)
        return self.reshape(self.transpose(split, 0, 2, 1, 3, 4), *x.shape)

    def pixels(self, x: Tensor) -> Tensor:
        return self.transpose(x, 0, 2, 3, 1)

    def image_of(self, pixels: Tensor) -> Tensor:
        return self.transpose(pixels, 0, 3, 1, 2)

    def tokens(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        return self.transpose(self.reshape(x, 1, channels, height * width), 0, 2, 1)

    def flatten(self, x: Tensor) -> Tensor:
        return self._op("Flatten", [x], (x.shape[0], math.prod(x.shape[1:])))

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        return self._op("Reshape", [x, self._sizes(*shape)], shape)

    def transpose(self, x: Tensor, *order: int) -> Tensor:
        return self._op("Transpose", [x], [x.shape[axis] for axis in order], perm=list(order))

    def quantise(self, x: Tensor) -> Tensor:
        """QuantizeLinear and DequantizeLinear, between which runtimes compute with integers."""
        if self._quantisation is None:
            self._quantisation = self._scalar(_INTEGER_SCALE), self._constant(_INTEGER_ZERO)
        quantised = self._op("QuantizeLinear", [x, *self._quantisation])
        return self._op("DequantizeLinear", [quantised, *self._quantisation])

    def integer_conv(self, x: Tensor, kernel: int, groups: int) -> Tensor:
        channels = x.shape[1]
        fan_in = channels // groups
        weights = self._integer_weights(
            (channels, fan_in, kernel, kernel), fan_in * kernel * kernel
        )
        made = self._op(
            "Conv",
            [x, weights],
            kernel_shape=[kernel] * 2,
            pads=[kernel // 2] * 4,
            group=groups,
        )
        return self.quantise(self.apply("relu", made))

    def integer_dense(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        return self.quantise(self._op("MatMul", [x, self._integer_weights((width, width), width)]))

    def _integer_weights(self, shape: tuple[int, ...], fan_in: int) -> Tensor:
        """Uniform int8 weights of 7 bits, which no CPU's saturating sums overflow."""
        scale = self._scalar(1 / (37 * fan_in**0.5))  # uniform in -63..63 has a deviation of 37
        zero = self._constant(np.array(0, np.int8))
        name = self._name("weight")
        if self._is_named_only(shape):
            self._external(name, shape, TensorProto.INT8)
        else:
            self._constant(self._random.integers(-63, 64, shape).astype(np.int8), name)
        return self._op("DequantizeLinear", [name, scale, zero], shape)

    def _weights(self, *shape: int, fan_in: int = 1) -> str:
        """Normal float32 weights of variance 1 / fan_in; returns their name."""
        name = self._name("weight")
        if self._is_named_only(shape):
            return self._external(name, shape, TensorProto.FLOAT)
        values = self._random.standard_normal(shape, dtype=np.float32)
        return self._constant((values / math.sqrt(fan_in)).astype(np.float32), name)

    def _constant(self, values: npt.NDArray[np.generic], name: str = "") -> str:
        """A constant of given values; returns its name."""
        name = name or self._name("constant")
        self._graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name

    def _sizes(self, *values: int) -> str:
        """A constant int64 vector: a shape, axes or bounds."""
        return self._constant(np.array(values, np.int64))

    def _scalar(self, value: float) -> str:
        return self._constant(np.array(value, np.float32))

    def _activated(self, x: Tensor, activation: Activation | None) -> Tensor:
        return x if activation is None else self.apply(activation, x)

    def _op(
        self,
        op: str,
        inputs: Sequence[Tensor | str],
        shape: Sequence[int] | None = None,
        **attributes: Attribute,
    ) -> Tensor:
        """An operator with one output, by default of the shape of its first input."""
        first = inputs[0]
        same = first.shape if isinstance(first, Tensor) else ()
        output = Tensor(self._name(op), same if shape is None else tuple(shape))
        node = self._graph.node.add(
            op_type=op,
            name=output.name,
            input=[one.name if isinstance(one, Tensor) else one for one in inputs],
            output=[output.name],
        )
        node.attribute.extend(
            helper.make_attribute(name, value) for name, value in sorted(attributes.items())
        )
        return output

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
