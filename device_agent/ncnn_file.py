"""The container of an ncnn model and the text in it, read strictly: a ZIP without compression that
holds `model.param` (the layers), `model.bin` (the weights) and perhaps `metadata.json`.

The text is that of Net::load_param and ParamDict::load_param of ncnn: one line a layer with its
type, name, counts, blobs and numbered values. ncnn reads at most 15 characters of a value, and
counts its digits in 32 bits: what it would misread is refused.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from device_agent.errors import ModelRejectedError
from device_agent.mapped_file import mapped

PARAM, WEIGHTS, METADATA = "model.param", "model.bin", "metadata.json"
MAGIC = "7767517"

_LONGEST_TEXT = _LONGEST_METADATA = 1 << 20
_LONGEST_NAME = 255
_MOST_ITEMS = 32
_ARRAY = -23300
_VALUES = 32
_LONGEST_VALUE = 15

# APPNOTE.TXT of the ZIP format, 4.3.7, 4.3.12 and 4.3.16.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"

_NAME = re.compile(r"[!-<>-~]+")
_COUNT = re.compile(r"\d{1,9}")
_INTEGER = re.compile(r"-?\d{1,10}")
_FLOAT = re.compile(r"-?\d{1,9}(\.\d{0,9})?([eE][+-]?\d{1,2})?")
_INT32 = range(-(2**31), 2**31)

Buffer = Union[bytes, mmap.mmap]
Value = Union[int, float, tuple[Union[int, float], ...]]


@dataclass(frozen=True)
class Layer:
    """One line of the text; `values` are by ncnn's numbers, arrays as tuples."""

    kind: str
    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    values: Mapping[int, Value]


