"""Rates drawn towards what is usual of computers, where few measurements leave them open."""

from dataclasses import dataclass

import numpy as np

from cost_models.additive import Recipe
from cost_models.nnls import FloatArray, fit_nonnegative, typical_amounts

STRENGTHS = (0.3, 0.03, 0.001, 3.0)
"""What to choose from by cross-validation, the one that is tried first before the others."""

_PACE_STRENGTH = 0.03
_ROUNDS = 6
_STEP = 0.5
_HUBER = 0.2


@dataclass(frozen=True)
class NominalRecipe(Recipe):
    """A fit of least sum(loss(log(rows c / targets))) + ridge sum((c / usual - 1)^2), c >= 0.

    The loss is Huber's: the square of small errors, the size of large ones.
    `usual` is `nominal` at the pace of this device, which is found first: one factor for each
    unit of the columns (`units` numbers them), drawn towards one factor for all. So a device with
    slow memory keeps its own ratio of bytes to MACs, and what no measured network has much of
    keeps its ratio to the rest of its unit. A ridge towards 0 would call such an amount free.
    """

    nominal: tuple[float, ...] = ()
    units: tuple[int, ...] = ()

    def rates(self, rows: FloatArray, targets: FloatArray) -> FloatArray:
        """The fitted rates; see `fit_nonnegative`, also for what is raised."""
        plain = fit_nonnegative(rows, targets)  # raises what is wrong
        usual = self._usual(rows, targets)
        found = _refined(rows, targets, usual, self.ridge)
        return np.where(usual > 0, found, plain)

    def _usual(self, rows: FloatArray, targets: FloatArray) -> FloatArray:
        nominal, units = np.array(self.nominal), np.array(self.units)
        expected = rows * nominal
        totals = expected.sum(axis=1)
        known = totals > 0
        if not known.any():
            return np.zeros(len(nominal))
        overall = float(np.median(targets[known] / totals[known]))
        # Seconds of the nominal device in each unit, so that a rate is a pace.
        together = [expected[:, units == unit].sum(axis=1) for unit in range(units.max() + 1)]
        start = np.full(len(together), overall)
        paces = _drawn(np.stack(together, axis=1), targets, start, _PACE_STRENGTH)
        usual: FloatArray = nominal * paces[units]
        return usual


def _refined(
    rows: FloatArray, targets: FloatArray, usual: FloatArray, ridge: float | tuple[float, ...]
) -> FloatArray:
    """As `_drawn`, of least errors on the logarithm, where large ones count by their size alone.

    Relative errors are not symmetric: half as much is off by 50 %, twice as much by 100 %, so that
    rows which no rates fit well draw all predictions down. Iteratively reweighted least squares
    with the weights of P. J. Huber (Ann. Math. Statist. 35(1), 1964): each round replaces a target
    by what is as far from the prediction, to first order, as the logarithm says.
    """
    rates = _drawn(rows, targets, usual, ridge)
    for _ in range(_ROUNDS):
        predicted = rows @ rates
        if predicted.min() <= 0:
            return rates
        errors = np.log(targets / predicted)
        huber = np.sqrt(np.minimum(1.0, _HUBER / np.maximum(np.abs(errors), _HUBER)))
        steps = 1.0 + np.clip(errors, -_STEP, _STEP)
        rates = _drawn(rows, predicted * steps, usual, ridge, steps * huber)
    return rates


def _drawn(
    rows: FloatArray,
    targets: FloatArray,
    usual: FloatArray,
    ridge: float | tuple[float, ...],
    weights: FloatArray | None = None,
) -> FloatArray:
    """Rates near the usual ones; those of columns of zeros are the usual ones."""
    shares = usual * typical_amounts(rows / targets[:, np.newaxis])
    present = shares > 0
    strengths: FloatArray = np.array(np.broadcast_to(ridge, len(shares)), dtype=np.float64)
    strengths[present] /= shares[present] ** 2
    return np.where(present, fit_nonnegative(rows, targets, strengths, shares, weights), usual)
