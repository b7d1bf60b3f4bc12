"""What a TFLite file holds, read from its bytes before any runtime sees it.

tflite-runtime ended with version 2.14, and crafted files crash it or write past its heap
(tensorflow/tensorflow issues 115308, 124982, 111458, 62164); so the agent looks by itself, and runs
what passes in a process of its own. Slots are those of TFLite's schema.fbs, version 3; the layout
is that of flatbuffers: https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Union

from device_agent.errors import ModelRejectedError
from device_agent.longest_path import CircleError, longest_path
from device_agent.mapped_file import mapped
from device_agent.scan_limits import ScanLimits, beyond_limit

MAX_SUBGRAPHS = 100
# Generous for networks: what bounds the time and memory of a scan beside the number of operators.
# Numbers are sizes of tensors, operands of operators and the like; tables are counted as often as
# something points to them.
_TENSORS_PER_NODE = 10
_NUMBERS_PER_NODE = 100
_TABLES_PER_NODE = 25
# Beyond it the libraries' 32-bit arithmetic overflows (tensorflow/tensorflow issue 111458).
MAX_TENSOR_BYTES = 2**31 - 1
# What the libraries' default resolvers and XNNPACK implement; "Flex" operators need TensorFlow.
CUSTOM_OPERATORS = frozenset(
    {
        "AudioSpectrogram",
        "Convolution2DTransposeBias",
        "MaxPoolingWithArgmax2D",
        "MaxUnpooling2D",
        "Mfcc",
        "NumericVerify",
        "TFLite_Detection_PostProcess",
    }
)

_IDENTIFIER = b"TFL3"
_VERSION = 3
_SMALLEST_FILE = 12
_LONGEST_NAME_BYTES = 4096

_MODEL_VERSION, _MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 0, 1, 2, 4
_MODEL_METADATA, _MODEL_EXTERNAL_GROUPS, _MODEL_EXTERNAL_BUFFERS = 6, 8, 9
_CODE_OLD, _CODE_CUSTOM, _CODE_NEW = 0, 1, 3
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER = 0, 1, 2
_TENSOR_VARIABLE, _TENSOR_SPARSITY, _TENSOR_SIGNATURE, _TENSOR_EXTERNAL_BUFFER = 5, 6, 7, 10
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_OPERATOR_INTERMEDIATES, _OPERATOR_LARGE_OFFSET, _OPERATOR_LARGE_SIZE = 8, 9, 10
_METADATA_NAME, _METADATA_BUFFER = 0, 1

_RESHAPE, _CUSTOM, _PAD, _PADV2, _MIRROR_PAD, _RANGE = 22, 32, 34, 60, 100, 96
_IF, _WHILE, _STABLEHLO_WHILE, _STABLEHLO_CASE = 118, 119, 200, 209
_CONTROL_FLOW = {_IF: "IF", _WHILE: "WHILE", _STABLEHLO_WHILE: "WHILE", _STABLEHLO_CASE: "CASE"}
# Which input of an operator is the size of its output: RESIZE_BILINEAR, SPARSE_TO_DENSE, ONE_HOT,
# FILL, RESIZE_NEAREST_NEIGHBOR, SCATTER_ND, BROADCAST_TO, RANDOM_STANDARD_NORMAL, RANDOM_UNIFORM,
# TRANSPOSE_CONV.
_SIZE_INPUTS = {23: 1, 68: 1, 85: 1, 94: 0, 97: 1, 122: 2, 130: 1, 146: 0, 148: 0, 67: 0}
_TILE = 69
_MOST_AXES = 64
_PADDINGS = (_PAD, _PADV2, _MIRROR_PAD)
_MOST_SIZES = 32
# LSTM, UNIDIRECTIONAL_SEQUENCE_LSTM, BIDIRECTIONAL_SEQUENCE_LSTM: they alone may lack one of their
# first two operands. Kernels read those without a look whether they are there.
_LSTMS = (16, 44, 52)
# Operators that run other graphs, and the slot and number of the type of their options: without
# those, runtimes take graph 0.
_CALLERS = {118: (3, 92), 119: (3, 93), 129: (3, 103), 200: (11, 15), 206: (11, 21), 209: (11, 23)}
# What an operator refers to by the number of a graph: slots of its options, by their kind.
_GRAPH_SLOTS = {
    "options 16": (0,),
    "options 92": (0, 1),
    "options 93": (0, 1),
    "options 103": (0,),
    "options 2 6": (1,),
    "options 2 7": (6,),
    "options 2 13": (5,),
    "options 2 14": (2,),
    "options 2 15": (0, 1),
    "options 2 21": (1,),
}
_CASE_OPTIONS = "options 2 23"
_FLOAT32, _INT32, _INT64 = 0, 2, 4
_PACKING = {_FLOAT32: "f", _INT32: "i", _INT64: "q"}
_MAX_RESHAPE_RANK = 8
# Bits of an element by type; strings, resources and variants have none.
_BITS = {
    0: 32,  # float32
    1: 16,  # float16
    2: 32,  # int32
    3: 8,  # uint8
    4: 64,  # int64
    6: 8,  # bool
    7: 16,  # int16
    8: 64,  # complex64
    9: 8,  # int8
    10: 64,  # float64
    11: 128,  # complex128
    12: 64,  # uint64
    15: 32,  # uint32
    16: 16,  # uint16
    17: 4,  # int4
    18: 16,  # bfloat16
    19: 2,  # int2
    20: 4,  # uint4
    21: 8,  # float8_e4m3fn
    22: 8,  # float8_e5m2
}
# What a slot of a table holds, for those that point elsewhere: a name, a longer text, a vector of
# items of so many bytes, tables of a kind, or a union, whose type stands in the slot before.
_TEXT, _NAME = ("text", ""), ("name", "")
_Holds = Union[int, tuple[str, str]]
_SLOTS: Mapping[str, Mapping[int, _Holds]] = {
    "model": {
        1: ("list", "code"),
        2: ("list", "graph"),
        3: _TEXT,
        4: ("list", "buffer"),
        5: 4,
        6: ("list", "metadata"),
        7: ("list", "signature"),
    },
    "code": {1: _NAME},
    "graph": {0: ("list", "tensor"), 1: 4, 2: 4, 3: ("list", "operator"), 4: _NAME},
    "buffer": {0: 1},
    "metadata": {0: _NAME},
    "signature": {0: ("list", "map"), 1: ("list", "map"), 2: _NAME},
    "map": {0: _NAME},
    "tensor": {
        0: 4,
        3: _NAME,
        4: ("table", "quantization"),
        6: ("table", "sparsity"),
        7: 4,
        9: ("list", "variant"),
    },
    "variant": {0: 4},
    "quantization": {0: 4, 1: 4, 2: 4, 3: 8, 5: ("union", "quantization details ")},
    "quantization details 1": {0: 1},
    "quantization details 2": {3: 4},
    "sparsity": {0: 4, 1: 4, 2: ("list", "dimension")},
    "dimension": {3: ("union", "indexes "), 5: ("union", "indexes ")},
    "indexes 1": {0: 4},
    "indexes 2": {0: 2},
    "indexes 3": {0: 1},
    "operator": {
        1: 4,
        2: 4,
        4: ("union", "options "),
        5: 1,
        7: 1,
        8: 4,
        12: ("union", "options 2 "),
    },
    # By the number of their type in the unions BuiltinOptions and BuiltinOptions2.
    "options 3": {1: 4, 2: 4},
    "options 17": {0: 4},
    "options 30": {0: 4},
    "options 111": {0: _TEXT, 1: _TEXT},
    "options 115": {0: 4},
    "options 2 2": {0: 8},
    "options 2 3": {0: 8, 1: 8, 2: 8},
    "options 2 4": {0: 8, 1: 8, 2: 8, 3: 8, 4: 1, 7: 8, 10: 8, 13: 8, 16: 4},
    "options 2 5": {0: _TEXT, 2: _TEXT, 4: 4, 5: 1},
    "options 2 6": {0: 8},
    "options 2 7": {1: 8, 2: 8, 3: 8},
    "options 2 9": {0: 8},
    "options 2 10": {0: 8, 1: 8, 2: 8},
    "options 2 12": {0: 8, 1: 8, 2: 8, 3: 8, 4: 4},
    "options 2 13": {0: 8, 1: 8, 2: 8, 3: 8, 4: 8},
    "options 2 16": {0: 8, 1: 8, 2: 8, 4: 8},
    "options 2 17": {0: 8},
    "options 2 21": {0: _TEXT, 2: 1},
    "options 2 23": {0: 4},
}
_I8, _U8, _U16, _I32, _U32, _U64 = (struct.Struct(f"<{code}") for code in "bBHiIQ")

_Buffer = Union[bytes, mmap.mmap]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class TfliteScan:
    """Counts over all sub-graphs; `graph_depth` is the most that call each other."""

    subgraphs: int
    operators: int
    tensors: int
    graph_depth: int
    custom_operators: tuple[str, ...]
    control_flow: tuple[str, ...]


@dataclass(frozen=True)
class _Span:
    """Bytes of a file; where a model keeps nothing, from 0 to 0."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: int
    data: _Span
    is_variable: bool

    @property
    def has_content(self) -> bool:
        """Whether it holds something before any operator has run, or never needs to."""
        return self.is_constant or self.is_variable or self.elements == 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def is_constant(self) -> bool:
        return self.data.size > 0


