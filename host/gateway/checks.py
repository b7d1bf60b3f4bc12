"""Checks of what devices send. Every one raises MessageError, naming the field."""

import math
import re
from collections.abc import Callable, Iterable, Sequence, Sized
from itertools import accumulate, pairwise
from typing import Any, Protocol, TypeVar, cast, get_args

from host.errors import GenbaError

TEXT_MAX_CHARACTERS = 4000
MAX_TEXTS = 1000
MAX_BYTES = 2**63 - 1  # what the store can hold
MAX_SECONDS = 7 * 86_400.0  # of one thing that a device timed
TICKS_PER_SECOND = 10_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


class MessageError(GenbaError):
    """A device sent something that makes no sense."""


class _Message(Protocol):
    def HasField(self, name: Any) -> bool: ...  # noqa: N802 - named by protobuf


def text(value: str) -> str:
    """The text, safe to print: without control characters, and not too long."""
    kept = value[:TEXT_MAX_CHARACTERS]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in kept).strip()


def texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """The texts, safe to print."""
    at_most(name, values, MAX_TEXTS)
    return tuple(text(value) for value in values)


def session_id(value: str) -> str:
    """The id of a session of an agent."""
    return identifier("session_id", value)


def identifier(name: str, value: str) -> str:
    """An id that can be asked for in any database."""
    if not 1 <= len(value) <= 64 or not value.isprintable():
        raise MessageError(f"{name} must have 1 to 64 printable characters")
    return value


def sha256(name: str, value: str) -> str:
    """A SHA-256 in hexadecimal."""
    if not _SHA256.fullmatch(value):
        raise MessageError(f"{name} must have 64 hexadecimal digits in lower case")
    return value


def optional(message: _Message, name: str, check: Callable[[str, Any], T]) -> T | None:
    """The checked field, or None where it is not set."""
    return check(name, getattr(message, name)) if message.HasField(name) else None


def optional_text(message: _Message, name: str) -> str | None:
    """The text, safe to print, or None where it is not set."""
    return optional(message, name, lambda _, value: text(value))


def one_of(name: str, value: str, literal: Any) -> Any:
    """The value, which must be one of a `Literal`."""
    if value not in get_args(literal):
        raise MessageError(f"{name} must be one of {', '.join(get_args(literal))}")
    return value


def finite(name: str, value: float) -> float:
    """A number."""
    if not math.isfinite(value):
        raise MessageError(f"{name} must be a finite number, but is {value}")
    return value


def amount(name: str, value: float) -> float:
    """A number that is not negative."""
    if finite(name, value) < 0:
        raise MessageError(f"{name} must not be negative, but is {value}")
    return value


def positive(name: str, value: float) -> float:
    """A number above 0."""
    if finite(name, value) <= 0:
        raise MessageError(f"{name} must be above 0, but is {value}")
    return value


def duration(name: str, value: float) -> float:
    """Seconds that something took."""
    if amount(name, value) > MAX_SECONDS:
        raise MessageError(f"{name} must be at most {MAX_SECONDS:.0f} s, but is {value}")
    return value


def count(name: str, value: int) -> int:
    """A whole number that the store can hold."""
    if not 0 <= value <= MAX_BYTES:
        raise MessageError(f"{name} must be at most {MAX_BYTES}, but is {value}")
    return value


def at_most(name: str, values: Sized, most: int) -> None:
    """See that a list is not too long."""
    if len(values) > most:
        raise MessageError(f"{name} has {len(values)} entries, but may have {most}")


def as_many(name: str, values: Sized, other: str, others: Sized) -> None:
    """See that two parallel lists are equally long."""
    if len(values) != len(others):
        raise MessageError(f"{name} has {len(values)} entries, but {other} has {len(others)}")


def each(name: str, values: Iterable[T], check: Callable[[str, T], T]) -> tuple[T, ...]:
    """The values, each of them checked."""
    return tuple(check(name, value) for value in values)


def not_falling(name: str, values: Sequence[float]) -> None:
    """See that no value is below the one before."""
    if any(after < before for before, after in pairwise(values)):
        raise MessageError(f"{name} must not fall")


def seconds_of_ticks(
    name: str, ticks: Sequence[int], *, least: int, runs: int = 1
) -> tuple[float, ...]:
    """The seconds of one of `runs` runs, from differences between neighbours in units of 100 ns,
    the first against 0.
    """
    values = list(accumulate(cast("Iterable[int]", ticks)))
    if values and not least <= min(values) <= max(values) <= MAX_SECONDS * TICKS_PER_SECOND:
        raise MessageError(f"{name} must lie between {least} and a week, in units of 100 ns")
    return tuple([value / TICKS_PER_SECOND / runs for value in values])
