"""When a model has warmed up, and how well the median of its samples is known."""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.bootstrap import relative_half_width
from device_agent.steadiness import is_steady

positive = st.floats(1e-6, 1e3)


@given(st.lists(positive, min_size=5, max_size=20))
def test_equal_windows_are_steady_unless_their_first_run_is_an_outlier(window: Any) -> None:
    ordered = sorted(window)
    calm = [ordered[len(ordered) // 2], *window[1:]]

    assert is_steady([calm[0]] * len(calm), [calm[0]] * len(calm))


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ([30.0, *[10.0 + 0.1 * n for n in range(19)]], [10.0 + 0.1 * n for n in range(20)]),
        ([10.0] * 20, [10.6] * 20),
        ([10.0 + 0.01 * n for n in range(20)], [10.0 + 0.3 * n for n in range(20)]),
    ],
    ids=["slow first run", "shifted", "spread out"],
)
def test_a_trend_between_windows_is_not_steady(earlier: Any, later: Any) -> None:
    assert not is_steady(earlier, later)


def test_only_a_first_run_that_is_slow_counts_as_a_beginning() -> None:
    calm = [10.0 + 0.01 * n for n in range(20)]

    assert is_steady([5.0, *calm[1:]], calm)
    assert not is_steady([15.0, *calm[1:]], calm)


def test_a_mean_may_fall_by_a_tenth_and_rise_by_more() -> None:
    calm, with_outliers = [10.0] * 20, [*[10.0] * 17, 30.0, 30.0, 30.0]

    assert is_steady(calm, with_outliers)
    assert not is_steady(with_outliers, calm)


@given(st.lists(positive, min_size=10, max_size=40), st.sampled_from([0.25, 2.0, 1024.0]))
def test_whether_it_is_steady_does_not_depend_on_the_unit(values: Any, scale: float) -> None:
    half = len(values) // 2
    earlier, later = values[:half], values[half : 2 * half]

    # Powers of two, so that nothing is rounded.
    scaled = is_steady([v * scale for v in earlier], [v * scale for v in later])

    assert is_steady(earlier, later) == scaled


def test_the_interval_of_independent_samples_shrinks_with_their_number() -> None:
    rng = random.Random(0)

    def blocks(count: int) -> Any:
        return [[rng.gauss(1.0, 0.1) for _ in range(30)] for _ in range(count)]

    few, many = relative_half_width(blocks(5)), relative_half_width(blocks(80))

    assert few is not None
    assert many is not None
    assert many < few / 2
    # 1.96 * 1.2533 * sigma / sqrt(n), the large-sample interval of a normal median.
    assert many == pytest.approx(1.96 * 1.2533 * 0.1 / (80 * 30) ** 0.5, rel=0.5)


def test_samples_that_differ_between_blocks_are_not_taken_for_independent() -> None:
    rng = random.Random(0)
    drifting = [[1.0 + 0.1 * n + rng.gauss(0, 0.001) for _ in range(100)] for n in range(6)]

    half_width = relative_half_width(drifting)

    assert half_width is not None
    assert half_width > 0.05


def test_the_interval_of_very_many_samples_is_the_plain_one_and_quick() -> None:
    rng = random.Random(0)
    blocks = [[rng.gauss(1.0 + 0.01 * (n % 7), 0.1) for _ in range(50)] for n in range(400)]

    started = time.perf_counter()
    half_width = relative_half_width(blocks)
    lasted = time.perf_counter() - started

    medians = sorted(
        statistics.median(v for block in rng.choices(blocks, k=len(blocks)) for v in block)
        for _ in range(100)
    )
    assert half_width == pytest.approx((medians[97] - medians[2]) / 2 / medians[50], rel=0.4)
    assert lasted < 1.0


@given(
    st.lists(st.lists(positive, max_size=5), min_size=2, max_size=6),
    st.integers(1, 1000),
)
def test_the_interval_is_one_of_medians_whatever_the_blocks(blocks: Any, seed: int) -> None:
    half_width = relative_half_width(blocks, seed)

    values = [value for block in blocks for value in block]
    if half_width is not None:
        assert 0 <= half_width <= (max(values) - min(values)) / 2 / min(values) * (1 + 1e-9)
        assert half_width == relative_half_width(blocks, seed)


@pytest.mark.parametrize("blocks", [[], [[1.0, 2.0]], [[1.0], []]])
def test_one_block_tells_nothing_about_the_next(blocks: Any) -> None:
    assert relative_half_width(blocks) is None