def scan_file(path: Path, limits: ScanLimits) -> TfliteScan:
    """Scan the file at `path` without holding it in memory.

    Raises ModelRejectedError as `scan_bytes` does.
    """
    with mapped(path) as data:
        return scan_bytes(data, limits)


def scan_bytes(data: _Buffer, limits: ScanLimits) -> TfliteScan:
    """Walk the graphs, tensors and buffers of a TFLite model.

    Raises ModelRejectedError for another format, an offset or a length beyond the file, data in
    other files, more of anything than `limits` allow (`max_chain` and `domains` are ONNX's),
    custom operators outside CUSTOM_OPERATORS, control flow unless it is allowed, graphs that call
    themselves, a constant whose bytes are not those of its shape, a tensor too large for 32-bit
    arithmetic, and a Reshape that would write past its output.
    """
    if len(data) > limits.max_bytes:
        raise beyond_limit(
            f"the model file has {len(data)} bytes, and this device takes {limits.max_bytes}",
            "use a smaller model",
            "max_bytes",
        )
    reader = _Reader(data, _NUMBERS_PER_NODE * limits.max_nodes)
    model = reader.root()
    calls = _verify(model, _TABLES_PER_NODE * limits.max_nodes)
    if model.number(_MODEL_VERSION, _U32) != _VERSION:
        raise ModelRejectedError(
            "the file is not of TFLite's schema version 3: convert the model again"
        )
    _refuse_external_data(model)
    most_parts = _TENSORS_PER_NODE * limits.max_nodes
    codes = [_operator_code(code) for code in model.tables(_MODEL_CODES, limits.max_nodes)]
    custom = sorted({name for code, name in codes if code == _CUSTOM})
    _refuse_unknown_operators(custom)
    buffers = [_buffer(table, reader) for table in model.tables(_MODEL_BUFFERS, most_parts)]
    for entry in model.tables(_MODEL_METADATA, most_parts):
        if not entry.has(_METADATA_NAME):
            raise _damaged()
        _of_index(buffers, entry.number(_METADATA_BUFFER, _U32), "buffer")
    walk = _Walk(reader, [code for code, _ in codes], buffers, limits)
    graphs = model.tables(_MODEL_SUBGRAPHS, MAX_SUBGRAPHS)
    if not graphs:
        raise ModelRejectedError("the file holds no graph: convert the model again")
    for graph in graphs:
        walk.graph(graph)
    depth = _graph_depth(calls, len(graphs), limits)
    return TfliteScan(
        subgraphs=len(graphs),
        operators=walk.operators,
        tensors=walk.tensors,
        graph_depth=depth,
        custom_operators=tuple(custom),
        control_flow=tuple(sorted(walk.control_flow)),
    )


