"""Shapes and values of a model's inputs; the same rules for every runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from device_agent.errors import ModelRejectedError, ResourceError
from device_agent.runtimes.base import ModelInput
from device_agent.work import InputShape

Shape = tuple[int, ...]

_FLOATS = frozenset({"float16", "float32", "float64"})
# Pixels and quantised values fill their type; wider integers are mostly indices, and 0 and 1 lie
# inside every table worth the name.
_INTEGER_RANGES = {
    "int8": (-128, 128),
    "uint8": (0, 256),
    **dict.fromkeys(("int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"), (0, 2)),
}
DTYPES = _FLOATS | set(_INTEGER_RANGES)
"""The types of which values can be made up, as numpy names them."""


def resolve_shapes(inputs: Sequence[ModelInput], given: Sequence[InputShape]) -> dict[str, Shape]:
    """The shape of every input: the given one, or the model's with an open batch axis set to 1.

    Raises ModelRejectedError where another open axis has no shape, a given one does not fit or
    names no input.
    """
    by_name: dict[str, Shape] = {}
    known = {model_input.name for model_input in inputs}
    for shape in given:
        if shape.name not in known:
            raise ModelRejectedError(
                f"the model has no input {shape.name!r} to give a shape to:"
                f" it has {described(inputs)}"
            )
        if shape.name in by_name:
            raise ModelRejectedError(f"input {shape.name} is given two shapes: give it one")
        by_name[shape.name] = shape.sizes
    return {each.name: _resolve(each, by_name.get(each.name)) for each in inputs}


def check_arrays(inputs: Sequence[ModelInput], arrays: Mapping[str, Any]) -> None:
    """Raises ModelRejectedError where names, types or shapes of the arrays are not the model's."""
    if set(arrays) != {model_input.name for model_input in inputs}:
        names = ", ".join(sorted(arrays)) or "nothing"
        raise ModelRejectedError(f"the model needs {described(inputs)}, and is given {names}")
    for model_input in inputs:
        array = arrays[model_input.name]
        if array.dtype.name != model_input.dtype:
            raise ModelRejectedError(
                f"input {model_input.name} holds {model_input.dtype}, and is given"
                f" {array.dtype.name}"
            )
        _resolve(model_input, tuple(array.shape))


def make_up(np: Any, model_input: ModelInput, shape: Shape, random: Any) -> Any:
    """An array of plausible values: normal floats, and integers within the input's type.

    Raises ModelRejectedError for a type of which none can be made up, and ResourceError where the
    array does not fit in memory.
    """
    try:
        return _values(np, model_input, shape, random)
    except (MemoryError, ValueError) as error:
        raise ResourceError(
            f"input {model_input.name} of shape {list(shape)} does not fit in memory"
        ) from error


def described(inputs: Sequence[ModelInput]) -> str:
    """The inputs for people, as "x=1,3,?,? (float32)"."""
    return ", ".join(f"{each.name}={_sizes(each)} ({each.dtype})" for each in inputs) or "no input"


def _sizes(model_input: ModelInput) -> str:
    return ",".join("?" if size is None else str(size) for size in model_input.sizes)


def _resolve(model_input: ModelInput, given: Shape | None) -> Shape:
    name, sizes = model_input.name, model_input.sizes
    if given is None:
        shape = tuple(1 if axis == 0 and size is None else size for axis, size in enumerate(sizes))
        if None in shape:
            raise ModelRejectedError(
                f"input {name} is open where its shape says ?, {_sizes(model_input)}:"
                " give every size of it as an input shape"
            )
        given = tuple(size for size in shape if size is not None)
    elif len(given) != len(sizes) or any(
        size not in (None, given_size) for size, given_size in zip(sizes, given)
    ):
        raise ModelRejectedError(
            f"input {name} has the shape {_sizes(model_input)}, which {list(given)} does not fit"
        )
    if any(size < 1 for size in given):
        raise ModelRejectedError(f"input {name} is empty: its shape is {list(given)}")
    return given


def _values(np: Any, model_input: ModelInput, shape: Shape, random: Any) -> Any:
    dtype = model_input.dtype
    if dtype not in DTYPES:
        raise ModelRejectedError(
            f"input {model_input.name} has a type that cannot be made up: {dtype}"
        )
    if math.prod(shape) > np.iinfo(np.intp).max:
        raise MemoryError
    if dtype in _FLOATS:
        return random.standard_normal(shape, dtype="float32").astype(dtype, copy=False)
    low, high = _INTEGER_RANGES[dtype]
    narrow = dtype if dtype in ("int8", "uint8") else "int8"
    return random.integers(low, high, shape, dtype=narrow).astype(dtype, copy=False)
