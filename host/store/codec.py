"""Frozen values to JSON and back, as the store keeps them."""

import functools
import json
import math
import types
import typing
import zlib
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from host.measurement import MeasureSpec, ProbeSpec, ProfileSpec, Spec, VerifySpec
from host.store.database import StoreError

T = TypeVar("T")
_AS_THEY_ARE = frozenset({float, int, str, bool, type(None)})
Reader = Callable[[Any], Any]
SPECS: dict[str, type[Spec]] = {
    cls.kind: cls for cls in (MeasureSpec, VerifySpec, ProfileSpec, ProbeSpec)
}


class StoredValueError(StoreError):
    """What the store keeps is not what was put into it."""


class _MismatchError(Exception):
    """A value does not fit; the path to it grows on the way up."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path
        self.problem = problem


def to_plain(value: Any) -> Any:
    """The value as JSON holds it: objects, lists, strings, numbers, true, false and null."""
    cls: Any = type(value)
    if cls in _AS_THEY_ARE:
        return value
    names = _field_names(cls)
    if names is not None:
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        # By far the most are samples, hundreds of numbers in a row.
        if set(map(type, value)) <= _AS_THEY_ARE:
            return list(value)
        return [to_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def from_plain(cls: type[T], data: Any) -> T:
    """The frozen dataclass that `to_plain` was given.

    A field that is missing takes its default: it was added since. Raises StoredValueError for
    anything else that does not fit, naming the field.
    """
    try:
        value: T = _reader(typing.cast("Any", cls))(data)
    except _MismatchError as error:
        raise StoredValueError(
            f"the store holds a damaged {cls.__name__}: {cls.__name__}{error.path} {error.problem}"
        ) from error
    return value


def pack(value: Any) -> bytes:
    """The value as compressed JSON."""
    text = json.dumps(to_plain(value), allow_nan=False, separators=(",", ":"))
    return zlib.compress(text.encode())


def unpack(cls: type[T], content: bytes) -> T:
    """The frozen dataclass that `pack` was given. Raises StoredValueError."""
    try:
        data = json.loads(zlib.decompress(content))
    except (zlib.error, ValueError) as error:
        raise StoredValueError(f"the store holds a damaged {cls.__name__}: {error}") from error
    return from_plain(cls, data)


def spec_from_plain(kind: str, data: Any) -> Spec:
    """The spec of a job of that kind. Raises StoredValueError."""
    cls = SPECS.get(kind)
    if cls is None:
        raise StoredValueError(f"the store holds a job of the unknown kind {kind!r}")
    return from_plain(cls, data)


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...] | None:
    """Those of a dataclass; None for any other class."""
    return tuple(field.name for field in fields(cls)) if is_dataclass(cls) else None


@functools.cache
def _reader(hint: Any) -> Reader:
    if is_dataclass(hint):
        return _dataclass_reader(typing.cast("type[Any]", hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        inner = _reader(next(a for a in arguments if a is not types.NoneType))
        return lambda value: None if value is None else inner(value)
    if origin is Literal:
        return functools.partial(_read_literal, frozenset(arguments))
    if origin is tuple:
        return _tuple_reader(arguments)
    return _PLAIN_READERS.get(hint) or functools.partial(_read_exact, hint)


def _dataclass_reader(cls: type[Any]) -> Reader:
    hints = typing.get_type_hints(cls)
    readers = {field.name: _reader(hints[field.name]) for field in fields(cls)}
    required = {field.name for field in fields(cls) if not _has_default(field)}

    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _MismatchError("", "is not an object")
        if not required <= data.keys() <= readers.keys():
            wrong = (required - data.keys()) | (data.keys() - readers.keys())
            raise _MismatchError("", f"has missing or unknown fields: {', '.join(sorted(wrong))}")
        return cls(**{name: _at(f".{name}", readers[name], data[name]) for name in data})

    return read


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _tuple_reader(arguments: tuple[Any, ...]) -> Reader:
    if arguments[-1] is not Ellipsis:
        return functools.partial(_read_pair, [_reader(argument) for argument in arguments])
    if arguments[0] is float:
        return _read_floats
    return functools.partial(_read_list, _reader(arguments[0]))


def _at(step: str, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except _MismatchError as error:
        raise _MismatchError(step + error.path, error.problem) from error


def _read_list(reader: Reader, value: Any) -> tuple[Any, ...]:
    return tuple(_at(f"[{i}]", reader, item) for i, item in enumerate(_a_list(value)))


def _read_pair(readers: list[Reader], value: Any) -> tuple[Any, ...]:
    if len(_a_list(value)) != len(readers):
        raise _MismatchError("", f"does not have {len(readers)} items")
    return tuple(
        _at(f"[{i}]", reader, item)
        for i, (reader, item) in enumerate(zip(readers, value, strict=True))
    )


def _read_floats(value: Any) -> tuple[float, ...]:
    # By far the most values that the store holds.
    if set(map(type, _a_list(value))) <= {float} and all(map(math.isfinite, value)):
        return tuple(value)
    return _read_list(_read_float, value)


def _a_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _MismatchError("", "is not a list")
    return value


def _read_float(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _MismatchError("", "is not a finite number")
    return float(value)


def _read_moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _MismatchError("", "is not a point in time") from error
    if moment.tzinfo is None:
        raise _MismatchError("", "is a point in time without a time zone")
    return moment


def _read_literal(known: frozenset[Any], value: Any) -> Any:
    if not isinstance(value, str) or value not in known:
        raise _MismatchError("", f"is none of {', '.join(sorted(known))}")
    return value


def _read_exact(cls: type[Any], value: Any) -> Any:
    if type(value) is not cls:
        raise _MismatchError("", f"is not of type {cls.__name__}")
    return value


_PLAIN_READERS: dict[Any, Reader] = {float: _read_float, datetime: _read_moment}
