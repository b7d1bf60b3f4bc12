"""Reading the JSON of a stored cost model: whatever is not as it was written is refused."""

import json
from typing import Any, NoReturn

import numpy as np

from cost_models.base import ModelFormatError
from cost_models.nnls import FloatArray


def text(model: dict[str, Any]) -> str:
    """A model's parts as JSON text."""
    return json.dumps(model, allow_nan=False)


def parsed(given: str) -> dict[str, Any]:
    """The object in JSON text. Raises ModelFormatError, also for NaN and infinity."""
    try:
        found = json.loads(given, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"the stored cost model is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelFormatError("the stored cost model is no JSON object")
    return found


def require(found: dict[str, Any], model: str, version: int, features: list[str]) -> None:
    """Raises ModelFormatError for a model of another quantity, version or set of features."""
    wanted = (model, version, features)
    got = (found.get("model"), found.get("version"), found.get("features"))
    if got != wanted:
        raise ModelFormatError(
            f"the stored cost model is {got[0]!r} version {got[1]!r} with features "
            f"{got[2]!r}, not {model!r} version {version!r} of this program: fit anew"
        )


def number(found: dict[str, Any], key: str) -> float:
    """A finite number. Raises ModelFormatError."""
    return float(numbers(found, key, ()))


def flag(found: dict[str, Any], key: str) -> bool:
    """True or false. Raises ModelFormatError."""
    value = found.get(key)
    if not isinstance(value, bool):
        _damaged(key)
    return value


def numbers(
    found: dict[str, Any],
    key: str,
    shape: tuple[int | None, ...],
    *,
    signed: bool = False,
    null: float | None = None,
) -> FloatArray:
    """Finite numbers in that shape, None standing for any length; not negative unless `signed`.

    Where `null` is given, a null stands for it. Raises ModelFormatError.
    """
    value = found.get(key)
    if not _plain(value, len(shape), null is not None):
        _damaged(key)
    try:
        array = np.array(value, dtype=np.float64)
    except (ValueError, OverflowError):
        _damaged(key)
    if array.size == 0 and len(shape) == 2:
        array = array.reshape(0, shape[1] or 0)
    fits = array.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    absent = np.isnan(array)  # a number is none: `parsed` refuses them
    if not fits or np.isinf(array).any() or (not signed and array.min(initial=0.0) < 0):
        _damaged(key)
    return np.where(absent, np.nan if null is None else null, array)


def _plain(value: object, depth: int, nullable: bool) -> bool:
    """Whether it is numbers nested in that many lists: no texts, no truth values."""
    if depth == 0:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number or (nullable and value is None)
    return isinstance(value, list) and all(_plain(one, depth - 1, nullable) for one in value)


def _damaged(key: str) -> NoReturn:
    raise ModelFormatError(f"the stored cost model is damaged: its {key!r} cannot be")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of a model")
