"""Where windows lie: counted by hand, window by window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.network.windows import Placement, place, shares_of_map


@st.composite
def axes(draw):
    """Size, window, stride and padding of one axis on which a window fits."""
    window = draw(st.integers(1, 7))
    padding = draw(st.integers(0, window // 2))
    size = draw(st.integers(max(1, window - 2 * padding), 20))
    return size, window, draw(st.integers(1, 4)), padding


def first_places(size, window, stride, padding):
    """Where each window begins, padding as it is on the map's left and right."""
    return list(range(-padding, size + padding - window + 1, stride))


def places_of_tflite(size, window, stride, border, *, valid):
    """The same by TFLite's rules on a map with that border, told on the map without it."""
    length = size + sum(border)
    if valid:
        return [start - border[0] for start in range(0, length - window + 1, stride)]
    count = -(-length // stride)
    total = max((count - 1) * stride + window - length, 0)
    return [index * stride - total // 2 - border[0] for index in range(count)]


@given(axes(), axes())
def test_windows_lie_where_a_network_puts_them(rows, columns):
    placement = place(*zip(rows, columns, strict=True))

    for (size, window, stride, padding), border in zip(
        (rows, columns), (placement.rows, placement.columns), strict=True
    ):
        wanted = first_places(size, window, stride, padding)
        assert places_of_tflite(size, window, stride, border, valid=placement.valid) == wanted


@given(axes(), axes())
def test_a_border_is_added_only_where_windows_would_lie_otherwise(rows, columns):
    placement = place(*zip(rows, columns, strict=True))

    if placement.needs_border:
        padded = [axis[3] for axis in (rows, columns)]
        assert any(padded)
        assert placement.valid
        assert [placement.rows[0], placement.columns[0]] == padded


@given(axes(), axes())
def test_shares_count_the_elements_that_are_on_the_map(rows, columns):
    shares = shares_of_map(*zip(rows, columns, strict=True))

    down, across = (
        np.array(
            [
                sum(0 <= place < size for place in range(start, start + window))
                for start in first_places(size, window, stride, padding)
            ]
        )
        for size, window, stride, padding in (rows, columns)
    )
    of_window = rows[1] * columns[1]
    np.testing.assert_allclose(shares, of_window / np.outer(down, across), rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (8, Placement((1, 0), (1, 0), valid=True)),
        (7, Placement((0, 0), (0, 0), valid=False)),
    ],
)
def test_a_3x3_window_with_a_stride_of_two_needs_a_border_on_even_maps_only(size, wanted):
    assert place((size, size), (3, 3), (2, 2), (1, 1)) == wanted
