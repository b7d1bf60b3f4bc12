"""Synthetic networks as TFLite, operator by operator, as converters write them.

Images are (1, height, width, channels). A signal is an image of height 1: TFLite has no other
convolutions of one dimension.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tflite.ActivationFunctionType import ActivationFunctionType

from host.calibration.model_writer import (
    Activation,
    Arithmetic,
    Convolution,
    Enlargement,
    Function,
    ImageAxis,
    ModelWriter,
    NotInFormatError,
    PoolKind,
    Recurrence,
    Tensor,
)
from host.calibration.specimens import LARGEST_DEPTHWISE
from host.network.tflite_file import OMITTED, Fused, TfliteFile
from host.network.tflite_tables import Quantisation

_FUNCTIONS: Mapping[Function, str] = {
    "relu": "RELU",
    "sigmoid": "LOGISTIC",
    "hard_swish": "HARD_SWISH",
    "tanh": "TANH",
    "exp": "EXP",
    "negative": "NEG",
}
_ARITHMETIC: Mapping[Arithmetic, str] = {
    "add": "ADD",
    "subtract": "SUB",
    "multiply": "MUL",
    "divide": "DIV",
}
_POOLS: Mapping[PoolKind, str] = {"maximum": "MAX_POOL_2D", "average": "AVERAGE_POOL_2D"}
_AXES: Mapping[ImageAxis, int] = {"height": 1, "width": 2, "channels": 3}
_INTEGERS = Quantisation((0.05,))
_GATES_OF_LSTM = 4
_NO_LAYER_NORM = [OMITTED] * 4
_NO_PEEPHOLE = [OMITTED] * 3
_NO_PROJECTION = [OMITTED] * 2
_TANH = ActivationFunctionType.TANH
_EPSILON = 1e-5
_STEERS = 64
"""Constants of fewer elements are always written."""


class TfliteWriter(ModelWriter):
    """Weights are drawn from `seed`; where not `filled` they are only named, which is enough to
    read kernels from.
    """

    largest_depthwise = LARGEST_DEPTHWISE["tflite"]

    def __init__(self, seed: int = 0, *, filled: bool = True) -> None:
        self._random = np.random.default_rng(seed)
        self._filled = filled
        self._file = TfliteFile()

    def image(self, channels: int, height: int, width: int) -> Tensor:
        return self.rows(1, height, width, channels)

    def signal(self, channels: int, length: int) -> Tensor:
        return self.rows(1, 1, length, channels)

    def sequence(self, steps: int, features: int) -> Tensor:
        return self.rows(1, steps, features)

    def rows(self, *shape: int) -> Tensor:
        return self._made(self._file.input(*shape))

    def finish(self, output: Tensor) -> bytes:
        place = _at(output)
        if self._file.element(place) == "INT8":
            place = self._file.operator("DEQUANTIZE", [place], output.shape)
        return self._file.finish(place)

    def channels(self, x: Tensor) -> int:
        return x.shape[-1]

    def convolve(self, x: Tensor, layer: Convolution) -> Tensor:
        kernel, channels = layer.kernel, layer.channels
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        is_signal = x.shape[1] == 1
        window = (1 if is_signal else rows, columns)
        before = x.shape[-1] // layer.groups
        depthwise = layer.groups == channels and before == 1
        fused = _fused(layer.activation)
        made = self._file.convolve(
            _at(x),
            self._weights(
                *((1, *window, channels) if depthwise else (channels, *window, before)),
                fan_in=before * math.prod(window),
            ),
            self._weights(channels),
            stride=(1 if is_signal else layer.stride, layer.stride),
            dilation=(1 if is_signal else layer.dilation, layer.dilation),
            fused=fused,
        )
        return self._activated(self._made(made), layer.activation, fused)

    def patches(self, x: Tensor, channels: int, size: int) -> Tensor:
        before = x.shape[-1]
        weights = self._weights(channels, size, size, before, fan_in=before * size * size)
        bias = self._weights(channels)
        stride = (size, size)
        return self._made(self._file.convolve(_at(x), weights, bias, stride=stride, valid=True))

    def dense(self, x: Tensor, width: int, *, activation: Activation | None = "relu") -> Tensor:
        weights = self._weights(width, x.shape[-1], fan_in=x.shape[-1])
        fused = _fused(activation)
        made = self._file.connect(_at(x), weights, self._weights(width), fused=fused)
        return self._activated(self._made(made), activation, fused)

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        return self._op("BATCH_MATMUL", [x, y], (*x.shape[:-1], y.shape[-1]))

    def recurrent(self, x: Tensor, kind: Recurrence, hidden: int) -> Tensor:
        """An LSTM over the whole sequence: its gates' weights, its biases and its two states."""
        if kind != "LSTM":
            raise NotInFormatError(f"TFLite has no operator for {kind}")
        _, steps, features = x.shape
        inputs = [self._weights(hidden, features, fan_in=features) for _ in range(_GATES_OF_LSTM)]
        recurrent = [self._weights(hidden, hidden, fan_in=hidden) for _ in range(_GATES_OF_LSTM)]
        biases = [self._weights(hidden) for _ in range(_GATES_OF_LSTM)]
        states = [self._file.state(1, hidden) for _ in range(2)]
        made = self._file.operator(
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            [
                _at(x),
                *inputs,
                *recurrent,
                *_NO_PEEPHOLE,
                *biases,
                *_NO_PROJECTION,
                *states,
                *_NO_LAYER_NORM,
            ],
            (1, steps, hidden),
            FusedActivationFunction=_TANH,
        )
        return self._made(made)

    def arithmetic(
        self, kind: Arithmetic, x: Tensor, y: Tensor | float, activation: Activation | None = None
    ) -> Tensor:
        other = _at(y) if isinstance(y, Tensor) else self._file.scalar(y)
        fused = _fused(activation)
        made = self._file.combine(_ARITHMETIC[kind], _at(x), other, fused)
        return self._activated(self._made(made), activation, fused)

    def apply(self, function: Function, x: Tensor) -> Tensor:
        if function not in _FUNCTIONS:
            raise NotInFormatError(f"TFLite has no operator for {function}")
        return self._op(_FUNCTIONS[function], [x])

    def gelu(self, x: Tensor) -> Tensor:
        return self._op("GELU", [x])

    def softmax(self, x: Tensor) -> Tensor:
        return self._made(self._file.operator("SOFTMAX", [_at(x)], x.shape, Beta=1.0))

    def layer_norm(self, x: Tensor) -> Tensor:
        return self._normalised(x, len(x.shape) - 1)

    def instance_norm(self, x: Tensor) -> Tensor:
        return self._normalised(x, 1, 2)

    def scale_channels(self, x: Tensor, factor: float) -> Tensor:
        scale = self._file.constant(np.full((1, 1, 1, x.shape[-1]), factor, np.float32))
        return self._made(self._file.combine("MUL", _at(x), scale, "relu"))

    def pool(self, x: Tensor, kind: PoolKind = "maximum", size: int = 3, stride: int = 1) -> Tensor:
        return self._made(self._file.pool(_POOLS[kind], _at(x), (size, size), (stride, stride)))

    def global_pool(self, x: Tensor) -> Tensor:
        return self._made(self._file.mean(_at(x), 1, 2))

    def mean(self, x: Tensor) -> Tensor:
        return self._made(self._file.mean(_at(x), len(x.shape) - 1))

    def concat(self, tensors: Sequence[Tensor]) -> Tensor:
        first, *_ = tensors
        shape = (*first.shape[:-1], sum(one.shape[-1] for one in tensors))
        places = [_at(one) for one in tensors]
        return self._made(self._file.operator("CONCATENATION", places, shape, Axis=len(shape) - 1))

    def cut(self, x: Tensor, axis: ImageAxis, start: int, size: int) -> Tensor:
        place = _AXES[axis]
        begin, shape = [0] * len(x.shape), list(x.shape)
        begin[place], shape[place] = start, size
        bounds = [self._file.integers(begin), self._file.integers(shape)]
        return self._made(self._file.operator("SLICE", [_at(x), *bounds], shape))

    def pad(self, x: Tensor, border: int) -> Tensor:
        return self._made(self._file.pad(_at(x), (border, border), (border, border)))

    def enlarge(self, x: Tensor, kind: Enlargement) -> Tensor:
        batch, height, width, channels = x.shape
        op = "RESIZE_NEAREST_NEIGHBOR" if kind == "nearest" else "RESIZE_BILINEAR"
        size = self._file.integers([2 * height, 2 * width])
        shape = (batch, 2 * height, 2 * width, channels)
        return self._made(self._file.operator(op, [_at(x), size], shape, HalfPixelCenters=True))

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        batch, height, width, channels = x.shape
        split = self.reshape(x, batch, height, width, groups, channels // groups)
        return self.reshape(self.transpose(split, 0, 1, 2, 4, 3), *x.shape)

    def pixels(self, x: Tensor) -> Tensor:
        return x

    def image_of(self, pixels: Tensor) -> Tensor:
        return pixels

    def tokens(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        return self.reshape(x, 1, height * width, channels)

    def flatten(self, x: Tensor) -> Tensor:
        return self.reshape(x, 1, math.prod(x.shape))

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        return self._made(self._file.reshape(_at(x), *shape))

    def transpose(self, x: Tensor, *order: int) -> Tensor:
        shape = [x.shape[axis] for axis in order]
        inputs = [_at(x), self._file.integers(order)]
        return self._made(self._file.operator("TRANSPOSE", inputs, shape))

    def quantise(self, x: Tensor) -> Tensor:
        return self._made(self._file.operator("QUANTIZE", [_at(x)], x.shape, _INTEGERS))

    def integer_conv(self, x: Tensor, kernel: int, groups: int) -> Tensor:
        """With a scale for each channel, as converters write it."""
        channels = x.shape[-1]
        depthwise = groups == channels
        shape = (1, kernel, kernel, channels) if depthwise else (channels, kernel, kernel, channels)
        scale = _integer_scale(math.prod(shape) // channels)
        scales = (scale,) * channels
        weights = self._integer_weights(shape, Quantisation(scales, 3 if depthwise else 0))
        bias = self._integer_bias(channels, scales)
        made = self._file.convolve(_at(x), weights, bias, fused="relu", quantisation=_INTEGERS)
        return self._made(made)

    def integer_dense(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        scales = (_integer_scale(width),)
        weights = self._integer_weights((width, width), Quantisation(scales))
        bias = self._integer_bias(width, scales)
        return self._made(self._file.connect(_at(x), weights, bias, quantisation=_INTEGERS))

    def _normalised(self, x: Tensor, *axes: int) -> Tensor:
        """(x - mean) / sqrt(variance + epsilon), times a factor, plus a summand; TFLite has no
        operator for it.
        """
        file, source, features = self._file, _at(x), x.shape[-1]
        mean = file.mean(source, *axes)
        squares = file.operator("SQUARED_DIFFERENCE", [source, mean], x.shape)
        variance = file.mean(squares, *axes)
        shifted = file.combine("ADD", variance, file.scalar(_EPSILON))
        scale = file.operator("RSQRT", [shifted], file.shape(shifted))
        centred = file.combine("SUB", source, mean)
        scaled = file.combine("MUL", file.combine("MUL", centred, scale), self._weights(features))
        return self._made(file.combine("ADD", scaled, self._weights(features)))

    def _weights(self, *shape: int, fan_in: int = 1) -> int:
        """Normal float32 weights of variance 1 / fan_in."""
        if self._is_named_only(shape):
            return self._file.named(shape, "FLOAT32")
        values = self._random.standard_normal(shape, dtype=np.float32) / math.sqrt(fan_in)
        return self._file.constant(values.astype(np.float32))

    def _integer_weights(self, shape: tuple[int, ...], quantisation: Quantisation) -> int:
        """Uniform int8 weights of 7 bits, as the ONNX files have them."""
        if self._is_named_only(shape):
            return self._file.named(shape, "INT8", quantisation)
        values = self._random.integers(-63, 64, shape).astype(np.int8)
        return self._file.constant(values, quantisation)

    def _integer_bias(self, features: int, scales: Sequence[float]) -> int:
        """TFLite has biases of the scale of the products."""
        (of_input,) = _INTEGERS.scales
        products = Quantisation(tuple(of_input * scale for scale in scales))
        return self._file.constant(np.zeros(features, np.int32), products)

    def _op(self, op: str, inputs: Sequence[Tensor], shape: Sequence[int] | None = None) -> Tensor:
        """An operator without options, by default of the shape of its first input."""
        same = inputs[0].shape
        places = [_at(one) for one in inputs]
        return self._made(self._file.operator(op, places, same if shape is None else shape))

    def _activated(self, x: Tensor, activation: Activation | None, fused: Fused | None) -> Tensor:
        return x if activation is None or fused is not None else self.apply(activation, x)

    def _made(self, place: int) -> Tensor:
        return Tensor(str(place), self._file.shape(place))

    def _is_named_only(self, shape: Sequence[int]) -> bool:
        return not self._filled and math.prod(shape) >= _STEERS


def _at(x: Tensor) -> int:
    """The tensor's place in the file."""
    return int(x.name)


def _fused(activation: Activation | None) -> Fused | None:
    return "relu" if activation == "relu" else None


def _integer_scale(fan_in: int) -> float:
    return 1 / (37 * math.sqrt(fan_in))  # uniform in -63..63 has a deviation of 37
