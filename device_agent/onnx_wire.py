"""The messages of an ONNX file as they lie in it: protobuf, read without a parser and in place.

Stricter than a parser: what no serialiser writes and two parsers may read in two ways is refused,
so that whoever looks here sees what a runtime will see. Field numbers are those of onnx.proto
(ONNX IR version 3 to 13); the encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from device_agent.errors import ModelRejectedError

LONGEST_NAME_BYTES = 4096

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_HIGHEST_NUMBER = (1 << 29) - 1
_MOST_BITS = 70

Buffer = Union[bytes, mmap.mmap]


@dataclass(frozen=True)
class _Field:
    """What a field holds: an encoding, as often as it likes or once, and for a message its kind."""

    wire_type: int
    repeated: bool = False
    is_name: bool = False
    message: str = ""

    @property
    def wire_types(self) -> tuple[int, ...]:
        """Numbers that repeat may also be packed into one field."""
        if self.repeated and self.wire_type != _BYTES:
            return (self.wire_type, _BYTES)
        return (self.wire_type,)


def _one(kind: str) -> _Field:
    return _Field(_BYTES, message=kind)


def _many(kind: str) -> _Field:
    return _Field(_BYTES, repeated=True, message=kind)


_NUMBER, _NUMBERS = _Field(_VARINT), _Field(_VARINT, repeated=True)
_FLOAT, _FLOATS = _Field(_FIXED32), _Field(_FIXED32, repeated=True)
_DOUBLES = _Field(_FIXED64, repeated=True)
_NAME, _NAMES = _Field(_BYTES, is_name=True), _Field(_BYTES, repeated=True, is_name=True)
_DATA, _DATAS = _Field(_BYTES), _Field(_BYTES, repeated=True)
_PROPERTIES = _many("property")

MESSAGES: Mapping[str, Mapping[int, _Field]] = {
    "model": {
        1: _NUMBER,
        2: _NAME,
        3: _NAME,
        4: _NAME,
        5: _NUMBER,
        6: _DATA,
        7: _one("graph"),
        8: _many("operator set"),
        14: _PROPERTIES,
        20: _many("training"),
        25: _many("function"),
        26: _many("configuration"),
    },
    "training": {1: _one("graph"), 2: _one("graph"), 3: _PROPERTIES, 4: _PROPERTIES},
    "function": {
        1: _NAME,
        4: _NAMES,
        5: _NAMES,
        6: _NAMES,
        7: _many("node"),
        8: _DATA,
        9: _many("operator set"),
        10: _NAME,
        11: _many("attribute"),
        12: _many("value"),
        13: _NAME,
        14: _PROPERTIES,
    },
    "graph": {
        1: _many("node"),
        2: _NAME,
        5: _many("tensor"),
        10: _DATA,
        11: _many("value"),
        12: _many("value"),
        13: _many("value"),
        14: _many("annotation"),
        15: _many("sparse tensor"),
        16: _PROPERTIES,
    },
    "node": {
        1: _NAMES,
        2: _NAMES,
        3: _NAME,
        4: _NAME,
        5: _many("attribute"),
        6: _DATA,
        7: _NAME,
        8: _NAME,
        9: _PROPERTIES,
        10: _many("node configuration"),
    },
    "attribute": {
        1: _NAME,
        2: _FLOAT,
        3: _NUMBER,
        4: _DATA,
        5: _one("tensor"),
        6: _one("graph"),
        7: _FLOATS,
        8: _NUMBERS,
        9: _DATAS,
        10: _many("tensor"),
        11: _many("graph"),
        13: _DATA,
        14: _one("type"),
        15: _many("type"),
        20: _NUMBER,
        21: _NAME,
        22: _one("sparse tensor"),
        23: _many("sparse tensor"),
    },
    "tensor": {
        1: _NUMBERS,
        2: _NUMBER,
        3: _one("segment"),
        4: _FLOATS,
        5: _NUMBERS,
        6: _DATAS,
        7: _NUMBERS,
        8: _NAME,
        9: _DATA,
        10: _DOUBLES,
        11: _NUMBERS,
        12: _DATA,
        13: _PROPERTIES,
        14: _NUMBER,
        16: _PROPERTIES,
    },
    "sparse tensor": {1: _one("tensor"), 2: _one("tensor"), 3: _NUMBERS},
    "value": {1: _NAME, 2: _one("type"), 3: _DATA, 4: _PROPERTIES},
    "type": {
        1: _one("tensor type"),
        4: _one("list type"),
        5: _one("map type"),
        6: _NAME,
        7: _one("opaque type"),
        8: _one("tensor type"),
        9: _one("list type"),
    },
    "tensor type": {1: _NUMBER, 2: _one("shape")},
    "list type": {1: _one("type")},
    "map type": {1: _NUMBER, 2: _one("type")},
    "opaque type": {1: _NAME, 2: _NAME},
    "shape": {1: _many("dimension")},
    "dimension": {1: _NUMBER, 2: _NAME, 3: _NAME},
    "property": {1: _NAME, 2: _DATA},
    "annotation": {1: _NAME, 2: _PROPERTIES},
    "operator set": {1: _NAME, 2: _NUMBER},
    "segment": {1: _NUMBER, 2: _NUMBER},
    "configuration": {1: _NAME, 2: _NUMBER, 3: _NAMES},
    "node configuration": {1: _NAME, 2: _many("sharding"), 3: _NUMBER},
    "sharding": {
        1: _NAME,
        2: _NUMBERS,
        3: _many("device group"),
        4: _many("sharded dimension"),
    },
    "device group": {1: _NUMBER, 2: _NUMBERS},
    "sharded dimension": {1: _NUMBER, 2: _many("simple sharding")},
    "simple sharding": {1: _NUMBER, 2: _NAME, 3: _NUMBER},
}
"""The messages that an ONNX file is made of, by a name of our own and the numbers of fields."""

_BY_KEY = {
    kind: {
        number << 3 | wire_type: (number, field)
        for number, field in fields.items()
        for wire_type in field.wire_types
    }
    for kind, fields in MESSAGES.items()
}


class Wire:
    """Bounds-checked fields of one file; at most `max_fields` of them are read in all."""

    def __init__(self, data: Buffer, max_fields: int) -> None:
        self._data = data
        self._max_fields = max_fields
        self._left = max_fields

    def fields(self, kind: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number and span of the value of each field of one message; what ONNX does not know is
        left out, as parsers do.

        Raises ModelRejectedError for a truncated or malformed message, a field that stands twice
        where it may stand once, and a name that is too long or not UTF-8.
        """
        known = _BY_KEY[kind]
        seen = 0
        while start < end:
            key, start = self._varint(start, end)
            first, last = self._value(key & 7, start, end)
            start = last
            self._count()
            entry = known.get(key)
            if entry is None:
                _check_unknown(kind, key >> 3)
                continue
            number, field = entry
            if not field.repeated:
                if seen >> number & 1:
                    raise _malformed(f"field {number} of a {kind} stands in it twice")
                seen |= 1 << number
            if field.is_name:
                self._check_name(first, last)
            yield number, first, last

    def skim(self, kind: str, start: int, end: int) -> None:
        """Look at a message and all that is inside it for its form alone: one of a kind that
        cannot hold itself.

        Raises ModelRejectedError as `fields` does.
        """
        for number, first, last in self.fields(kind, start, end):
            child = MESSAGES[kind][number].message
            if child:
                self.skim(child, first, last)

    def bytes_at(self, first: int, last: int) -> bytes:
        """A copy of a stretch of the file."""
        return self._data[first:last]

    def text(self, first: int, last: int) -> str:
        """A name that `fields` has looked at."""
        return self._data[first:last].decode()

    def integer(self, first: int, last: int) -> int:
        """The signed number of 64 bits at a place."""
        value, _ = self._varint(first, last)
        value &= (1 << 64) - 1
        return value - (1 << 64) if value >> 63 else value

    def integers(self, first: int, last: int, most: int) -> tuple[int, ...] | None:
        """Numbers one after the other, None where there are more than `most`.

        Raises ModelRejectedError where the last one is cut.
        """
        values: list[int] = []
        while first < last:
            if len(values) == most:
                return None
            _, after = self._varint(first, last)
            values.append(self.integer(first, after))
            first = after
        return tuple(values)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ModelRejectedError(
                f"the model file has more than {self._max_fields} fields, far more than a network"
                " of the nodes that this device takes: save its weights as raw data, or use a"
                " smaller model"
            )

    def _value(self, wire_type: int, first: int, end: int) -> tuple[int, int]:
        """Where a value begins and ends, without the length in front of it."""
        if wire_type == _BYTES:
            length, first = self._varint(first, end)
            last = first + length
        elif wire_type == _VARINT:
            _, last = self._varint(first, end)
        elif wire_type == _FIXED64:
            last = first + 8
        elif wire_type == _FIXED32:
            last = first + 4
        else:
            raise _malformed(f"it has fields of type {wire_type}, which ONNX does not use")
        if last > end:
            raise _truncated()
        return first, last

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """The number at a position and where it ends."""
        if position >= end:
            raise _truncated()
        data = self._data
        value = data[position]
        position += 1
        if value < 0x80:
            return value, position
        value &= 0x7F
        for shift in range(7, _MOST_BITS, 7):
            if position >= end:
                raise _truncated()
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise _malformed("a number has more than 64 bits")

    def _check_name(self, first: int, last: int) -> None:
        if last - first > LONGEST_NAME_BYTES:
            raise ModelRejectedError(
                f"the model has a name of {last - first} bytes, and {LONGEST_NAME_BYTES} are"
                " allowed: give its values and nodes shorter names"
            )
        try:
            self._data[first:last].decode()
        except UnicodeDecodeError as error:
            raise ModelRejectedError(
                "a name in the model is not UTF-8 text: export the model again"
            ) from error


def _check_unknown(kind: str, number: int) -> None:
    """Parsers skip what they do not know; but a known number of a strange encoding, and one that
    not every parser cuts to the same bits, come from no serialiser.
    """
    if not 0 < number <= _HIGHEST_NUMBER:
        raise _malformed(f"it has a field of number {number}")
    if number in MESSAGES[kind]:
        raise _malformed(f"field {number} of a {kind} has the wrong type")


def _truncated() -> ModelRejectedError:
    return ModelRejectedError(
        "the model file is truncated or damaged: send it again, or export it again"
    )


def _malformed(what: str) -> ModelRejectedError:
    return ModelRejectedError(f"the file is not an ONNX model, or it is damaged: {what}")
