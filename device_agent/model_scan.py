"""What an ONNX file holds, read from its bytes before any runtime sees it.

onnxruntime before 1.24 reads files outside the model's folder when a tensor names them, and no
newer version exists for Python 3.10 and older; so the agent looks by itself, at every place where
a tensor may stand. Field numbers are those of onnx.proto3 (ONNX IR version 3 to 12).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from device_agent.errors import ModelRejectedError

MAX_NODES = 20_000
MAX_GRAPH_DEPTH = 4
# The operator sets of ONNX itself and those that onnxruntime implements.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})

_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NODE_DOMAIN, _FUNCTION_DOMAIN = 7, 10
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14

_Buffer = Union[bytes, mmap.mmap]


@dataclass(frozen=True)
class ModelScan:
    """Counts over the whole file, functions and sub-graphs included."""

    nodes: int
    tensors: int
    graph_depth: int


@dataclass
class _Tally:
    nodes: int = 0
    tensors: int = 0
    graphs: int = 0
    depth: int = 0
    used_domains: set[str] = field(default_factory=set)
    own_domains: set[str] = field(default_factory=set)


def scan_file(path: Path) -> ModelScan:
    """Scan the file at `path` without holding it in memory.

    Raises ModelRejectedError as `scan_bytes` does.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ModelRejectedError("the model file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return scan_bytes(data)


def scan_bytes(data: _Buffer) -> ModelScan:
    """Walk every message of an ONNX ModelProto.

    Raises ModelRejectedError for a truncated or malformed file, a tensor that refers to another
    file, more than MAX_NODES nodes, graphs nested deeper than MAX_GRAPH_DEPTH, and operators of
    a domain that neither DOMAINS nor the file's own functions know.
    """
    tally = _Tally()
    # A stack instead of recursion: nesting is the file's choice.
    pending = [("model", 0, len(data), 0)]
    while pending:
        kind, start, end, depth = pending.pop()
        depth = _enter(kind, depth, tally)
        for number, wire_type, first, last in _fields(data, start, end):
            _inspect(kind, number, data, (first, last), tally)
            child = _CHILDREN[kind].get(number)
            if child is not None and wire_type == _BYTES:
                pending.append((child, first, last, depth))
    if tally.graphs == 0:
        raise ModelRejectedError("the file holds no graph: it is not an ONNX model")
    unknown = tally.used_domains - tally.own_domains - DOMAINS
    if unknown:
        raise ModelRejectedError(
            f"the model uses operators of unknown domains: {', '.join(sorted(unknown))}"
        )
    return ModelScan(tally.nodes, tally.tensors, tally.depth)


def _enter(kind: str, depth: int, tally: _Tally) -> int:
    if kind == "graph":
        depth += 1
        tally.graphs += 1
        tally.depth = max(tally.depth, depth)
        if depth > MAX_GRAPH_DEPTH:
            raise ModelRejectedError(f"the model nests graphs deeper than {MAX_GRAPH_DEPTH}")
    elif kind == "node":
        tally.nodes += 1
        if tally.nodes > MAX_NODES:
            raise ModelRejectedError(f"the model has more than {MAX_NODES} nodes")
    elif kind == "tensor":
        tally.tensors += 1
    return depth


def _inspect(kind: str, number: int, data: _Buffer, span: tuple[int, int], tally: _Tally) -> None:
    if kind == "tensor":
        # The enum's only other value is EXTERNAL; a varint of zeros is DEFAULT.
        external = number == _TENSOR_DATA_LOCATION and any(
            byte & 0x7F for byte in data[slice(*span)]
        )
        if external or number == _TENSOR_EXTERNAL_DATA:
            raise ModelRejectedError(
                "the model keeps weights in another file (external data): save it as one file"
            )
    elif kind == "node" and number == _NODE_DOMAIN:
        tally.used_domains.add(data[slice(*span)].decode("utf-8", "replace"))
    elif kind == "function" and number == _FUNCTION_DOMAIN:
        tally.own_domains.add(data[slice(*span)].decode("utf-8", "replace"))


def _fields(data: _Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type and the span of the value of each field of one message."""
    position = start
    while position < end:
        key, position = _varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        first = position
        if wire_type == _VARINT:
            _, position = _varint(data, position, end)
        elif wire_type == _BYTES:
            length, first = _varint(data, position, end)
            position = first + length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise ModelRejectedError("the file is not an ONNX model: its encoding is malformed")
        if position > end or number == 0:
            raise ModelRejectedError("the model file is truncated or damaged")
        yield number, wire_type, first, position


def _varint(data: _Buffer, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise ModelRejectedError("the model file is truncated or damaged")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ModelRejectedError("the file is not an ONNX model: its encoding is malformed")
