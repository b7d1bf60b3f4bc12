"""Numbers inside JSON documents that meters answer with."""

import json
import math
from collections.abc import Sequence

from host.meters.base import MeterError


def parse_json(text: bytes) -> object:
    """Raises MeterError where the text is not JSON."""
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MeterError(
            "the meter's answer is not JSON; check that its URL is that of such a meter"
        ) from error
    return document


def number_at(document: object, path: Sequence[str]) -> float:
    """The number under these keys (numbers select from lists). Raises MeterError."""
    found = document
    for key in path:
        found = _child(found, key)
    number = _number(found)
    if number is None:
        raise MeterError(
            f"the meter's answer has no number {'.'.join(path) or 'in it'}; check its kind and "
            "its options"
        )
    return number


def optional_number_at(document: object, path: Sequence[str]) -> float | None:
    """The number under these keys; None where there is none."""
    found = document
    for key in path:
        found = _child(found, key)
    return _number(found)


def _child(parent: object, key: str) -> object:
    if isinstance(parent, dict):
        return parent.get(key)
    if isinstance(parent, list) and key.isdecimal() and int(key) < len(parent):
        return parent[int(key)]
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
