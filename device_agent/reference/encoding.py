"""The three encodings that model files use, as far as small models need them: standard library
only, so that the same values make the same bytes everywhere.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def varint(value: int) -> bytes:
    """A number of protobuf: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message: a number, or text or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


@dataclass(frozen=True)
class Scalar:
    """A number in a table, and how struct packs it."""

    packing: str
    value: int


def I8(value: int) -> Scalar:  # noqa: N802 - names of types
    """One byte."""
    return Scalar("<b", value)


def I32(value: int) -> Scalar:  # noqa: N802 - names of types
    """Four bytes."""
    return Scalar("<i", value)


def flatbuffer(root: dict[int, Any], identifier: bytes) -> bytes:
    """A flatbuffer of nested values: a table is a dict from slots to values, a vector of tables a
    list, one of int32 a tuple, one of bytes bytes, a string str.
    """
    out = bytearray(4) + identifier
    _point(out, 0, _append(out, root))
    return bytes(out)


def _append(out: bytearray, value: Any) -> int:
    """Write a value behind all others; offsets to what it refers to point forward."""
    if isinstance(value, dict):
        return _append_table(out, value)
    if isinstance(value, str):
        data = value.encode()
        position = _append_vector(out, len(data), data + b"\0", 4)
    elif isinstance(value, bytes):
        # Kernels read weights in place, with aligned loads.
        position = _append_vector(out, len(value), value, 16)
    elif isinstance(value, tuple):
        position = _append_vector(out, len(value), struct.pack(f"<{len(value)}i", *value), 4)
    else:
        position = _append_vector(out, len(value), bytes(4 * len(value)), 4)
        for index, item in enumerate(value):
            _point(out, position + 4 + 4 * index, _append(out, item))
    return position


def _append_table(out: bytearray, fields: dict[int, Any]) -> int:
    """A vtable, the table's own bytes behind it, then everything that it points to."""
    inline, places = bytearray(4), {}
    for slot, value in sorted(fields.items()):
        packed = struct.pack(value.packing, value.value) if isinstance(value, Scalar) else bytes(4)
        inline.extend(bytes(-len(inline) % len(packed)))
        places[slot] = len(inline)
        inline.extend(packed)
    slots = max(places, default=-1) + 1
    vtable = struct.pack(
        f"<{slots + 2}H",
        4 + 2 * slots,
        len(inline),
        *(places.get(slot, 0) for slot in range(slots)),
    )
    out.extend(bytes(-(len(out) + len(vtable)) % 8))
    start = len(out) + len(vtable)
    inline[:4] = struct.pack("<i", len(vtable))
    out.extend(vtable + inline)
    for slot, value in sorted(fields.items()):
        if not isinstance(value, Scalar):
            _point(out, start + places[slot], _append(out, value))
    return start


def _append_vector(out: bytearray, count: int, data: bytes, alignment: int) -> int:
    out.extend(bytes(-(len(out) + 4) % alignment))
    position = len(out)
    out.extend(struct.pack("<I", count) + data)
    out.extend(bytes(-len(out) % 4))
    return position


def _point(out: bytearray, place: int, target: int) -> None:
    out[place : place + 4] = struct.pack("<I", target - place)


# 1980-01-01, the first day that a ZIP can tell.
_ZIP_TIME, _ZIP_DATE = 0, 1 << 5 | 1
_ZIP_VERSION, _UNIX = 20, 3 << 8
_READABLE = 0o644 << 16


def stored_zip(files: Mapping[str, bytes]) -> bytes:
    """A ZIP of these files without compression."""
    out, directory = bytearray(), bytearray()
    for name, content in files.items():
        said = struct.pack(
            "<5H3I2H",
            _ZIP_VERSION,
            0,
            0,
            _ZIP_TIME,
            _ZIP_DATE,
            zlib.crc32(content),
            len(content),
            len(content),
            len(name),
            0,
        )
        directory += b"PK\1\2" + struct.pack("<H", _UNIX | _ZIP_VERSION) + said
        directory += struct.pack("<3H2I", 0, 0, 0, _READABLE, len(out)) + name.encode()
        out += b"PK\3\4" + said + name.encode() + content
    end = struct.pack("<4H2IH", 0, 0, len(files), len(files), len(directory), len(out), 0)
    return bytes(out + directory) + b"PK\5\6" + end