def _refuse_unknown_operators(custom: Sequence[str]) -> None:
    unknown = [name for name in custom if name not in CUSTOM_OPERATORS]
    if unknown:
        names = ", ".join(ascii(name) for name in unknown)[:400]
        raise ModelRejectedError(
            f"the model uses custom operators that no runtime here has ({names}): convert it with"
            " TFLite's own operators"
        )


def _verify(model: _Table, max_tables: int) -> list[tuple[int, int]]:
    """Everything that the tables point to lies inside the file. Which graph refers to which.

    tflite-runtime follows offsets unseen. The kinds of tables do not nest in circles.
    """
    calls: list[tuple[int, int]] = []
    left = max_tables
    # The number of the graph in which a table stands travels with it.
    pending = [("model", model, 0)]
    while pending:
        kind, table, graph = pending.pop()
        calls += [(graph, called) for called in _graphs_called(kind, table)]
        for slot, holds in _SLOTS.get(kind, {}).items():
            if isinstance(holds, int):
                table.vector(slot, holds)
            elif holds in (_TEXT, _NAME):
                table.verify_text(slot, is_name=holds == _NAME)
            elif table.has(slot):
                children = _children(table, slot, *holds, most=left)
                left -= len(children)
                pending.extend(
                    (child_kind, child, index if child_kind == "graph" else graph)
                    for index, (child_kind, child) in enumerate(children)
                )
        table.verify_slots()
    return calls


