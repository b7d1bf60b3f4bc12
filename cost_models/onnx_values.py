"""Small constants computed on the way: the shapes that an exported graph computes for itself.

Exporters write Shape -> Gather -> Concat -> Reshape chains; with the inputs' sizes known they are
constants. Only operators that move or count few numbers are here, and nothing larger than
MOST_ELEMENTS is computed or kept.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ELEMENTS = 4096
Value = NDArray[Any]
_Attributes = Mapping[str, Any]


def value_of(
    op: str, inputs: Sequence[Value | None], attributes: _Attributes, shape: tuple[int, ...]
) -> Value | None:
    """What an operator computes from constants, or None where that is not known here.

    `inputs` has None for an omitted input. `shape` is that of the output as shape inference tells
    it: nothing larger than MOST_ELEMENTS is computed, and a result of another shape is no result.
    """
    compute = _COMPUTE.get(op)
    if compute is None or math.prod(shape) > MOST_ELEMENTS:
        return None
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(compute(inputs, attributes))
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    return value if value.shape == shape else None


def _axes(inputs: Sequence[Value | None], attributes: _Attributes) -> tuple[int, ...] | None:
    """Axes as an attribute (older operator sets) or as the second input (newer ones)."""
    if "axes" in attributes:
        return tuple(attributes["axes"])
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(int(axis) for axis in inputs[1].ravel())
    return None


def _squeeze(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    return np.asarray(np.squeeze(inputs[0], _axes(inputs, attributes)))


def _unsqueeze(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    return np.expand_dims(inputs[0], _axes(inputs, attributes) or ())


def _reshape(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    target = [int(size) for size in inputs[1]]
    if not attributes.get("allowzero", 0):
        target = [inputs[0].shape[i] if size == 0 else size for i, size in enumerate(target)]
    return np.reshape(inputs[0], target)


def _slice(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    given = [*inputs[1:], None, None, None, None][:4]
    if "starts" in attributes:
        given = [attributes["starts"], attributes["ends"], attributes.get("axes"), None]
    starts, ends, axes, steps = (None if g is None else [int(i) for i in g] for g in given)
    if starts is None or ends is None:
        raise ValueError
    cut = [slice(None)] * inputs[0].ndim
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        step = 1 if steps is None else steps[index]
        size = inputs[0].shape[index if axes is None else axes[index]]
        below = step < 0 and end < -size
        cut[index if axes is None else axes[index]] = slice(start, None if below else end, step)
    return np.asarray(inputs[0][tuple(cut)])


def _gather(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    indices = inputs[1].astype(np.int64)
    return np.asarray(np.take(inputs[0], indices, axis=attributes.get("axis", 0)))


def _concat(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    return np.concatenate(inputs, axis=attributes["axis"])


def _divide(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    del attributes
    left, right = inputs
    if not np.issubdtype(left.dtype, np.integer):
        return np.asarray(left / right)
    # Integers are divided towards zero, where numpy divides towards minus infinity.
    quotient = np.abs(left) // np.abs(right)
    return np.asarray((np.sign(left) * np.sign(right) * quotient).astype(left.dtype))


def _modulo(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    function = np.fmod if attributes.get("fmod", 0) else np.mod
    return np.asarray(function(*inputs))


def _reduction(function: Callable[..., Any]) -> Callable[[Sequence[Any], _Attributes], Value]:
    def compute(inputs: Sequence[Any], attributes: _Attributes) -> Value:
        keep = bool(attributes.get("keepdims", 1))
        return np.asarray(function(inputs[0], axis=_axes(inputs, attributes), keepdims=keep))

    return compute


def _plain(function: Callable[..., Any]) -> Callable[[Sequence[Any], _Attributes], Value]:
    def compute(inputs: Sequence[Any], attributes: _Attributes) -> Value:
        del attributes
        result = np.asarray(function(*inputs))
        logical = result.dtype == np.bool_
        return result if logical else result.astype(inputs[0].dtype)

    return compute


def _where(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    del attributes
    condition, chosen, other = inputs
    return np.where(condition, chosen, other)


def _range(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    del attributes
    start, limit, step = (part.item() for part in inputs)
    if abs(limit - start) > MOST_ELEMENTS * abs(step):
        raise ValueError
    return np.arange(start, limit, step, dtype=inputs[0].dtype)


def _expand(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    del attributes
    target = np.broadcast_shapes(inputs[0].shape, tuple(int(size) for size in inputs[1]))
    return np.broadcast_to(inputs[0], target)


def _transpose(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    return np.transpose(inputs[0], attributes.get("perm"))


def _largest(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    del attributes
    return np.asarray(_folded_over(np.maximum, inputs))


def _smallest(inputs: Sequence[Any], attributes: _Attributes) -> Value:
    del attributes
    return np.asarray(_folded_over(np.minimum, inputs))


def _folded_over(function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    result = inputs[0]
    for other in inputs[1:]:
        result = function(result, other)
    return result


_COMPUTE: dict[str, Callable[[Sequence[Any], _Attributes], Value]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Ceil": _plain(np.ceil),
    "Concat": _concat,
    "Div": _divide,
    "Equal": _plain(np.equal),
    "Expand": _expand,
    "Floor": _plain(np.floor),
    "Gather": _gather,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(np.asarray),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Max": _largest,
    "Min": _smallest,
    "Mod": _modulo,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": _plain(np.power),
    "Range": _range,
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "Reshape": _reshape,
    "Round": _plain(np.round),
    "Slice": _slice,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
