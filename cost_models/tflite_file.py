"""A TFLite file as plain data: the only module here that reads flatbuffers.

The schema's accessors come from the `tflite` package, which trusts its input. Here nothing of the
file is trusted: counts are bounded by the size of the file, and whatever the accessors raise on
damaged bytes becomes an UnreadableModelError. Memory is never allocated by a size in the file.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatbuffers.number_types import Int32Flags
from tflite.ActivationFunctionType import ActivationFunctionType
from tflite.BatchMatMulOptions import BatchMatMulOptions
from tflite.BidirectionalSequenceLSTMOptions import BidirectionalSequenceLSTMOptions
from tflite.BidirectionalSequenceRNNOptions import BidirectionalSequenceRNNOptions
from tflite.BuiltinOperator import BuiltinOperator
from tflite.BuiltinOptions import BuiltinOptions
from tflite.Model import Model
from tflite.SequenceRNNOptions import SequenceRNNOptions
from tflite.TensorType import TensorType
from tflite.UnidirectionalSequenceLSTMOptions import UnidirectionalSequenceLSTMOptions

from cost_models.program import UnreadableModelError

_IDENTIFIER = b"TFL3"
_HIGHEST_RANK = 16
_MOST_ENTRIES = 200_000
_WIDE_CODE = 10  # the field builtin_code of OperatorCode, by its slot in the schema
_DAMAGE = (
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
ELEMENT_BYTES = {
    "FLOAT32": 4,
    "FLOAT16": 2,
    "INT32": 4,
    "UINT8": 1,
    "INT64": 8,
    "STRING": 1,
    "BOOL": 1,
    "INT16": 2,
    "COMPLEX64": 8,
    "INT8": 1,
    "FLOAT64": 8,
    "COMPLEX128": 16,
    "UINT64": 8,
    "RESOURCE": 0,
    "VARIANT": 0,
    "UINT32": 4,
    "UINT16": 2,
    "INT4": 0.5,
    "BFLOAT16": 2,
}


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor of the file.

    `shape` holds -1 where the file leaves a size open. `stored` is on where its numbers are in the
    file, `variable` where it keeps its value from one inference to the next.
    """

    name: str
    shape: tuple[int, ...]
    element: str
    stored: bool
    variable: bool


@dataclass(frozen=True, slots=True)
class FileOperator:
    """An operator of the file; -1 among the inputs is an omitted one.

    `op` is the schema's name, for a custom operator the name that the file gives it. `activation`
    is the activation computed in the same step. `flags` are the options that costs depend on.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str | None
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class TfliteFile:
    """The main graph of a TFLite file."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(model: bytes | Path) -> TfliteFile:
    """Read the main graph of a file.

    Raises UnreadableModelError for bytes that are no TFLite model or a damaged one, OSError where
    the file cannot be read.
    """
    data = model if isinstance(model, bytes) else model.read_bytes()
    name = "the model" if isinstance(model, bytes) else str(model)
    if data[4:8] != _IDENTIFIER:
        raise UnreadableModelError(f"{name} is not a TFLite file or is damaged")
    try:
        read = _Reader(data).read()
    except _DAMAGE as error:
        raise UnreadableModelError(f"{name} is a damaged TFLite file") from error
    return read


def _names(enumeration: type) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int) and k[0] != "_"}


_BUILTINS, _ELEMENTS = _names(BuiltinOperator), _names(TensorType)
_ACTIVATIONS, _OPTIONS = _names(ActivationFunctionType), _names(BuiltinOptions)
_ACTIVATION_FIELD = {
    # The field of the options table that names the fused activation, by its slot in the schema.
    "AddOptions": 4,
    "BidirectionalSequenceLSTMOptions": 4,
    "BidirectionalSequenceRNNOptions": 6,
    "ConcatenationOptions": 6,
    "Conv2DOptions": 10,
    "Conv3DOptions": 12,
    "DepthwiseConv2DOptions": 12,
    "DivOptions": 4,
    "FullyConnectedOptions": 4,
    "L2NormOptions": 4,
    "MulOptions": 4,
    "Pool2DOptions": 14,
    "SubOptions": 4,
    "TransposeConvOptions": 10,
}
_FLAGS: dict[str, tuple[type, dict[str, str]]] = {
    "BatchMatMulOptions": (BatchMatMulOptions, {"AdjX": "adj_x", "AdjY": "adj_y"}),
    "BidirectionalSequenceLSTMOptions": (
        BidirectionalSequenceLSTMOptions,
        {"TimeMajor": "time_major"},
    ),
    "BidirectionalSequenceRNNOptions": (
        BidirectionalSequenceRNNOptions,
        {"TimeMajor": "time_major"},
    ),
    "SequenceRNNOptions": (SequenceRNNOptions, {"TimeMajor": "time_major"}),
    "UnidirectionalSequenceLSTMOptions": (
        UnidirectionalSequenceLSTMOptions,
        {"TimeMajor": "time_major"},
    ),
}