def _graphs_called(kind: str, table: _Table) -> Iterator[int]:
    for slot in _GRAPH_SLOTS.get(kind, ()):
        yield table.number(slot, _I32)
    if kind == _CASE_OPTIONS:
        yield from table.numbers(0)


def _children(
    table: _Table, slot: int, how: str, kind: str, *, most: int
) -> list[tuple[str, _Table]]:
    if how == "list":
        return [(kind, child) for child in table.tables(slot, most)]
    if how == "union":
        kind = f"{kind}{table.number(slot - 1, _U8)}"
    return [(kind, table.table(slot))]


def _graph_depth(calls: Sequence[tuple[int, int]], graphs: int, limits: ScanLimits) -> int:
    """How many graphs call each other at most."""
    callers: list[set[int]] = [set() for _ in range(graphs)]
    for caller, called in calls:
        _of_index(callers, called, "graph").add(caller)
    try:
        depth = longest_path([1] * graphs, callers)
    except CircleError as error:
        raise ModelRejectedError(
            f"graph {error.index} of the model calls itself, so it has no end"
        ) from error
    if depth > limits.max_graph_depth:
        raise beyond_limit(
            f"the model nests {depth} graphs, and this device takes {limits.max_graph_depth}",
            "use a simpler model",
            "max_graph_depth",
        )
    return depth


