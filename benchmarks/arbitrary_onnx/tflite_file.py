"""Small .tflite files, operator by operator: 32-bit floats, batch 1, height x width x channels.

Only for timing: weights are random, and padding is TFLite's "same" wherever a layer pads. The
schema is the one that ai-edge-litert ships.
"""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from host.network.graph import (
    Activation,
    ActivationKind,
    Add,
    Conv,
    GlobalPool,
    Layer,
    Linear,
    Network,
    Pool,
    Scale,
    Shape,
)

_OPERATORS = schema.BuiltinOperator
_FUSED = {
    None: schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_UNARY: dict[ActivationKind, str] = {
    "relu": "RELU",
    "relu6": "RELU6",
    "hard_swish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
}


class TfliteFile:
    """Adds tensors and operators in the order in which they run; `bytes` is the file."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.operatorCodes = []
        self._model.buffers = [schema.BufferT()]
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model.subgraphs = [self._graph]
        self._codes: dict[str, int] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor, batch included."""
        return tuple(self._graph.tensors[tensor].shape)

    def input(self, *shape: int) -> int:
        """A network input."""
        tensor = self._tensor(shape)
        self._graph.inputs.append(tensor)
        return tensor

    def weights(self, *shape: int) -> int:
        """Random numbers of about the size at which activations keep theirs."""
        fan_in = max(1, int(np.prod(shape[1:])))
        values = self._random.standard_normal(shape, dtype=np.float32)
        return self.constant(values * np.float32((2 / fan_in) ** 0.5))

    def constant(self, values: np.typing.NDArray[Any]) -> int:
        """A tensor that stands in the file."""
        kind = schema.TensorType.INT32 if values.dtype == np.int32 else schema.TensorType.FLOAT32
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor = self._tensor(values.shape, kind)
        self._graph.tensors[tensor].buffer = len(self._model.buffers) - 1
        return tensor

    def add(self, op: str, inputs: Sequence[int], shape: Sequence[int], **options: Any) -> int:
        """An operator by its name in the schema; the index of its one output of that shape.

        `options` are the fields of its options table.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(op)
        operator.inputs, output = list(inputs), self._tensor(shape)
        operator.outputs = [output]
        name = _OPTIONS.get(op)
        if name is not None:
            table = getattr(schema, f"{name}T")()
            for key, value in options.items():
                setattr(table, key, value)
            operator.builtinOptions = table
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self._graph.operators.append(operator)
        return output

    def bytes(self, *outputs: int) -> bytes:
        """The file with these outputs."""
        self._graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def conv(
        self, source: int, channels: int, window: int, stride: int = 1, activation: Any = None
    ) -> int:
        """A dense convolution with "same" padding and a bias."""
        before = self.shape(source)[-1]
        read = [source, self.weights(channels, window, window, before), self.weights(channels)]
        return self.add("CONV_2D", read, self._strided(source, channels, stride),
                        padding=schema.Padding.SAME, strideH=stride, strideW=stride,
                        fusedActivationFunction=_FUSED[activation])  # fmt: skip

    def depthwise(self, source: int, window: int, stride: int = 1, activation: Any = None) -> int:
        """One filter a channel."""
        channels = self.shape(source)[-1]
        read = [source, self.weights(1, window, window, channels), self.weights(channels)]
        return self.add("DEPTHWISE_CONV_2D", read, self._strided(source, channels, stride),
                        padding=schema.Padding.SAME, strideH=stride, strideW=stride,
                        depthMultiplier=1, fusedActivationFunction=_FUSED[activation])  # fmt: skip

    def linear(self, source: int, features: int, activation: Any = None) -> int:
        """A matrix product with a bias over the last axis."""
        *rest, before = self.shape(source)
        read = [source, self.weights(features, before), self.weights(features)]
        return self.add("FULLY_CONNECTED", read, (*rest, features), keepNumDims=len(rest) > 1,
                        fusedActivationFunction=_FUSED[activation])  # fmt: skip

    def pool(self, source: int, op: str, window: int, stride: int) -> int:
        """AVERAGE_POOL_2D or MAX_POOL_2D with "same" padding."""
        shape = self._strided(source, self.shape(source)[-1], stride)
        return self.add(op, [source], shape, padding=schema.Padding.SAME, strideH=stride,
                        strideW=stride, filterHeight=window, filterWidth=window)  # fmt: skip

    def reshape(self, source: int, *shape: int) -> int:
        """The same numbers in another shape."""
        wanted = self.constant(np.array(shape, np.int32))
        return self.add("RESHAPE", [source, wanted], shape, newShape=list(shape))

    def _strided(self, source: int, channels: int, stride: int) -> tuple[int, ...]:
        _, height, width, _ = self.shape(source)
        return 1, -(-height // stride), -(-width // stride), channels

    def _tensor(self, shape: Sequence[int], kind: int = schema.TensorType.FLOAT32) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, 0
        tensor.name = f"t{len(self._graph.tensors)}"
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _code(self, op: str) -> int:
        if op not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(_OPERATORS, op)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = 1
            self._model.operatorCodes.append(code)
            self._codes[op] = len(self._codes)
        return self._codes[op]


_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "SOFTMAX": "SoftmaxOptions",
    "TRANSPOSE": "TransposeOptions",
}


def tflite_bytes(network: Network) -> bytes:
    """The file of a network; convolutions, products and sums take in a ReLU that alone reads them.

    Raises ValueError for a layer that is not written here.
    """
    file = TfliteFile()
    tensors = [file.input(1, *_last(network.input_shape))]
    for index, node in enumerate(network.nodes[1:], 1):
        read = [tensors[i] for i in node.inputs]
        layer = node.layer
        if isinstance(layer, Activation) and _fuses(network, node.inputs[0], layer):
            tensors.append(read[0])
            continue
        follower = next((n.layer for n in network.nodes if n.inputs == (index,)), None)
        takes = isinstance(follower, Activation) and _fuses(network, index, follower)
        kind = follower.kind if takes and isinstance(follower, Activation) else None
        tensors.append(_layer(file, layer, read, kind))
    return file.bytes(tensors[-1])


def _fuses(network: Network, index: int, activation: Activation) -> bool:
    leading = network.nodes[index].layer
    return (
        isinstance(leading, Conv | Linear | Add)
        and network.consumers[index] == 1
        and activation.kind in ("relu", "relu6")
    )


def _layer(file: TfliteFile, layer: Layer, read: list[int], kind: ActivationKind | None) -> int:
    source = read[0]
    match layer:
        case Conv(groups=1):
            return file.conv(source, layer.out_channels, layer.kernel, layer.stride, kind)
        case Conv() if layer.groups == layer.out_channels == file.shape(source)[-1]:
            return file.depthwise(source, layer.kernel, layer.stride, kind)
        case Linear():
            flat = int(np.prod(file.shape(source)))
            if file.shape(source) != (1, flat):
                source = file.reshape(source, 1, flat)
            return file.linear(source, layer.out_features, kind)
        case Pool():
            op = "AVERAGE_POOL_2D" if layer.kind == "average" else "MAX_POOL_2D"
            return file.pool(source, op, layer.kernel, layer.stride)
        case GlobalPool():
            axes = file.constant(np.array([1, 2], np.int32))
            shape = (1, 1, 1, file.shape(source)[-1])
            return file.add("MEAN", [source, axes], shape, keepDims=True)
        case Add():
            return file.add("ADD", read, file.shape(source), fusedActivationFunction=_FUSED[kind])
        case Scale():
            return file.add("MUL", read, file.shape(source))
        case Activation():
            return _activation(file, layer.kind, source)
        case _:
            raise ValueError(f"{layer} is not written as TFLite here")


def _activation(file: TfliteFile, kind: ActivationKind, source: int) -> int:
    shape = file.shape(source)
    if kind != "hard_sigmoid":
        return file.add(_UNARY[kind], [source], shape)
    three, sixth = (file.constant(np.array(v, np.float32)) for v in (3.0, 1 / 6))
    relu6 = _FUSED["relu6"]
    shifted = file.add("ADD", [source, three], shape, fusedActivationFunction=relu6)
    return file.add("MUL", [shifted, sixth], shape)


def _last(shape: Shape) -> Shape:
    return (*shape[1:], shape[0])
