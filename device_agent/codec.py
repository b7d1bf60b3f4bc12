"""Frozen values to JSON and back; strict, because what comes back is written by another process.

Whole numbers and everything called `..._seconds` are never negative, and every number is finite.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

from device_agent.errors import BadAnswerError

T = TypeVar("T")

# Whole numbers here are counts, sizes and numbers of cores; the wire carries 64 bits.
_LARGEST_INT = (1 << 63) - 1
_MOST_DIGITS = 1000
_LARGEST_FLOAT = sys.float_info.max


def to_json(value: Any) -> str:
    """The JSON of a frozen dataclass; a value of a Union of them needs `to_tagged_json`."""
    return json.dumps(_plain(value), allow_nan=False)


def from_json(cls: type[T], text: str) -> T:
    """The dataclass that `to_json` wrote. Raises BadAnswerError for anything else."""
    return _read_dataclass(cls, _parsed(text), cls.__name__)


def to_tagged_json(value: Any) -> str:
    """The JSON of a frozen dataclass together with its name."""
    return json.dumps({type(value).__name__: _plain(value)}, allow_nan=False)


def from_tagged_json(classes: tuple[type[Any], ...], text: str) -> Any:
    """The dataclass that `to_tagged_json` wrote, one of `classes`.

    Raises BadAnswerError for anything else.
    """
    data = _parsed(text)
    known = {cls.__name__: cls for cls in classes}
    if not isinstance(data, dict) or len(data) != 1 or next(iter(data)) not in known:
        raise BadAnswerError(f"not one of {', '.join(known)}")
    ((name, content),) = data.items()
    return _read_dataclass(known[name], content, name)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise BadAnswerError(f"not JSON ({error})") from error
    except MemoryError as error:
        raise BadAnswerError("too large for this device") from error


def _whole(digits: str) -> int:
    # Older Pythons take minutes to read a number of a million digits.
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@functools.cache
def _hints(cls: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _read_dataclass(cls: type[T], data: Any, where: str) -> T:
    if not isinstance(data, dict):
        raise BadAnswerError(f"{where} is not an object")
    hints = _hints(typing.cast("Any", cls))
    if set(data) != set(hints):
        wrong = ", ".join(sorted(set(data) ^ set(hints)))
        raise BadAnswerError(f"{where} has missing or unknown fields: {wrong}")
    return cls(**{name: _read(hints[name], data[name], f"{where}.{name}") for name in hints})


def _read(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(typing.cast("type[Any]", hint), value, where)
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Union:
        return None if value is None else _read(arguments[0], value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise BadAnswerError(f"{where} is not a list")
        return tuple(_read(arguments[0], item, where) for item in value)
    return _read_plain(hint, value, where)


def _read_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float:
        return _read_float(value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError as error:
            raise BadAnswerError(f"{where} has no such value: {value!r}") from error
    if hint is str and isinstance(value, str):
        # JSON can spell halves of characters that no message can hold.
        return value.encode("utf-8", "replace").decode("utf-8")
    if type(value) is not hint:
        raise BadAnswerError(f"{where} is not of type {hint.__name__}")
    if hint is int and not 0 <= value <= _LARGEST_INT:
        raise BadAnswerError(f"{where} is out of range")
    return value


def _read_float(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadAnswerError(f"{where} is not a number")
    # Compared before it is converted: a whole number may be too large for a float.
    if not -_LARGEST_FLOAT <= value <= _LARGEST_FLOAT:
        raise BadAnswerError(f"{where} is not finite")
    if value < 0 and where.endswith("_seconds"):
        raise BadAnswerError(f"{where} is negative")
    return float(value)