class _Walk:
    """Looks at sub-graphs and counts what they hold."""

    def __init__(
        self,
        reader: _Reader,
        codes: Sequence[int],
        buffers: Sequence[_Span],
        limits: ScanLimits,
    ) -> None:
        self._reader = reader
        self._codes = codes
        self._buffers = buffers
        self._limits = limits
        self.operators = 0
        self.tensors = 0
        self.control_flow: set[str] = set()

    def graph(self, graph: _Table) -> None:
        """Look at one sub-graph."""
        limits = self._limits
        tables = graph.tables(_GRAPH_TENSORS, _TENSORS_PER_NODE * limits.max_nodes - self.tensors)
        self.tensors += len(tables)
        tensors = [self._tensor(table) for table in tables]
        written = {index for index, tensor in enumerate(tensors) if tensor.has_content}
        for index in graph.numbers(_GRAPH_INPUTS):
            # Whoever fills the inputs would write into the file's read-only memory.
            if _of_index(tensors, index, "tensor").is_constant:
                raise ModelRejectedError(
                    "an input of the model is a constant: convert the model again"
                )
            written.add(index)
        operators = graph.tables(_GRAPH_OPERATORS, limits.max_nodes - self.operators)
        self.operators += len(operators)
        for operator in operators:
            self._operator(operator, tensors, written)
        for index in graph.numbers(_GRAPH_OUTPUTS):
            _of_index(tensors, index, "tensor")
            _check_written(index, written)

    def _tensor(self, table: _Table) -> _Tensor:
        if table.number(_TENSOR_EXTERNAL_BUFFER, _U32):
            raise _external_data()
        data = _of_index(self._buffers, table.number(_TENSOR_BUFFER, _U32), "buffer")
        shape = table.numbers(_TENSOR_SHAPE)
        if len(shape) > _MOST_AXES:
            raise ModelRejectedError(f"a tensor of the model has {len(shape)} axes")
        is_variable = table.number(_TENSOR_VARIABLE, _U8) != 0
        tensor = _Tensor(shape, table.number(_TENSOR_TYPE, _I8), data, is_variable)
        if any(size < 0 for size in shape) or any(
            size < -1 for size in table.numbers(_TENSOR_SIGNATURE)
        ):
            raise ModelRejectedError(f"a tensor has the impossible shape {list(shape)[:10]}")
        # Of floats, whose product ends at infinity.
        self._check_elements(max(_product(shape), *shape, 0), "a tensor")
        bits = _BITS.get(tensor.kind)
        if bits is None:
            return tensor
        needed = (tensor.elements * bits + 7) // 8
        if needed > MAX_TENSOR_BYTES:
            raise ModelRejectedError(
                f"a tensor of shape {list(shape)[:10]} is larger than 2 GiB, which TFLite cannot"
                " hold: use a smaller model"
            )
        # Kernels copy as many bytes as the file has into room for as many as the shape says.
        if tensor.is_constant and data.size != needed and not table.has(_TENSOR_SPARSITY):
            raise ModelRejectedError(
                f"a constant of shape {list(shape)[:10]} has {data.size} bytes instead of"
                f" {needed}: convert the model again"
            )
        return tensor

    def _operator(self, operator: _Table, tensors: Sequence[_Tensor], written: set[int]) -> None:
        """Look at one operator, which may read what is `written` and adds to it."""
        code = _of_index(self._codes, operator.number(_OPERATOR_CODE, _U32), "operator code")
        inputs = operator.numbers(_OPERATOR_INPUTS)
        outputs = operator.numbers(_OPERATOR_OUTPUTS)
        for index in (*inputs, *operator.numbers(_OPERATOR_INTERMEDIATES)):
            if index != -1:  # an optional operand that is not there
                _of_index(tensors, index, "tensor")
        for index in inputs:
            if index != -1:
                _check_written(index, written)
        if -1 in inputs[: 1 if code in _LSTMS else 2]:
            raise ModelRejectedError(
                f"operator {code} of the model lacks one of its first two operands: convert the"
                " model again"
            )
        for index in outputs:
            _of_index(tensors, index, "tensor")
        written.update(outputs)
        self._reader.span(
            operator.number(_OPERATOR_LARGE_OFFSET, _U64),
            operator.number(_OPERATOR_LARGE_SIZE, _U64),
        )
        if code in _CALLERS:
            _check_caller(operator, *_CALLERS[code])
        if code in _CONTROL_FLOW:
            self._allow_control_flow(_CONTROL_FLOW[code])
        if code == _RESHAPE:
            self._reshape(inputs, outputs, tensors)
        else:
            operands = [None if index == -1 else tensors[index] for index in inputs]
            self._check_elements(self._stated_elements(code, operands), f"operator {code}")

    def _allow_control_flow(self, name: str) -> None:
        if not self._limits.control_flow:
            raise beyond_limit(
                f"the model has control flow ({name}), which may never end",
                "convert it without loops and branches",
                "control_flow",
            )
        self.control_flow.add(name)

    def _reshape(
        self, inputs: Sequence[int], outputs: Sequence[int], tensors: Sequence[_Tensor]
    ) -> None:
        if len(inputs) not in (1, 2) or len(outputs) != 1:
            raise ModelRejectedError("a Reshape operator lacks its input or its output")
        source, target = tensors[inputs[0]], tensors[outputs[0]]
        if source.kind != target.kind:
            raise ModelRejectedError("a Reshape operator changes the type of its tensor")
        shape = tensors[inputs[1]] if len(inputs) == 2 else None
        if shape is None or not shape.is_constant:
            return
        if shape.kind != _INT32 or shape.elements > _MAX_RESHAPE_RANK:
            raise ModelRejectedError("a Reshape operator has an implausible new shape")
        sizes = self._reader.int32s(shape.data.first, shape.elements)
        if any(size < -1 for size in sizes) or sizes.count(-1) > 1:
            raise ModelRejectedError(f"a Reshape operator has the impossible new shape {sizes}")
        fixed = math.prod(size for size in sizes if size != -1)
        self._check_elements(fixed, "a Reshape operator")
        if source.is_constant and not _holds(source.elements, fixed, -1 in sizes):
            raise ModelRejectedError(
                f"a Reshape operator makes {list(sizes)} of a constant of {list(source.shape)[:10]}"
            )

    def _stated_elements(self, code: int, inputs: Sequence[_Tensor | None]) -> float:
        """How many elements the constants of an operator say that its output has at least."""

        def values(index: int) -> Sequence[float]:
            tensor = inputs[index] if index < len(inputs) else None
            return () if tensor is None else self._values(tensor)

        if code in _SIZE_INPUTS:
            return _product(values(_SIZE_INPUTS[code]))
        if code == _TILE and inputs and inputs[0] is not None:
            return inputs[0].elements * _product(values(1))
        if code in _PADDINGS:
            # Of axes that had one element before; pairs of those before and behind each axis.
            pads = values(1)
            return _product([max(1, a + b) for a, b in zip(pads[::2], pads[1::2])])
        if code == _RANGE:
            return _steps(*values(0), *values(1), *values(2))
        return 0

    def _values(self, tensor: _Tensor) -> Sequence[float]:
        """The numbers of a small constant; none where it is no such thing."""
        packing = _PACKING.get(tensor.kind)
        if packing is None or not tensor.is_constant or tensor.elements > _MOST_SIZES:
            return ()
        return self._reader.numbers(f"<{tensor.elements}{packing}", tensor.data)

    def _check_elements(self, elements: float, what: str) -> None:
        if elements > self._limits.max_elements:
            raise beyond_limit(
                f"{what} of the model has a size of {float(elements):.3g} elements, and this"
                f" device takes {self._limits.max_elements}",
                "use a smaller model or a smaller input",
                "max_elements",
            )


