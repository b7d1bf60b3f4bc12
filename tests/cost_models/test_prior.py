"""Rates that are drawn towards usual ones."""

import numpy as np
import pytest

from cost_models.nnls import FloatArray, fit_nonnegative
from cost_models.prior import NominalRecipe

NOMINAL = (1e-2, 2e-11, 4e-11, 1e-10, 3e-10)
UNITS = (0, 1, 1, 2, 2)


def rows(count: int, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    amounts = random.uniform(0, 1, (count, 4)) * [1e9, 1e9, 1e8, 1e7]
    return np.hstack([np.ones((count, 1)), amounts])


def fitted(measured: FloatArray, of: FloatArray, ridge: float = 0.3) -> FloatArray:
    return NominalRecipe(ridge, (), NOMINAL, UNITS).rates(of, measured)


def test_a_device_of_usual_ratios_is_known_from_one_network_of_each_unit() -> None:
    """Bytes five times slower, MACs twice, in networks that hold one column of each unit only."""
    truth = np.array(NOMINAL) * [1, 2, 2, 5, 5]
    known = rows(60) * [1, 1, 0, 1, 0]

    assert fitted(known @ truth, known) == pytest.approx(truth, rel=0.1)


def test_many_measurements_outweigh_what_is_usual() -> None:
    truth = np.array(NOMINAL) * [1, 3, 0.5, 0.3, 4]
    known = rows(400)

    assert fitted(known @ truth, known, 0.003) == pytest.approx(truth, rel=0.05)


def test_nothing_that_was_measured_is_free() -> None:
    """Where a plain fit would call a column free for a bit of noise."""
    known = rows(5)
    noisy = known @ np.array(NOMINAL) * np.exp(np.random.default_rng(0).normal(0, 0.2, 5))

    assert (fit_nonnegative(known, noisy)[1:] == 0).any()
    assert (fitted(noisy, known)[1:] > 0.2 * np.array(NOMINAL[1:])).all()


def test_the_unit_of_what_is_measured_does_not_matter() -> None:
    known = rows(8)
    measured = known @ np.array(NOMINAL)

    assert fitted(1e3 * measured, known) == pytest.approx(1e3 * fitted(measured, known))


def test_values_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        fitted(np.zeros(3), rows(3))
