"""Kernels of a TFLite file.

The conventions of `onnx_graph`, with these differences:

- `ops` are TFLite's names: ("CONV_2D", "RELU6"), ("ADD",); a fused activation follows its leader.
- `output_shape` stays in the file's layout, channels last, without the batch.
- Operators that no output of the network needs are not executed, and those whose inputs are all
  constants are computed once, when the model is loaded: float16 weights behind a DEQUANTIZE count
  as the float32 that they become.
- A tensor that keeps its value from one inference to the next (the state of an LSTM) is read and
  written but comes from no kernel.
- 32-bit integers are weights only where something is multiplied (the bias of 8-bit weights).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.program import GraphError, UnknownShapeError, check_given_shapes
from cost_models.tflite_file import (
    ELEMENT_BYTES,
    FileOperator,
    FileTensor,
    TfliteFile,
    read_tflite,
)

_RUN_ONCE = "CALL_ONCE"  # initialises variables when the model is loaded
_OF_SHAPES = frozenset({"RANK", "SHAPE"})  # written when the model is loaded
_VIEWS = frozenset({"EXPAND_DIMS", "RESHAPE", "SQUEEZE"})
_CONVOLUTION_INPUTS = {
    # Data and weights.
    "CONV_2D": (0, 1),
    "CONV_3D": (0, 1),
    "CONV_3D_TRANSPOSE": (2, 1),
    "DEPTHWISE_CONV_2D": (0, 1),
    "TRANSPOSE_CONV": (2, 1),
}
_RECURRENT = frozenset(
    {
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
        "LSTM",
        "RNN",
        "SVDF",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
    }
)
_PRODUCTS = frozenset({"BATCH_MATMUL", "FULLY_CONNECTED"})
_BYTES_OF_TABLE = frozenset({"ELU", "EXP", "GELU", "LOG", "LOGISTIC", "RSQRT", "TANH"})
"""Operators that look 8-bit numbers up in a table instead of computing them."""

_EIGHT_BIT = frozenset({"INT8", "UINT8", "INT4"})
_STEERING = frozenset({"BOOL", "INT32", "INT64", "STRING"})
_NAMES: dict[KernelClass, str] = {
    "pool": "AVERAGE_POOL_2D L2_POOL_2D MAX_POOL_2D",
    "reduce": """
        ARG_MAX ARG_MIN MEAN REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM
        TOPK_V2""",
    "normalise": "L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION LOG_SOFTMAX SOFTMAX",
    "transcendental": "ATAN2 COS ELU EXP GELU LOG LOGISTIC POW SIN TANH",
    "elementwise": """
        ABS ADD ADD_N BITWISE_XOR CAST CEIL CUMSUM DEQUANTIZE DIV EQUAL FAKE_QUANT FLOOR
        FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL
        LOGICAL_AND LOGICAL_NOT LOGICAL_OR MAXIMUM MINIMUM MUL NEG NOT_EQUAL PRELU QUANTIZE
        RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RIGHT_SHIFT ROUND RSQRT SELECT SELECT_V2 SIGN
        SQRT SQUARE SQUARED_DIFFERENCE SUB ZEROS_LIKE""",
    "move": """
        ASSIGN_VARIABLE BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CONCATENATION
        DEPTH_TO_SPACE DYNAMIC_UPDATE_SLICE EMBEDDING_LOOKUP FILL GATHER GATHER_ND
        MIRROR_PAD ONE_HOT PACK PAD PADV2 RANGE RANK READ_VARIABLE RESIZE_BILINEAR
        RESIZE_NEAREST_NEIGHBOR REVERSE_SEQUENCE REVERSE_V2 SCATTER_ND SHAPE SLICE
        SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPARSE_TO_DENSE SPLIT SPLIT_V STRIDED_SLICE TILE
        TRANSPOSE UNPACK VAR_HANDLE""",
}
_CLASSES: dict[str, KernelClass] = {
    name: kind for kind, names in _NAMES.items() for name in names.split()
}


@dataclass(frozen=True, slots=True)
class _Graph:
    """A file's main graph with its constants found. `shapes` has None where one is not known."""

    file: TfliteFile
    shapes: tuple[tuple[int, ...] | None, ...]
    constant: frozenset[int]
    operators: tuple[FileOperator, ...]

    def shape(self, index: int) -> tuple[int, ...] | None:
        return None if index < 0 else self.shapes[index]

    def size_bytes(self, index: int) -> int:
        """The bytes of a tensor, 0 where they are not known."""
        shape = self.shape(index)
        if shape is None:
            return 0
        return math.ceil(math.prod(shape) * ELEMENT_BYTES[self.file.tensors[index].element])

    def element(self, index: int) -> str:
        return "" if index < 0 else self.file.tensors[index].element