def _check_written(index: int, written: set[int]) -> None:
    """Runtimes give no memory to a tensor that nobody writes."""
    if index not in written:
        raise ModelRejectedError(
            f"tensor {index} of the model is read before an operator has written it: convert the"
            " model again"
        )


def _product(sizes: Sequence[float]) -> float:
    """What sizes say of a number of elements: those that are not positive are open or empty.

    No sizes say nothing.
    """
    return math.prod(float(size) for size in sizes if size > 0) if sizes else 0


def _check_caller(operator: _Table, type_slot: int, type_of_options: int) -> None:
    if operator.number(type_slot, _U8) != type_of_options or not operator.has(type_slot + 1):
        raise ModelRejectedError(
            "an operator of the model runs another graph and does not say which: convert the model"
            " again"
        )


def _steps(*numbers: float) -> float:
    """From the first number to the second in steps of the third."""
    if len(numbers) != 3 or numbers[2] == 0:
        return 0
    return (numbers[1] - numbers[0]) / numbers[2]


def _holds(elements: int, fixed: int, stretches: bool) -> bool:
    """Whether a new shape has as many elements as the old one."""
    if stretches:
        return fixed > 0 and elements % fixed == 0
    return elements == fixed


def _refuse_external_data(model: _Table) -> None:
    for slot in (_MODEL_EXTERNAL_GROUPS, _MODEL_EXTERNAL_BUFFERS):
        if model.has(slot) and model.tables(slot, 1):
            raise _external_data()


