"""What callers of the API may ask for: each bound is said in one sentence."""

import math
from collections.abc import Sequence
from operator import index
from typing import SupportsIndex, get_args

from host.device import RuntimeName
from host.errors import UsageError


def check_whole(name: str, value: SupportsIndex, least: int, most: int) -> None:
    """See that it is a whole number within both bounds. Raises UsageError."""
    try:
        is_within = least <= index(value) <= most
    except TypeError:
        is_within = False
    if not is_within:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, not {value!r}")


def check_number(name: str, value: object, least: float, most: float) -> None:
    """See that it is a number within both bounds, if there is one. Raises UsageError."""
    if value is None:
        return
    # A comparison with NaN is false.
    if not isinstance(value, int | float) or not least <= value <= most:
        bounds = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise UsageError(f"{name} must be a number {bounds}, not {value!r}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """See that it is one of the choices. Raises UsageError."""
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_several(name: str, value: object) -> None:
    """See that it is no bare string, whose letters would be taken one by one. Raises UsageError."""
    if isinstance(value, str):
        raise UsageError(f"{name} must be a list, such as [{value!r}], not a string")


def check_threads(threads: int) -> None:
    """Of a runtime. Raises UsageError."""
    check_whole("threads", threads, 1, 1024)


def check_runtime(runtime: str | None) -> None:
    """The name of a runtime, if one is given. Raises UsageError."""
    if runtime is not None:
        check_choice("runtime", runtime, get_args(RuntimeName))
