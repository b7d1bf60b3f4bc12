"""Non-negative regression on relative errors."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cost_models.nnls import FloatArray, fit_nonnegative

counts = arrays(np.float64, (12, 4), elements=st.integers(0, 9).map(float))
costs = arrays(np.float64, (12,), elements=st.floats(0.1, 100.0))


@given(counts, costs)
def test_no_coefficient_is_negative(rows: FloatArray, targets: FloatArray) -> None:
    assert (fit_nonnegative(rows, targets) >= 0).all()


@given(counts, costs, st.sampled_from([1e-6, 1e-3, 1e3, 1e9]))
def test_the_unit_of_the_targets_does_not_matter(
    rows: FloatArray, targets: FloatArray, unit: float
) -> None:
    first = fit_nonnegative(rows, targets)

    assert fit_nonnegative(rows, targets * unit) == pytest.approx(
        first * unit, rel=1e-5, abs=1e-7 * unit
    )


@given(counts, costs, st.sampled_from([1e-9, 1e-3, 1e6]))
def test_the_unit_of_a_column_does_not_change_predictions(
    rows: FloatArray, targets: FloatArray, unit: float
) -> None:
    units = np.array([unit, 1.0, 1.0, 1.0])
    first = rows @ fit_nonnegative(rows, targets)

    assert (rows * units) @ fit_nonnegative(rows * units, targets) == pytest.approx(
        first, rel=1e-5, abs=1e-7
    )


@given(counts, arrays(np.float64, (4,), elements=st.floats(0.1, 10.0)))
def test_known_coefficients_are_recovered(rows: FloatArray, known: FloatArray) -> None:
    assume(np.linalg.matrix_rank(rows) == 4)
    assume(np.linalg.cond(rows) < 50)
    rows = rows[rows.any(axis=1)]

    assert fit_nonnegative(rows, rows @ known) == pytest.approx(known, rel=0.02)


def test_rates_of_real_size_are_recovered_across_units() -> None:
    random = np.random.default_rng(0)
    rows = np.stack([np.ones(30), *(random.uniform(0, s, 30) for s in (60, 1e9, 1e8))], axis=1)
    rates = np.array([2e-5, 4e-6, 3e-11, 2e-10])

    assert fit_nonnegative(rows, rows @ rates) == pytest.approx(rates, rel=1e-3)


def test_a_column_of_zeros_gets_no_rate() -> None:
    rows = np.array([[1.0, 0.0], [2.0, 0.0]])

    assert fit_nonnegative(rows, np.array([3.0, 6.0])) == pytest.approx([3.0, 0.0])


def test_one_row_is_enough_to_be_exact_on_itself() -> None:
    row = np.array([[1.0, 20.0, 3e8]])

    assert row @ fit_nonnegative(row, np.array([0.01])) == pytest.approx([0.01], rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        (np.ones((2, 2)), np.ones(3), "one row of features for each target"),
        (np.ones(2), np.ones(2), "one row of features for each target"),
        (np.ones((0, 2)), np.ones(0), "at least one row"),
        (np.ones((2, 2)), np.array([1.0, 0.0]), "positive and finite"),
        (np.ones((2, 2)), np.array([1.0, np.inf]), "positive and finite"),
        (np.ones((2, 2)), np.array([1.0, np.nan]), "positive and finite"),
        (-np.ones((2, 2)), np.ones(2), "non-negative and finite"),
        (np.full((2, 2), np.nan), np.ones(2), "non-negative and finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    rows: FloatArray, targets: FloatArray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_nonnegative(rows, targets)