def _operator_code(table: _Table) -> tuple[int, str]:
    # Codes above 127 stand in the newer slot alone; older files have the older slot alone.
    code = max(table.number(_CODE_OLD, _I8), table.number(_CODE_NEW, _I32))
    return code, table.name(_CODE_CUSTOM) if code == _CUSTOM else ""


def _buffer(table: _Table, reader: _Reader) -> _Span:
    offset, size = table.number(_BUFFER_OFFSET, _U64), table.number(_BUFFER_SIZE, _U64)
    # Offsets 0 and 1 stand for data inside the flatbuffer; larger ones for data behind it.
    if offset > 1:
        return reader.span(offset, size)
    return table.bytes_at(_BUFFER_DATA)


class _Reader:
    """Bounds-checked numbers of a file."""

    def __init__(self, data: _Buffer, max_numbers: int) -> None:
        self._data = data
        self._max_numbers = max_numbers
        self._numbers = 0

    def root(self) -> _Table:
        """The root table. Raises ModelRejectedError where the file is no TFLite file."""
        if len(self._data) < _SMALLEST_FILE or self._data[4:8] != _IDENTIFIER:
            raise ModelRejectedError("the file is not a TFLite model, or it is cut")
        return _Table(self, self.number(_U32, 0))

    def number(self, packing: struct.Struct, position: int) -> int:
        """The number at a position."""
        self.span(position, packing.size)
        (value,) = packing.unpack_from(self._data, position)
        return int(value)

    def int32s(self, position: int, count: int) -> tuple[int, ...]:
        """So many int32 from a position on."""
        self.span(position, 4 * count)
        self._numbers += count
        if self._numbers > self._max_numbers:
            raise beyond_limit(
                f"the model lists more than {self._max_numbers} sizes and operands",
                "use a smaller model",
                "max_nodes",
            )
        return struct.unpack_from(f"<{count}i", self._data, position)

    def numbers(self, packing: str, span: _Span) -> tuple[float, ...]:
        """Numbers of any packing. Raises ModelRejectedError where the span has other bytes."""
        if struct.calcsize(packing) != span.size:
            raise _damaged()
        return struct.unpack_from(packing, self._data, span.first)

    def name(self, span: _Span) -> str:
        """A name. Raises ModelRejectedError where it is too long or not UTF-8."""
        if span.size > _LONGEST_NAME_BYTES:
            raise ModelRejectedError(
                f"the model has a name of {span.size} bytes, and {_LONGEST_NAME_BYTES} are"
                " allowed: give its tensors shorter names"
            )
        try:
            return self._data[span.first : span.last].decode()
        except UnicodeDecodeError as error:
            raise ModelRejectedError(
                "a name in the model is not UTF-8 text: convert the model again"
            ) from error

    def span(self, position: int, size: int) -> _Span:
        """A stretch of the file. Raises ModelRejectedError where it is not inside."""
        if not 0 <= position <= position + size <= len(self._data):
            raise _damaged()
        return _Span(position, position + size)