@dataclass(frozen=True)
class Entry:
    """Where the content of an entry stands in the file."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class NcnnFile:
    """What a container holds; the weights are left where they are."""

    text: str
    layers: tuple[Layer, ...]
    weights: Entry


def read_file(path: Path) -> NcnnFile:
    """The file at `path`, whose weights are not read. Raises as `read_container` does."""
    with mapped(path) as data:
        return read_container(data)


def read_container(data: Buffer) -> NcnnFile:
    """The layers of a file, and where its weights stand.

    Raises ModelRejectedError for what is no such container, and for a text that ncnn would refuse
    or misread. Types of layers, blobs and weights are not looked at.
    """
    entries = _entries(data)
    # The weights may be any numbers; a hash of the whole file was checked when it came.
    for name, longest in ((PARAM, _LONGEST_TEXT), (METADATA, _LONGEST_METADATA)):
        if name in entries:
            _check_size(name, entries[name][0], longest)
            _check_sum(data, name, *entries[name])
    if METADATA in entries:
        _check_metadata(_content(data, entries[METADATA][0]))
    text = _text(_content(data, entries[PARAM][0]))
    return NcnnFile(text, _layers(text), entries[WEIGHTS][0])


# ---- the ZIP ----------------------------------------------------------------------------------


def _entries(data: Buffer) -> dict[str, tuple[Entry, int]]:
    """Every entry and the checksum that it states. Nothing stands before, between or behind them
    and the two directories of the ZIP, which say the same.
    """
    found: dict[str, tuple[Entry, int]] = {}
    directory = []
    at = 0
    for name in (PARAM, WEIGHTS, METADATA):
        if name == METADATA and _slice(data, at, 4) != _LOCAL_MARK:
            break
        mark, version, *fields = _LOCAL.unpack(_take(data, at, _LOCAL.size))
        flags, method, _, _, checksum, packed, size, name_size, extra = fields
        first = at + _LOCAL.size + name_size
        if mark != _LOCAL_MARK or _slice(data, at + _LOCAL.size, name_size) != name.encode():
            raise _no_container(f"it has no entry {name} in its place")
        if flags or method or extra or packed != size:
            raise _no_container(f"its entry {name} is compressed, encrypted or extended")
        if first + size > len(data):
            raise _no_container(f"its entry {name} is truncated")
        found[name] = Entry(first, first + size), checksum
        directory.append((version, fields, at, name))
        at = first + size
    _check_directory(data, at, directory)
    return found


def _check_directory(
    data: Buffer, start: int, entries: Sequence[tuple[int, list[int], int, str]]
) -> None:
    at = start
    for version, fields, place, name in entries:
        mark, _, *said = _CENTRAL.unpack(_take(data, at, _CENTRAL.size))
        comment, disk, _, _, stands_at = said[10:]
        same = said[:10] == [version, *fields] and stands_at == place
        named = _slice(data, at + _CENTRAL.size, len(name)) == name.encode()
        if mark != _CENTRAL_MARK or not same or not named or comment or disk:
            raise _no_container(f"its directory says other things of {name} than the entry")
        at += _CENTRAL.size + len(name)
    end = _END.pack(_END_MARK, 0, 0, len(entries), len(entries), at - start, start, 0)
    if _slice(data, at, len(end)) != end or at + len(end) != len(data):
        raise _no_container("it does not end where its directory ends")


def _check_size(name: str, entry: Entry, longest: int) -> None:
    if entry.size > longest:
        raise ModelRejectedError(
            f"the entry {name} of the model has {entry.size} bytes, and at most {longest} are read:"
            " use a smaller model"
        )


def _check_sum(data: Buffer, name: str, entry: Entry, checksum: int) -> None:
    if zlib.crc32(_content(data, entry)) != checksum:
        raise _no_container(f"its entry {name} is damaged")


def _check_metadata(content: bytes) -> None:
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict) or not all(isinstance(each, str) for each in table.values()):
        raise _no_container(f"{METADATA} is no table of texts")


def _content(data: Buffer, entry: Entry) -> bytes:
    return bytes(data[entry.first : entry.last])


def _slice(data: Buffer, at: int, size: int) -> bytes:
    """At most so many bytes; fewer at the end."""
    last = min(at + size, len(data))
    return bytes(data[min(at, last) : last])


def _take(data: Buffer, at: int, size: int) -> bytes:
    taken = _slice(data, at, size)
    if len(taken) < size:
        raise _no_container("it is truncated")
    return taken


def _no_container(why: str) -> ModelRejectedError:
    return ModelRejectedError(f"the file is no .ncnn model, {why}: export it again")


# ---- the text ---------------------------------------------------------------------------------


def _text(content: bytes) -> str:
    if not all(32 <= byte < 127 or byte == 10 for byte in content):
        raise ModelRejectedError(f"{PARAM} of the model is not plain text: export it again")
    return content.decode("ascii")


def _layers(text: str) -> tuple[Layer, ...]:
    lines = text.rstrip("\n").split("\n")
    if lines[0].strip() != MAGIC:
        raise _at(1, f"it is not ncnn's text: it should begin with {MAGIC}")
    counts = lines[1].split() if len(lines) > 1 else []
    if len(counts) != 2 or not all(_COUNT.fullmatch(count) for count in counts):
        raise _at(2, "it should state the numbers of layers and blobs")
    layers = tuple(_layer(number, line) for number, line in enumerate(lines[2:], 3))
    layer_count, blob_count = (int(count) for count in counts)
    blobs = sum(len(layer.writes) for layer in layers)
    if (layer_count, blob_count) != (len(layers), blobs):
        raise _at(
            2,
            f"it states {layer_count} layers and {blob_count} blobs, and there are"
            f" {len(layers)} and {blobs}",
        )
    return layers


def _layer(number: int, line: str) -> Layer:
    words = line.split()
    if len(words) < 4 or not all(_COUNT.fullmatch(word) for word in words[2:4]):
        raise _at(number, "it should state a type, a name and two counts")
    reads, writes = int(words[2]), int(words[3])
    blobs, values = words[4 : 4 + reads + writes], words[4 + reads + writes :]
    names = [*words[:2], *blobs]
    if len(blobs) < reads + writes or not all(_is_name(name) for name in names):
        raise _at(number, f"it should name {reads} + {writes} blobs")
    return Layer(
        words[0], words[1], tuple(blobs[:reads]), tuple(blobs[reads:]), _values(number, values)
    )


def _is_name(word: str) -> bool:
    return len(word) <= _LONGEST_NAME and _NAME.fullmatch(word) is not None


def _values(number: int, words: Sequence[str]) -> dict[int, Value]:
    values: dict[int, Value] = {}
    for word in words:
        key, _, said = word.partition("=")
        if not _INTEGER.fullmatch(key):
            raise _at(number, f"{_shown(word)} is no numbered value")
        place, items = int(key), said.split(",")
        is_array = len(items) > 1
        if place <= _ARRAY:
            place, is_array = _ARRAY - place, True
            length = items.pop(0)
            if length != str(len(items)):
                raise _at(number, f"{_shown(word)} is not as long as it says")
        if place not in range(_VALUES) or place in values:
            raise _at(number, f"{_shown(word)} has an unknown number or one that is given twice")
        values[place] = _array(number, items) if is_array else _value(number, said)
    return values


def _array(number: int, items: Sequence[str]) -> tuple[int | float, ...]:
    if len(items) > _MOST_ITEMS:
        raise _at(number, f"an array has more than {_MOST_ITEMS} items")
    values = tuple(_value(number, item) for item in items)
    if len({type(value) for value in values}) > 1:
        # ncnn would take the bits of one kind for the other.
        raise _at(number, "an array has both integers and floats")
    return values


def _value(number: int, said: str) -> int | float:
    if _INTEGER.fullmatch(said) and int(said) in _INT32:
        return int(said)
    if _FLOAT.fullmatch(said) and len(said) <= _LONGEST_VALUE and not said.lstrip("-").isdigit():
        return float(said)
    raise _at(number, f"{_shown(said)} is no number that ncnn reads right")


def _at(number: int, why: str) -> ModelRejectedError:
    return ModelRejectedError(f"line {number} of {PARAM}: {why}: export the model again")


def _shown(word: str) -> str:
    """A word from a file, fit to be shown in a sentence."""
    return ascii(word[:80])
