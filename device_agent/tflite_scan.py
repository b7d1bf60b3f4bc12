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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Union

from device_agent.errors import ModelRejectedError

MAX_SUBGRAPHS = 100
MAX_OPERATORS = 20_000
MAX_TENSORS = 200_000
MAX_BUFFERS = 200_000
# Sizes of tensors, operands of operators and the like, over the whole file.
MAX_NUMBERS = 2_000_000
# Tables of any kind, counted as often as something points to them.
MAX_TABLES = 1_000_000
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
_LONGEST_NAME = 1000

_MODEL_VERSION, _MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 0, 1, 2, 4
_MODEL_METADATA, _MODEL_EXTERNAL_GROUPS, _MODEL_EXTERNAL_BUFFERS = 6, 8, 9
_CODE_OLD, _CODE_CUSTOM, _CODE_NEW = 0, 1, 3
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER = 0, 1, 2
_TENSOR_SPARSITY, _TENSOR_SIGNATURE, _TENSOR_EXTERNAL_BUFFER = 6, 7, 10
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_OPERATOR_INTERMEDIATES, _OPERATOR_LARGE_OFFSET, _OPERATOR_LARGE_SIZE = 8, 9, 10
_METADATA_NAME, _METADATA_BUFFER = 0, 1

_RESHAPE, _CUSTOM = 22, 32
_INT32 = 2
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
# What a slot of a table holds, for those that point elsewhere: text, a vector of items of so many
# bytes, tables of a kind, or a union, whose type stands in the slot before.
_TEXT = ("text", "")
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
    "code": {1: _TEXT},
    "graph": {0: ("list", "tensor"), 1: 4, 2: 4, 3: ("list", "operator"), 4: _TEXT},
    "buffer": {0: 1},
    "metadata": {0: _TEXT},
    "signature": {0: ("list", "map"), 1: ("list", "map"), 2: _TEXT},
    "map": {0: _TEXT},
    "tensor": {
        0: 4,
        3: _TEXT,
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
    """Counts over all sub-graphs."""

    subgraphs: int
    operators: int
    tensors: int
    custom_operators: tuple[str, ...]


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

    @property
    def is_constant(self) -> bool:
        return self.data.size > 0


def scan_file(path: Path) -> TfliteScan:
    """Scan the file at `path` without holding it in memory.

    Raises ModelRejectedError as `scan_bytes` does.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ModelRejectedError("the model file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return scan_bytes(data)


def scan_bytes(data: _Buffer) -> TfliteScan:
    """Walk the graphs, tensors and buffers of a TFLite model.

    Raises ModelRejectedError for another format, an offset or a length beyond the file, data in
    other files, more of anything than the limits above, custom operators outside
    CUSTOM_OPERATORS, a constant whose bytes are not those of its shape, a tensor too large for
    32-bit arithmetic, and a Reshape that would write past its output.
    """
    reader = _Reader(data)
    model = reader.root()
    _verify(model)
    if model.number(_MODEL_VERSION, _U32) != _VERSION:
        raise ModelRejectedError("the file is not of TFLite's schema version 3")
    _refuse_external_data(model)
    codes = [_operator_code(code) for code in model.tables(_MODEL_CODES, MAX_OPERATORS)]
    custom = sorted({name for code, name in codes if code == _CUSTOM})
    unknown = [name for name in custom if name not in CUSTOM_OPERATORS]
    if unknown:
        raise ModelRejectedError(
            f"the model uses custom operators that no runtime here has: {', '.join(unknown)[:400]}"
        )
    buffers = [_buffer(table, reader) for table in model.tables(_MODEL_BUFFERS, MAX_BUFFERS)]
    for entry in model.tables(_MODEL_METADATA, MAX_BUFFERS):
        if not entry.has(_METADATA_NAME):
            raise _damaged()
        _of_index(buffers, entry.number(_METADATA_BUFFER, _U32), "buffer")
    walk = _Walk(reader, [code for code, _ in codes], buffers)
    graphs = model.tables(_MODEL_SUBGRAPHS, MAX_SUBGRAPHS)
    if not graphs:
        raise ModelRejectedError("the file holds no graph")
    for graph in graphs:
        walk.graph(graph)
    return TfliteScan(len(graphs), walk.operators, walk.tensors, tuple(custom))


def _verify(model: _Table) -> None:
    """Everything that the tables point to lies inside the file.

    tflite-runtime follows offsets unseen. The kinds of tables do not nest in circles.
    """
    tables = 0
    pending = [("model", model)]
    while pending:
        kind, table = pending.pop()
        tables += 1
        if tables > MAX_TABLES:
            raise ModelRejectedError(f"the model has more than {MAX_TABLES} parts")
        for slot, holds in _SLOTS.get(kind, {}).items():
            if isinstance(holds, int):
                table.vector(slot, holds)
            elif holds == _TEXT:
                table.verify_text(slot)
            elif table.has(slot):
                pending.extend(_children(table, slot, *holds))
        table.verify_slots()


def _children(table: _Table, slot: int, how: str, kind: str) -> list[tuple[str, _Table]]:
    if how == "list":
        return [(kind, child) for child in table.tables(slot, MAX_TABLES)]
    if how == "union":
        kind = f"{kind}{table.number(slot - 1, _U8)}"
    return [(kind, table.table(slot))]


class _Walk:
    """Looks at sub-graphs and counts what they hold."""

    def __init__(self, reader: _Reader, codes: Sequence[int], buffers: Sequence[_Span]) -> None:
        self._reader = reader
        self._codes = codes
        self._buffers = buffers
        self.operators = 0
        self.tensors = 0

    def graph(self, graph: _Table) -> None:
        """Look at one sub-graph."""
        tables = graph.tables(_GRAPH_TENSORS, MAX_TENSORS - self.tensors)
        self.tensors += len(tables)
        tensors = [self._tensor(table) for table in tables]
        for slot in (_GRAPH_INPUTS, _GRAPH_OUTPUTS):
            for index in graph.numbers(slot):
                _of_index(tensors, index, "tensor")
        operators = graph.tables(_GRAPH_OPERATORS, MAX_OPERATORS - self.operators)
        self.operators += len(operators)
        for operator in operators:
            self._operator(operator, tensors)

    def _tensor(self, table: _Table) -> _Tensor:
        if table.number(_TENSOR_EXTERNAL_BUFFER, _U32):
            raise _external_data()
        data = _of_index(self._buffers, table.number(_TENSOR_BUFFER, _U32), "buffer")
        shape = table.numbers(_TENSOR_SHAPE)
        tensor = _Tensor(shape, table.number(_TENSOR_TYPE, _I8), data)
        if any(size < 0 for size in shape) or any(
            size < -1 for size in table.numbers(_TENSOR_SIGNATURE)
        ):
            raise ModelRejectedError(f"a tensor has the impossible shape {list(shape)[:10]}")
        bits = _BITS.get(tensor.kind)
        if bits is None:
            return tensor
        needed = (math.prod(shape) * bits + 7) // 8
        if needed > MAX_TENSOR_BYTES:
            raise ModelRejectedError(f"a tensor of shape {list(shape)[:10]} is larger than 2 GiB")
        # Kernels copy as many bytes as the file has into room for as many as the shape says.
        if tensor.is_constant and data.size != needed and not table.has(_TENSOR_SPARSITY):
            raise ModelRejectedError(
                f"a constant of shape {list(shape)[:10]} has {data.size} bytes instead of {needed}"
            )
        return tensor

    def _operator(self, operator: _Table, tensors: Sequence[_Tensor]) -> None:
        code = _of_index(self._codes, operator.number(_OPERATOR_CODE, _U32), "operator code")
        inputs = operator.numbers(_OPERATOR_INPUTS)
        outputs = operator.numbers(_OPERATOR_OUTPUTS)
        for index in (*inputs, *outputs, *operator.numbers(_OPERATOR_INTERMEDIATES)):
            if index != -1:  # an optional operand that is not there
                _of_index(tensors, index, "tensor")
        self._reader.span(
            operator.number(_OPERATOR_LARGE_OFFSET, _U64),
            operator.number(_OPERATOR_LARGE_SIZE, _U64),
        )
        if code == _RESHAPE:
            self._reshape(inputs, outputs, tensors)

    def _reshape(
        self, inputs: Sequence[int], outputs: Sequence[int], tensors: Sequence[_Tensor]
    ) -> None:
        if len(inputs) not in (1, 2) or len(outputs) != 1 or -1 in (inputs[0], outputs[0]):
            raise ModelRejectedError("a Reshape operator lacks its input or its output")
        source, target = tensors[inputs[0]], tensors[outputs[0]]
        if source.kind != target.kind:
            raise ModelRejectedError("a Reshape operator changes the type of its tensor")
        shape = tensors[inputs[1]] if len(inputs) == 2 and inputs[1] != -1 else None
        if shape is None or not shape.is_constant:
            return
        if shape.kind != _INT32 or math.prod(shape.shape) > _MAX_RESHAPE_RANK:
            raise ModelRejectedError("a Reshape operator has an implausible new shape")
        sizes = self._reader.int32s(shape.data.first, math.prod(shape.shape))
        if any(size < -1 for size in sizes) or sizes.count(-1) > 1:
            raise ModelRejectedError(f"a Reshape operator has the impossible new shape {sizes}")
        fixed = math.prod(size for size in sizes if size != -1)
        if source.is_constant and not _holds(math.prod(source.shape), fixed, -1 in sizes):
            raise ModelRejectedError(
                f"a Reshape operator makes {list(sizes)} of a constant of {list(source.shape)[:10]}"
            )


def _holds(elements: int, fixed: int, stretches: bool) -> bool:
    """Whether a new shape has as many elements as the old one."""
    if stretches:
        return fixed > 0 and elements % fixed == 0
    return elements == fixed


def _refuse_external_data(model: _Table) -> None:
    for slot in (_MODEL_EXTERNAL_GROUPS, _MODEL_EXTERNAL_BUFFERS):
        if model.has(slot) and model.tables(slot, MAX_BUFFERS):
            raise _external_data()


def _operator_code(table: _Table) -> tuple[int, str]:
    # Codes above 127 stand in the newer slot alone; older files have the older slot alone.
    code = max(table.number(_CODE_OLD, _I8), table.number(_CODE_NEW, _I32))
    return code, table.text(_CODE_CUSTOM) if code == _CUSTOM else ""


def _buffer(table: _Table, reader: _Reader) -> _Span:
    offset, size = table.number(_BUFFER_OFFSET, _U64), table.number(_BUFFER_SIZE, _U64)
    # Offsets 0 and 1 stand for data inside the flatbuffer; larger ones for data behind it.
    if offset > 1:
        return reader.span(offset, size)
    return table.bytes_at(_BUFFER_DATA)


class _Reader:
    """Bounds-checked numbers of a file."""

    def __init__(self, data: _Buffer) -> None:
        self._data = data
        self._numbers = 0

    def root(self) -> _Table:
        """The root table. Raises ModelRejectedError where the file is no TFLite file."""
        if len(self._data) < _SMALLEST_FILE or self._data[4:8] != _IDENTIFIER:
            raise ModelRejectedError("the file is not a TFLite model")
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
        if self._numbers > MAX_NUMBERS:
            raise ModelRejectedError(f"the model lists more than {MAX_NUMBERS} sizes and operands")
        return struct.unpack_from(f"<{count}i", self._data, position)

    def text(self, span: _Span) -> str:
        """The text of a span."""
        return self._data[span.first : span.last].decode("utf-8", "replace")

    def span(self, position: int, size: int) -> _Span:
        """A stretch of the file. Raises ModelRejectedError where it is not inside."""
        if not 0 <= position <= position + size <= len(self._data):
            raise _damaged()
        return _Span(position, position + size)


class _Table:
    """A table of a flatbuffer; a slot that is absent has the default value."""

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
            raise ModelRejectedError(
                f"the model has more operators, tensors or graphs than are run here: its parts"
                f" number {vector.size // 4}, and {limit} are left"
            )
        reader = self._reader
        places = range(vector.first, vector.last, 4)
        return [_Table(reader, place + reader.number(_U32, place)) for place in places]

    def text(self, slot: int) -> str:
        """A string of a sensible length, empty where it is absent."""
        span = self.bytes_at(slot)
        if span.size > _LONGEST_NAME:
            raise ModelRejectedError(f"the model has a name of {span.size} bytes")
        return self._reader.text(span)

    def table(self, slot: int) -> _Table:
        """The table that a slot points to. Raises ModelRejectedError where it is absent."""
        place = self._place(slot, 4)
        if place is None:
            raise _damaged()
        return _Table(self._reader, place + self._reader.number(_U32, place))

    def bytes_at(self, slot: int) -> _Span:
        """Where the bytes of a vector lie."""
        return self.vector(slot, 1) or _Span(0, 0)

    def verify_text(self, slot: int) -> None:
        """Raises ModelRejectedError for a string that does not end where it says."""
        span = self.vector(slot, 1)
        if span is not None and self._reader.number(_I8, span.last) != 0:
            raise _damaged()

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
    return ModelRejectedError("the model file is truncated or damaged")