class _Reader:
    """Walks the tables of one file."""

    def __init__(self, data: bytes) -> None:
        self._entries = min(_MOST_ENTRIES, len(data) // 4)
        self._left = 16 * self._entries
        self._model: Any = Model.GetRootAs(bytearray(data), 0)

    def read(self) -> TfliteFile:
        if self._model.SubgraphsLength() < 1:
            raise ValueError
        graph = self._model.Subgraphs(0)
        codes = [self._code(i) for i in self._upto(self._model.OperatorCodesLength())]
        stored = [self._is_stored(i) for i in self._upto(self._model.BuffersLength())]
        count = graph.TensorsLength()
        tensors = tuple(self._tensor(graph.Tensors(i), stored) for i in self._upto(count))
        operators = tuple(
            self._operator(graph.Operators(i), codes, count)
            for i in self._upto(graph.OperatorsLength())
        )
        inputs = self._indices(graph.Inputs, graph.InputsLength(), count)
        outputs = self._indices(graph.Outputs, graph.OutputsLength(), count)
        if not outputs or -1 in (*inputs, *outputs):
            raise ValueError
        return TfliteFile(tensors, operators, inputs, outputs)

    def _upto(self, length: int) -> Iterator[int]:
        """The indices of a vector, refusing more than the file can hold, all vectors together."""
        self._left -= length
        if length > self._entries or self._left < 0:
            raise ValueError
        return iter(range(length))

    def _indices(self, item: Callable[[int], int], length: int, count: int) -> tuple[int, ...]:
        found = tuple(int(item(i)) for i in self._upto(length))
        if any(not -1 <= index < count for index in found):
            raise ValueError
        return found

    def _code(self, index: int) -> str:
        code = self._model.OperatorCodes(index)
        # Files older than the wide field hold the code in the narrow one only, and some tools fill
        # the wide one only, which the package's accessor passes over below 127.
        place = code._tab.Offset(_WIDE_CODE)  # noqa: SLF001
        wide = code._tab.Get(Int32Flags, place + code._tab.Pos) if place else 0  # noqa: SLF001
        number = max(wide, code.DeprecatedBuiltinCode())
        name = _BUILTINS.get(number, f"BUILTIN_{number}")
        if name != "CUSTOM":
            return name
        custom = code.CustomCode()
        return "CUSTOM" if custom is None else str(custom.decode(errors="replace"))[:80]

    def _is_stored(self, index: int) -> bool:
        buffer = self._model.Buffers(index)
        # A file of more than 2 GB keeps its numbers behind the tables.
        return bool(index and (buffer.DataLength() > 0 or buffer.Offset() > 1))

    def _tensor(self, tensor: Any, stored: list[bool]) -> FileTensor:
        shape = self._sizes(tensor.Shape, tensor.ShapeLength())
        signature = self._sizes(tensor.ShapeSignature, tensor.ShapeSignatureLength())
        if len(signature) == len(shape):
            shape = tuple(
                -1 if named == -1 else size for size, named in zip(shape, signature, strict=True)
            )
        name = tensor.Name()
        return FileTensor(
            "" if name is None else name.decode(errors="replace"),
            shape,
            _ELEMENTS.get(tensor.Type(), "FLOAT32"),
            stored[tensor.Buffer()],
            bool(tensor.IsVariable()),
        )

    def _sizes(self, item: Callable[[int], int], length: int) -> tuple[int, ...]:
        if length > _HIGHEST_RANK:
            raise ValueError
        sizes = tuple(int(item(i)) for i in self._upto(length))
        if any(size < -1 for size in sizes):
            raise ValueError
        return sizes

    def _operator(self, operator: Any, codes: list[str], count: int) -> FileOperator:
        kind = _OPTIONS.get(operator.BuiltinOptionsType(), "")
        options = operator.BuiltinOptions()
        return FileOperator(
            codes[operator.OpcodeIndex()],
            self._indices(operator.Inputs, operator.InputsLength(), count),
            self._indices(operator.Outputs, operator.OutputsLength(), count),
            None if options is None else _activation(kind, options),
            frozenset() if options is None else _flags(kind, options),
        )


def _activation(kind: str, options: Any) -> str | None:
    slot = _ACTIVATION_FIELD.get(kind)
    if slot is None:
        return None
    offset = options.Offset(slot)
    number = options.Bytes[options.Pos + offset] if offset else 0
    name = _ACTIVATIONS.get(number, "NONE")
    return None if name == "NONE" else name


def _flags(kind: str, options: Any) -> frozenset[str]:
    if kind not in _FLAGS:
        return frozenset()
    table, names = _FLAGS[kind]
    reader = table()
    reader.Init(options.Bytes, options.Pos)
    return frozenset(flag for method, flag in names.items() if getattr(reader, method)())
