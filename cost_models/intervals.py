"""Intervals from errors on what a model has not seen (conformal prediction)."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from cost_models.nnls import FloatArray, typical_amounts

LEVEL = 0.9

MOST_FOLDS = 50
_NOVELTY_RIDGE = 0.1

Predictor = Callable[[FloatArray], FloatArray]
Mask = npt.NDArray[np.bool_]


def half_width(log_errors: FloatArray, level: float = LEVEL) -> float:
    """Half-width w such that [prediction / e^w, prediction e^w] holds a new value at that level.

    w is the ceil(level (n + 1))-th smallest of |log(measured / predicted)| on held-out values,
    infinite where that rank exceeds n (at 0.9: below 9 values). The construction is that of the
    jackknife, which covers near the level where the fit is stable but without a guarantee below
    it; new values must come from where the measured ones came from.
    Source: R. F. Barber et al., Ann. Statist. 49(1), 2021, sec. 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} must lie between 0 and 1")
    errors = np.sort(np.abs(log_errors))
    # 0.9 * 10 must give rank 9 although its float may lie above 9.
    rank = math.ceil(level * (len(errors) + 1) - 1e-9)
    return math.inf if rank > len(errors) else float(errors[rank - 1])


def folds(rows: FloatArray, most: int = MOST_FOLDS) -> Iterator[Mask]:
    """Masks of the rows to hold out, each row in one of them; nothing for a single row.

    One for each distinct row, up to `most`, beyond that interleaved. Equal rows are held out
    together, as a network measured twice must not predict itself; unless all are equal.
    """
    if len(rows) < 2:
        return
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))[group.reshape(-1)]
    if len(first) < 2:
        order = np.arange(len(rows))
    fold_of = order % min(int(order.max()) + 1, most)
    for fold in range(int(fold_of.max()) + 1):
        yield fold_of == fold


def held_out(
    rows: FloatArray,
    targets: FloatArray,
    fit: Callable[[FloatArray, FloatArray], Predictor],
    most: int = MOST_FOLDS,
) -> FloatArray:
    """The prediction of each row by a model that was fitted without it; empty for a single row.

    `fit(rows, targets)` returns the function that predicts. See `folds`.
    """
    values = np.zeros(len(targets) if len(targets) > 1 else 0)
    for out in folds(rows, most):
        values[out] = fit(rows[~out], targets[~out])(rows[out])
    return values


class Novelty:
    """How far a row of features is from those that a linear model was fitted on.

    The leverage h = z' (Z'Z + 0.1 I)^-1 z, where z is a row divided by its prediction, each column
    by its typical size in the measured rows Z: the variance of a linear prediction is that of the
    noise times 1 + h. So a half-width times sqrt(1 + h) is as likely to hold for a row in the
    middle of the measured ones as for one at their edge.
    Source: R. D. Cook, S. Weisberg, Residuals and Influence in Regression, ch. 2; normalised
    conformal scores: H. Papadopoulos et al., Neural Networks 24(8), 2011.
    """

    def __init__(self, design: FloatArray) -> None:
        """`design` holds the measured rows, each divided by its prediction."""
        typical = typical_amounts(design)
        self._scale = np.divide(1.0, typical, out=np.zeros_like(typical), where=typical > 0)
        scaled = design * self._scale
        matrix = scaled.T @ scaled + _NOVELTY_RIDGE * np.eye(design.shape[1])
        self._inverse = np.linalg.inv(matrix)
        inside = np.minimum(self._leverages(design), 1 - 1e-9)
        self.of_measured: FloatArray = np.sqrt(1 + inside / (1 - inside))
        """sqrt(1 + h) of each measured row from the others."""

    def __call__(self, design: FloatArray) -> FloatArray:
        """sqrt(1 + h) of new rows, each divided by its prediction."""
        return np.sqrt(1 + self._leverages(design))

    def _leverages(self, design: FloatArray) -> FloatArray:
        scaled = design * self._scale
        found: FloatArray = np.einsum("ij,ij->i", scaled @ self._inverse, scaled)
        return np.maximum(found, 0)
