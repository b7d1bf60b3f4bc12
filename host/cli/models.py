"""Input shapes and options of a runtime as commands take them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from host.errors import UsageError

if TYPE_CHECKING:
    from host.measurement import InputShape

_MAX_SIZE = 2**31 - 1  # of one dimension


class ModelOptionError(UsageError):
    """An input shape or an option of a runtime cannot be read."""


def parse_shapes(texts: Sequence[str]) -> "tuple[InputShape, ...]":
    """Shapes from "name=1,3,224,224"; the sizes stand after the last equals sign.

    Raises ModelOptionError.
    """
    from host.measurement import InputShape

    shapes = tuple(InputShape(*_name_and_sizes(text)) for text in texts)
    _require_once("--input-shape", [shape.name for shape in shapes])
    return shapes


def parse_options(texts: Sequence[str]) -> tuple[str, ...]:
    """Options of a runtime from "name=value", in the order of their names.

    Raises ModelOptionError.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, value) in zip(texts, pairs, strict=True):
        if not (name.strip() and equals and value.strip()):
            raise ModelOptionError(f"--option {text}: write it as name=value, such as xnnpack=0")
    _require_once("--option", [name.strip() for name, _, _ in pairs])
    return tuple(sorted(f"{name.strip()}={value.strip()}" for name, _, value in pairs))


def _name_and_sizes(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    parts = [part.strip() for part in sizes.split(",")]
    if not name or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ModelOptionError(
            f"--input-shape {text}: write it as name=1,3,224,224, with whole numbers"
        )
    shape = tuple(int(part) for part in parts)
    if not all(0 < size <= _MAX_SIZE for size in shape):
        raise ModelOptionError(f"--input-shape {text}: every size must be from 1 to {_MAX_SIZE}")
    return name, shape


def _require_once(option: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ModelOptionError(f"{option} names {twice!r} twice: once is enough")