def kernels_from_tflite(
    model: bytes | Path, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> KernelGraph:
    """The kernels that TFLite executes for a model on a CPU, with their costs at batch 1.

    An open first dimension counts as 1. The sizes of all other tensors are written in the file, so
    `input_shapes` can only confirm them. Raises UnreadableModelError for bytes that are no TFLite
    model, UnknownShapeError where an input leaves a size open, GraphError for given shapes that
    the file does not have; all are GraphErrors. Raises OSError where the file cannot be read.
    """
    file = read_tflite(model)
    _check_inputs(file, dict(input_shapes or {}))
    return kernels_of_tflite(file)


def kernels_of_tflite(file: TfliteFile) -> KernelGraph:
    """As `kernels_from_tflite`, from what a file holds. Raises UnknownShapeError."""
    shapes = tuple(_shape(tensor) for tensor in file.tensors)
    constant, operators = _folded(file)
    return _kernels(_Graph(file, shapes, constant, _needed(file, operators)))


def _check_inputs(file: TfliteFile, given: dict[str, tuple[int, ...]]) -> None:
    inputs = {file.tensors[index].name: file.tensors[index] for index in file.inputs}
    check_given_shapes(given, {name: len(tensor.shape) for name, tensor in inputs.items()})
    for name, tensor in inputs.items():
        known = _shape(tensor)
        if known is None:
            place = tensor.shape[1:].index(-1) + 1
            raise UnknownShapeError(
                f"input {name!r} leaves dimension {place} open, and a TFLite file holds the sizes "
                "of all its tensors; convert the model with fixed sizes"
            )
        if name in given and tuple(given[name]) != known:
            raise GraphError(
                f"input {name!r} has the shape {known} in the file, not {tuple(given[name])}; "
                "convert the model anew to change it"
            )


def _shape(tensor: FileTensor) -> tuple[int, ...] | None:
    """The shape at batch 1, None where another size is open."""
    if -1 in tensor.shape[1:]:
        return None
    return tuple(1 if size == -1 else size for size in tensor.shape)


def _folded(file: TfliteFile) -> tuple[frozenset[int], list[FileOperator]]:
    """The tensors known before the first inference, and the operators that remain."""
    constant = {index for index, tensor in enumerate(file.tensors) if tensor.stored}
    constant -= set(file.inputs)
    kept = []
    for operator in file.operators:
        if operator.op == _RUN_ONCE:
            continue
        inputs = [index for index in operator.inputs if index >= 0]
        known = constant.issuperset(inputs) or operator.op in _OF_SHAPES
        if inputs and operator.outputs and known:
            constant.update(index for index in operator.outputs if index >= 0)
        else:
            kept.append(operator)
    return frozenset(constant), kept


def _needed(file: TfliteFile, operators: list[FileOperator]) -> tuple[FileOperator, ...]:
    """The operators that an output or a state of the network depends on, in their order."""
    wanted = set(file.outputs)
    kept = []
    for operator in reversed(operators):
        touched = [i for i in (*operator.inputs, *operator.outputs) if i >= 0]
        lasting = not operator.outputs or any(file.tensors[i].variable for i in touched)
        if lasting or not wanted.isdisjoint(operator.outputs):
            wanted.update(operator.inputs)
            kept.append(operator)
    return tuple(reversed(kept))


def _kernels(graph: _Graph) -> KernelGraph:
    file = graph.file
    sources = dict.fromkeys(file.inputs, NETWORK_INPUT)
    shown: dict[int, int] = {}
    kernels: list[Kernel] = []
    for operator in graph.operators:
        if operator.op in _VIEWS and operator.inputs and operator.outputs:
            source = operator.inputs[0]
            if source not in graph.constant:
                shown[operator.outputs[0]] = shown.get(source, source)
                continue
        sources.update((index, len(kernels)) for index in operator.outputs)
        kernels.append(_kernel(operator, graph, shown, sources))
    return KernelGraph(tuple(kernels), sum(graph.size_bytes(index) for index in file.inputs))


def _kernel(
    operator: FileOperator, graph: _Graph, shown: dict[int, int], sources: dict[int, int]
) -> Kernel:
    reads = [i for i in operator.inputs if i >= 0 and i not in graph.constant]
    activations = tuple(dict.fromkeys(shown.get(i, i) for i in reads))
    for index in activations:
        tensor = graph.file.tensors[index]
        if index not in sources and not tensor.variable:
            raise GraphError(
                f"{operator.op} reads tensor {tensor.name!r} before anything has written it"
            )
    written = [index for index in operator.outputs if index >= 0]
    known = all(graph.shapes[index] is not None for index in (*reads, *written))
    kind = _kind(operator, graph) if known and written else "unknown"
    output = graph.shape(written[0]) if written else None
    return Kernel(
        kind=kind,
        ops=(operator.op,) if operator.activation is None else (operator.op, operator.activation),
        macs=0 if kind == "unknown" else _macs(operator, graph),
        input_bytes=sum(graph.size_bytes(index) for index in activations),
        output_bytes=sum(graph.size_bytes(index) for index in written),
        weight_bytes=sum(graph.size_bytes(index) for index in _weights(operator, graph)),
        reads=tuple(dict.fromkeys(sources[i] for i in activations if i in sources)),
        output_shape=(output or ())[1:],
        steps=_steps(operator, graph) if kind == "recurrent" else 1,
        integer=kind != "unknown" and _is_integer(operator, graph),
    )


def _weights(operator: FileOperator, graph: _Graph) -> Iterable[int]:
    multiplies = operator.op in _CONVOLUTION_INPUTS or operator.op in _PRODUCTS | _RECURRENT
    first = 1 if operator.op in {"CONV_3D_TRANSPOSE", "TRANSPOSE_CONV"} else 0
    for index in dict.fromkeys(operator.inputs[first:]):
        if index not in graph.constant or graph.shapes[index] == ():
            continue
        if multiplies or graph.element(index) not in _STEERING:
            yield index


def _kind(operator: FileOperator, graph: _Graph) -> KernelClass:
    op = operator.op
    if op in _CONVOLUTION_INPUTS:
        return _convolution_kind(operator, graph)
    if op in _PRODUCTS:
        if len(operator.inputs) < 2 or not all(graph.shape(i) for i in operator.inputs[:2]):
            return "unknown"
        return "gemm" if graph.constant.intersection(operator.inputs[:2]) else "matmul"
    if op in _RECURRENT:
        return "recurrent" if graph.shape(operator.inputs[0]) else "unknown"
    if op in _BYTES_OF_TABLE and graph.element(operator.outputs[0]) in _EIGHT_BIT:
        return "elementwise"
    return _CLASSES.get(op, "unknown")


def _convolution_shapes(
    operator: FileOperator, graph: _Graph
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
    """Data, weights and output of a convolution; None where they are no such shapes."""
    data, weights = _CONVOLUTION_INPUTS[operator.op]
    if len(operator.inputs) <= max(data, weights):
        return None
    places = (operator.inputs[data], operator.inputs[weights], operator.outputs[0])
    shapes = [graph.shape(place) or () for place in places]
    rank = 5 if operator.op.startswith("CONV_3D") else 4
    if any(len(shape) != rank for shape in shapes):
        return None
    return shapes[0], shapes[1], shapes[2]


def _convolution_kind(operator: FileOperator, graph: _Graph) -> KernelClass:
    shapes = _convolution_shapes(operator, graph)
    if shapes is None:
        return "unknown"
    data, weights, _ = shapes
    if operator.op == "DEPTHWISE_CONV_2D":
        return "depthwise" if data[-1] > 1 else "conv"
    if operator.op == "CONV_2D" and 0 < weights[-1] < data[-1]:
        return "depthwise" if weights[-1] == 1 else "grouped"
    window = weights[:-2] if operator.op.startswith("CONV_3D") else weights[1:-1]
    return "pointwise" if math.prod(window) == 1 else "conv"


def _macs(operator: FileOperator, graph: _Graph) -> int:
    if operator.op in _CONVOLUTION_INPUTS:
        return _convolution_macs(operator, graph)
    if operator.op in _PRODUCTS:
        output = math.prod(graph.shape(operator.outputs[0]) or (0,))
        if operator.op == "FULLY_CONNECTED":
            return output * (graph.shape(operator.inputs[1]) or (0,))[-1]
        left = graph.shape(operator.inputs[0]) or (0,)
        return output * (left[-2] if "adj_x" in operator.flags and len(left) > 1 else left[-1])
    if operator.op in _RECURRENT:
        matrices = [s for i in operator.inputs[1:] if (s := graph.shape(i)) and len(s) == 2]
        states = (i for i in operator.inputs[1:] if i >= 0 and graph.file.tensors[i].variable)
        elements = sum(math.prod(shape) for shape in matrices)
        elements -= sum(math.prod(graph.shape(i) or (0,)) for i in states)
        return max(0, elements) * _rows(operator, graph)
    return 0


def _convolution_macs(operator: FileOperator, graph: _Graph) -> int:
    shapes = _convolution_shapes(operator, graph)
    if shapes is None:
        return 0
    data, weights, output = shapes
    match operator.op:
        case "DEPTHWISE_CONV_2D":
            return math.prod(output) * math.prod(weights[1:-1])
        case "CONV_3D":
            return math.prod(output) * math.prod(weights[:-1])
        case "CONV_3D_TRANSPOSE":
            return math.prod(data) * math.prod(weights[:-1])
        case "TRANSPOSE_CONV":
            return math.prod(data) * math.prod(weights[:-1])
        case _:
            return math.prod(output) * math.prod(weights[1:])


def _rows(operator: FileOperator, graph: _Graph) -> int:
    """How many vectors a recurrent operator multiplies: batch x sequence length."""
    return math.prod((graph.shape(operator.inputs[0]) or (0,))[:-1])


def _steps(operator: FileOperator, graph: _Graph) -> int:
    shape = graph.shape(operator.inputs[0]) or ()
    if "SEQUENCE" not in operator.op or len(shape) != 3:
        return 1
    directions = 2 if operator.op.startswith("BIDIRECTIONAL") else 1
    return max(1, shape[0 if "time_major" in operator.flags else 1]) * directions


def _is_integer(operator: FileOperator, graph: _Graph) -> bool:
    """Whether 8-bit weights are multiplied, with 8-bit activations or ones quantised for it."""
    if operator.op in _CONVOLUTION_INPUTS or operator.op in _PRODUCTS:
        return graph.element(operator.inputs[1]) in _EIGHT_BIT
    if operator.op in _RECURRENT:
        return any(graph.element(index) in _EIGHT_BIT for index in operator.inputs[1:])
    return False
