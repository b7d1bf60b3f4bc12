"""Intervals from held-out errors."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from cost_models.intervals import half_width, held_out_log_errors
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


def test_each_error_comes_from_a_fit_without_its_row() -> None:
    rows, targets = np.ones((4, 1)), np.array([1.0, 2.0, 4.0, 8.0])
    seen: list[list[float]] = []

    def predictor(_rows: FloatArray, given: FloatArray) -> Callable[[FloatArray], FloatArray]:
        seen.append(given.tolist())
        return lambda asked: np.full(len(asked), 2.0)

    errors = held_out_log_errors(rows, targets, predictor)

    assert errors == pytest.approx(np.abs(np.log(targets / 2)))
    assert seen == [[2.0, 4.0, 8.0], [1.0, 4.0, 8.0], [1.0, 2.0, 8.0], [1.0, 2.0, 4.0]]


def test_many_rows_are_held_out_in_fifty_folds() -> None:
    fits = []

    def predictor(_rows: FloatArray, given: FloatArray) -> Callable[[FloatArray], FloatArray]:
        fits.append(len(given))
        return lambda asked: np.ones(len(asked))

    errors = held_out_log_errors(np.ones((120, 1)), np.full(120, math.e), predictor)

    assert len(fits) == 50
    assert errors == pytest.approx(np.ones(120))


@pytest.mark.parametrize("count", [15, 25, 60])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_intervals_hold_as_often_as_they_say(count: int, level: float) -> None:
    held = []
    for seed in range(80):
        random = np.random.default_rng(seed)
        rows = np.stack([np.ones(count + 100), *random.uniform(0, 1, (2, count + 100))], axis=1)
        targets = rows @ [0.2, 1.0, 2.0] * np.exp(0.1 * random.standard_normal(len(rows)))
        model = Synthetic(level).fit_rows(rows[:count], targets[:count])
        predictions = model.predict_rows(rows[count:])
        held += [p.low <= t <= p.high for p, t in zip(predictions, targets[count:], strict=True)]

    # With few errors only multiples of 1 / (count + 1) can be had; the next above is taken.
    promised = math.ceil(level * (count + 1) - 1e-9) / (count + 1)
    assert np.mean(held) == pytest.approx(promised, abs=0.025)