class _Table:
    """A table of a flatbuffer; a slot that is absent has the default value."""

    __slots__ = ("_position", "_reader", "_size", "_slots", "_vtable")

    def __init__(self, reader: _Reader, position: int) -> None:
        self._reader = reader
        self._position = position
        vtable = position - reader.number(_I32, position)
        vtable_size = reader.number(_U16, vtable)
        self._size = reader.number(_U16, vtable + 2)
        if vtable_size < 4 or vtable_size % 2 or self._size < 4:
            raise _damaged()
        reader.span(vtable, vtable_size)
        reader.span(position, self._size)
        self._vtable, self._slots = vtable, vtable_size // 2 - 2

    def has(self, slot: int) -> bool:
        """Whether the slot is there."""
        return self._place(slot) is not None

    def number(self, slot: int, packing: struct.Struct) -> int:
        """A number, 0 where it is absent."""
        place = self._place(slot, packing.size)
        return 0 if place is None else self._reader.number(packing, place)

    def numbers(self, slot: int) -> tuple[int, ...]:
        """A vector of int32."""
        vector = self.vector(slot, 4)
        return () if vector is None else self._reader.int32s(vector.first, vector.size // 4)

    def tables(self, slot: int, limit: int) -> list[_Table]:
        """A vector of tables. Raises ModelRejectedError where there are more than `limit`."""
        vector = self.vector(slot, 4)
        if vector is None:
            return []
        if vector.size > 4 * limit:
            raise beyond_limit(
                f"the model has a list of {vector.size // 4} operators, tensors, graphs or other"
                f" parts, and {limit} more are allowed",
                "use a smaller model",
                "max_nodes",
            )
        reader = self._reader
        places = range(vector.first, vector.last, 4)
        return [_Table(reader, place + reader.number(_U32, place)) for place in places]

    def name(self, slot: int) -> str:
        """A name, empty where it is absent."""
        return self._reader.name(self.bytes_at(slot))

    def table(self, slot: int) -> _Table:
        """The table that a slot points to. Raises ModelRejectedError where it is absent."""
        place = self._place(slot, 4)
        if place is None:
            raise _damaged()
        return _Table(self._reader, place + self._reader.number(_U32, place))

    def bytes_at(self, slot: int) -> _Span:
        """Where the bytes of a vector lie."""
        return self.vector(slot, 1) or _Span(0, 0)

    def verify_text(self, slot: int, *, is_name: bool) -> None:
        """Raises ModelRejectedError for a string that does not end where it says, and for a name
        that is none.
        """
        span = self.vector(slot, 1)
        if span is not None and self._reader.number(_I8, span.last) != 0:
            raise _damaged()
        if span is not None and is_name:
            self._reader.name(span)

    def verify_slots(self) -> None:
        """Raises ModelRejectedError where a slot lies outside of the table."""
        for slot in range(self._slots):
            self._place(slot)

    def vector(self, slot: int, item_size: int) -> _Span | None:
        """Where the items of a vector lie, None where it is absent."""
        place = self._place(slot, 4)
        if place is None:
            return None
        start = place + self._reader.number(_U32, place)
        return self._reader.span(start + 4, self._reader.number(_U32, start) * item_size)

    def _place(self, slot: int, size: int = 1) -> int | None:
        if slot >= self._slots:
            return None
        offset = self._reader.number(_U16, self._vtable + 4 + 2 * slot)
        if offset == 0:
            return None
        if offset < 4 or offset + size > self._size:
            raise _damaged()
        return self._position + offset


def _of_index(items: Sequence[_Item], index: int, what: str) -> _Item:
    if not 0 <= index < len(items):
        raise ModelRejectedError(
            f"the model file is damaged: it refers to {what} {index} of {len(items)}"
        )
    return items[index]


def _external_data() -> ModelRejectedError:
    return ModelRejectedError(
        "the model keeps weights in another file (external buffers): save it as one file"
    )


def _damaged() -> ModelRejectedError:
    return ModelRejectedError(
        "the model file is truncated or damaged: send it again, or convert it again"
    )
