"""Intervals from held-out errors."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.intervals import Novelty, folds, half_width, held_out
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel


class Synthetic(NonNegativeModel):
    quantity = "synthetic_seconds"
    columns = (("constant", "run"), ("macs", "mac"), ("bytes", "byte"))
    nominal_rates = {"run": 1.0, "mac": 1.0, "byte": 1.0}  # noqa: RUF012


def test_the_width_is_the_order_statistic_of_the_rank() -> None:
    errors = np.arange(1, 20, dtype=np.float64)

    assert half_width(errors, 0.9) == 18.0
    assert half_width(np.negative(errors[::-1]), 0.5) == 10.0


def test_nine_errors_are_the_fewest_for_ninety_per_cent() -> None:
    assert half_width(np.ones(8), 0.9) == math.inf
    assert half_width(np.ones(9), 0.9) == 1.0
    assert half_width(np.zeros(0), 0.9) == math.inf


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, math.nan])
def test_a_level_outside_zero_and_one_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        half_width(np.ones(9), level)


def test_each_held_out_value_comes_from_a_fit_without_its_row() -> None:
    rows, targets = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 4.0, 8.0])
    seen: list[list[float]] = []

    def predictor(_rows: FloatArray, given: FloatArray) -> Callable[[FloatArray], FloatArray]:
        seen.append(given.tolist())
        return lambda asked: np.full(len(asked), 2.0)

    values = held_out(rows, targets, predictor)

    assert values == pytest.approx(np.full(4, 2.0))
    assert seen == [[2.0, 4.0, 8.0], [1.0, 4.0, 8.0], [1.0, 2.0, 8.0], [1.0, 2.0, 4.0]]


def test_many_rows_are_held_out_in_fifty_folds() -> None:
    fits = []

    def predictor(_rows: FloatArray, given: FloatArray) -> Callable[[FloatArray], FloatArray]:
        fits.append(len(given))
        return lambda asked: np.ones(len(asked))

    rows = np.arange(120, dtype=np.float64)[:, np.newaxis]
    values = held_out(rows, np.full(120, math.e), predictor)

    assert len(fits) == 50
    assert values == pytest.approx(np.ones(120))


def test_a_network_measured_twice_does_not_predict_itself() -> None:
    rows = np.array([[1.0], [2.0], [1.0], [3.0]])

    masks = [mask.tolist() for mask in folds(rows)]

    assert masks == [
        [True, False, True, False],
        [False, True, False, False],
        [False, False, False, True],
    ]


def test_equal_rows_are_held_out_one_by_one_as_nothing_else_is_left() -> None:
    assert [mask.tolist() for mask in folds(np.ones((2, 1)))] == [[True, False], [False, True]]
    assert list(folds(np.ones((1, 1)))) == []


@given(st.integers(2, 130), st.integers(1, 60), st.integers(0, 100))
def test_every_row_is_held_out_once(count: int, distinct: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, distinct, (count, 1)).astype(np.float64)

    assert np.sum(list(folds(rows)), axis=0).tolist() == [1] * count


def test_a_row_far_from_the_measured_ones_is_novel() -> None:
    random = np.random.default_rng(0)
    design = np.stack([np.ones(30), random.uniform(0.4, 0.6, 30)], axis=1)
    novelty = Novelty(design)

    inside, outside = novelty(np.array([[1.0, 0.5], [1.0, 5.0]]))

    assert inside < 1.05
    assert outside > 3
    assert novelty.of_measured.max() < 1.3


def test_novelty_does_not_depend_on_units() -> None:
    design = np.random.default_rng(0).lognormal(size=(12, 3))

    scaled = Novelty(design * [1e9, 1.0, 1e-9])(design * [1e9, 1.0, 1e-9])

    assert scaled == pytest.approx(Novelty(design)(design))


def test_intervals_of_networks_unlike_the_measured_ones_are_wider_and_hold() -> None:
    held, ratios = [], []
    for seed in range(15):
        random = np.random.default_rng(seed)
        near = np.stack(
            [np.ones(20), random.uniform(0.5, 1.5, 20), random.uniform(0.5, 1.5, 20)], 1
        )
        far = np.stack([np.ones(50), random.uniform(4, 6, 50), random.uniform(0.1, 0.2, 50)], 1)
        rows = np.vstack([near, far])
        targets = rows @ [0.2, 1.0, 2.0] * np.exp(0.05 * random.standard_normal(70))
        model = Synthetic().fit_rows(rows[:20], targets[:20])
        at_home, away = model.predict_rows(rows[:1]), model.predict_rows(rows[20:])
        ratios.append(
            math.log(away[0].high / away[0].low) / math.log(at_home[0].high / at_home[0].low)
        )
        held += [p.low <= t <= p.high for p, t in zip(away, targets[20:], strict=True)]

    assert np.median(ratios) > 1.5
    assert np.mean(held) > 0.85


@pytest.mark.parametrize(("count", "draws"), [(15, 80), (25, 70), (60, 30)])
def test_intervals_hold_as_often_as_they_say(count: int, draws: int) -> None:
    levels = (0.8, 0.9)
    held: dict[float, list[bool]] = {level: [] for level in levels}
    for seed in range(draws):
        random = np.random.default_rng(seed)
        rows = np.stack([np.ones(count + 100), *random.uniform(0, 1, (2, count + 100))], axis=1)
        targets = rows @ [0.2, 1.0, 2.0] * np.exp(0.1 * random.standard_normal(len(rows)))
        model = Synthetic().fit_rows(rows[:count], targets[:count])
        for level in levels:
            model.level = level
            asked = zip(model.predict_rows(rows[count:]), targets[count:], strict=True)
            held[level] += [p.low <= t <= p.high for p, t in asked]

    for level in levels:
        # With few errors only multiples of 1 / (count + 1) can be had; the next above is taken.
        promised = math.ceil(level * (count + 1) - 1e-9) / (count + 1)
        assert np.mean(held[level]) == pytest.approx(promised, abs=0.03)
