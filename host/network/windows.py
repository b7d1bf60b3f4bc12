"""Where the windows of a layer lie on a map, in the terms of a format that pads otherwise.

A `Network` has as much padding on one side of a map as on the other, as torch and ONNX have.
TFLite knows no padding ("valid"), or as much as a map divided by the stride needs ("same"), of
which the second side gets the larger half. Where neither puts the windows where they belong, the
map gets a border first.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sides = tuple[int, int]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """How windows come to lie right: the border to add, above and below and left and right; and
    whether the layer then pads no more.
    """

    rows: Sides
    columns: Sides
    valid: bool

    @property
    def needs_border(self) -> bool:
        """Whether the map must be enlarged first."""
        return any((*self.rows, *self.columns))


def place(size: Sides, window: Sides, stride: Sides, padding: Sides) -> Placement:
    """Where windows lie that a `Network` puts on a map of that size; all in (height, width)."""
    axes = list(zip(size, window, stride, padding, strict=True))
    if all(_is_same(*axis) for axis in axes):
        return Placement((0, 0), (0, 0), valid=False)
    rows, columns = (_border(*axis) for axis in axes)
    return Placement(rows, columns, valid=True)


def shares_of_map(size: Sides, window: Sides, stride: Sides, padding: Sides) -> Floats:
    """For every window, the elements of a window over those of them that lie on the map itself.

    The shape is (rows, columns) of the output. A mean over a window with a border of zeros, times
    this, is the mean over the map's elements.
    """
    height, width = (
        _elements_on_map(*axis) for axis in zip(size, window, stride, padding, strict=True)
    )
    shares: Floats = (window[0] * window[1] / np.outer(height, width)).astype(np.float32)
    return shares


def _is_same(size: int, window: int, stride: int, padding: int) -> bool:
    """Whether "same" puts as many windows in the same places."""
    count = -(-size // stride)
    total = max((count - 1) * stride + window - size, 0)
    return count == _count(size, window, stride, padding) and total // 2 == padding


def _border(size: int, window: int, stride: int, padding: int) -> Sides:
    """Before and behind: no more than the last window reaches."""
    reach = (_count(size, window, stride, padding) - 1) * stride + window
    return padding, max(0, reach - padding - size)


def _count(size: int, window: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - window) // stride + 1


def _elements_on_map(size: int, window: int, stride: int, padding: int) -> npt.NDArray[np.int64]:
    first = np.arange(_count(size, window, stride, padding)) * stride - padding
    elements: npt.NDArray[np.int64] = np.minimum(first + window, size) - np.maximum(first, 0)
    return elements
