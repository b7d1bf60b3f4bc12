"""What the constants of an ONNX file tell of the sizes of its values, before anything runs.

A few bytes may ask for terabytes: a shape that ConstantOfShape, Expand or Tile reads. Only sizes
that stand in the file are seen here; what a model computes is known when it runs, and is left to
the limits of the process that runs it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Union

Numbers = Sequence[Union[int, float]]

MOST_VALUES = 64
"""A constant of more elements is no shape, and nobody looks at its values."""

# Which input of an operator is the size of its output.
_SIZE_INPUTS: Mapping[str, int] = {
    "AffineGrid": 1,
    "BlackmanWindow": 0,
    "CenterCropPad": 1,
    "Col2Im": 1,
    "ConstantOfShape": 0,
    "DFT": 1,
    "Expand": 1,
    "HammingWindow": 0,
    "HannWindow": 0,
    "MaxUnpool": 2,
    "OneHot": 1,
    "Reshape": 1,
    "Resize": 3,
}
# Which inputs multiply the size of the first one.
_FACTOR_INPUTS: Mapping[str, Sequence[int]] = {"Tile": (1,), "Resize": (1, 2), "Upsample": (1,)}
_SIZE_ATTRIBUTES = ("shape", "output_shape", "kernel_shape")
_PADS, _SCALES = "pads", "scales"

ATTRIBUTES = frozenset((*_SIZE_ATTRIBUTES, _PADS, _SCALES))
"""The attributes that `stated_elements` looks at."""

# onnx.proto's TensorProto.DataType: bits of an element, as raw data holds them.
_BITS = {
    1: 32,  # float32
    2: 8,  # uint8
    3: 8,  # int8
    4: 16,  # uint16
    5: 16,  # int16
    6: 32,  # int32
    7: 64,  # int64
    9: 8,  # bool
    10: 16,  # float16
    11: 64,  # float64
    12: 32,  # uint32
    13: 64,  # uint64
    14: 64,  # complex64
    15: 128,  # complex128
    16: 16,  # bfloat16
    17: 8,  # float8e4m3fn
    18: 8,  # float8e4m3fnuz
    19: 8,  # float8e5m2
    20: 8,  # float8e5m2fnuz
    21: 4,  # uint4
    22: 4,  # int4
    23: 4,  # float4e2m1
    24: 8,  # float8e8m0
    25: 2,  # uint2
    26: 2,  # int2
}
_PACKING = {1: "f", 6: "i", 7: "q", 11: "d"}


class Constant(NamedTuple):
    """What is kept of a tensor or a list of numbers: how many there are, and for a short one
    their product without those that are not positive, what they make of one element as pads, and
    the value of a single one.
    """

    elements: int
    product: float = 0
    padded: float = 0
    value: float | None = None


def constant(elements: int, values: Numbers | None) -> Constant:
    """What is kept of so many elements; `values` are None where they are many or no numbers."""
    if not values or elements != len(values):
        return Constant(elements)
    # Products of floats end at infinity, those of integers grow without end.
    values = [float(value) for value in values]
    half = len(values) // 2
    return Constant(
        elements,
        # Zero and -1 in a shape stand for sizes that it does not state.
        product=math.prod(value for value in values if value > 0),
        # Those before each axis, then those behind.
        padded=math.prod(max(1, a + b) for a, b in zip(values[:half], values[half:])),
        value=values[0] if elements == 1 else None,
    )


def raw_size_bytes(data_type: int, elements: int) -> int | None:
    """How many bytes raw data of so many elements has; None for texts and unknown types."""
    bits = _BITS.get(data_type)
    return None if bits is None else (elements * bits + 7) // 8


def unpack(data_type: int, data: bytes) -> Numbers | None:
    """The numbers in raw data; None for a type that no size has, and for a length that fits no
    whole number of them.
    """
    packing = _PACKING.get(data_type)
    if packing is None or len(data) % struct.calcsize(packing):
        return None
    return struct.unpack(f"<{len(data) // struct.calcsize(packing)}{packing}", data)


def stated_elements(
    operator: str, inputs: Sequence[Constant | None], attributes: Mapping[str, Constant]
) -> float:
    """How many elements the constants of a node say that its output has at least; 0 where they
    say nothing. `inputs` are None where they are not known.
    """
    unknown = Constant(1)

    def operand(index: int) -> Constant:
        return (inputs[index] if index < len(inputs) else None) or unknown

    def times(factor: float) -> float:
        elements = operand(0).elements
        return factor * elements if elements else 0

    sizes = [attributes[name].product for name in _SIZE_ATTRIBUTES if name in attributes]
    sizes.append(attributes.get(_PADS, unknown).padded)
    sizes.append(times(attributes.get(_SCALES, unknown).product))
    if operator in _SIZE_INPUTS:
        sizes.append(operand(_SIZE_INPUTS[operator]).product)
    sizes += [times(operand(index).product) for index in _FACTOR_INPUTS.get(operator, ())]
    if operator == "Pad":
        sizes.append(operand(1).padded)
    elif operator == "Range":
        sizes.append(_steps(operand(0).value, operand(1).value, operand(2).value))
    return max(sizes)


def _steps(start: float | None, stop: float | None, step: float | None) -> float:
    return 0 if start is None or stop is None or not step else (stop - start) / step
