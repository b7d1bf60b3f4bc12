"""Intervals from errors on what a model has not seen (conformal prediction)."""

import math
from collections.abc import Callable

import numpy as np

from cost_models.nnls import FloatArray

LEVEL = 0.9

_MOST_FOLDS = 50


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


def held_out_log_errors(
    rows: FloatArray,
    targets: FloatArray,
    predictor: Callable[[FloatArray, FloatArray], Callable[[FloatArray], FloatArray]],
) -> FloatArray:
    """|log(target / prediction)| of each row by a model that was fitted without it.

    `predictor(rows, targets)` fits and returns the function that predicts. Leave-one-out up to 50
    rows; beyond, 50 interleaved folds, so that the cost stays linear. Empty for a single row.
    """
    count = len(targets)
    if count < 2:
        return np.zeros(0)
    fold_of = np.arange(count) % min(count, _MOST_FOLDS)
    errors = np.empty(count)
    for fold in range(int(fold_of.max()) + 1):
        out = fold_of == fold
        predict = predictor(rows[~out], targets[~out])
        errors[out] = np.abs(np.log(targets[out] / predict(rows[out])))
    return errors
