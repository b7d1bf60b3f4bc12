"""Figures of merit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from cost_models.base import Prediction
from cost_models.evaluate import coverage, evaluate, mape, spearman, within
from cost_models.nnls import FloatArray

values = arrays(np.float64, (15,), elements=st.integers(1, 9).map(float))


@given(values, values)
def test_rho_is_that_of_scipy_ties_included(predicted: FloatArray, measured: FloatArray) -> None:
    found = spearman(predicted, measured)

    if len(set(predicted)) == 1 or len(set(measured)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(predicted, measured).statistic)


def test_rho_sees_order_only() -> None:
    assert spearman(np.array([1.0, 2.0, 9.0]), np.array([10.0, 100.0, 101.0])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2.0, 9.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)


def test_errors_are_relative_to_what_was_measured() -> None:
    predicted, measured = np.array([1.1, 1.0, 4.0]), np.array([1.0, 1.0, 2.0])

    assert mape(predicted, measured) == pytest.approx((0.1 + 0 + 1) / 3)
    assert within(predicted, measured, 0.2) == pytest.approx(2 / 3)
    assert within(predicted, measured, 0.05) == pytest.approx(1 / 3)


def test_the_ends_of_an_interval_belong_to_it() -> None:
    low, high = np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, np.inf])

    assert coverage(low, high, np.array([1.0, 2.5, 9.0])) == pytest.approx(2 / 3)


def test_all_figures_come_together() -> None:
    predictions = [Prediction(v, v / 2, v * 2, 0.9, 10) for v in (1.0, 2.0, 3.0)]

    found = evaluate(predictions, np.array([1.0, 2.0, 7.0]))

    assert found.n == 3
    assert found.rho == pytest.approx(1)
    assert (
        found.coverage == found.within_5_percent == found.within_10_percent == pytest.approx(2 / 3)
    )
    assert found.mape == pytest.approx(4 / 7 / 3)


@pytest.mark.parametrize(("left", "right"), [(2, 3), (0, 0)])
def test_what_cannot_be_compared_is_refused(left: int, right: int) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        mape(np.ones(left), np.ones(right))
