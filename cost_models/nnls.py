"""Non-negative least squares on relative errors: the regression behind every cost model."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

FloatArray = npt.NDArray[np.float64]

RIDGE = 1e-6


def fit_nonnegative(
    rows: FloatArray,
    targets: FloatArray,
    ridge: float | FloatArray = RIDGE,
    shares: FloatArray | None = None,
    weights: FloatArray | None = None,
) -> npt.NDArray[np.float64]:
    """Coefficients c >= 0 of least sum(((rows c - targets) / targets)^2) + ridge |d - shares|^2.

    d_j is the share of a typical target that column j makes up where it is present: c_j times the
    root mean square, over the rows where the column is not 0, of row / target. So neither the unit
    of the targets nor that of a column changes a prediction, and how often a column is present
    does not either. A small ridge only settles what the rows leave open, such as fewer rows than
    columns; a larger one draws each share towards its value in `shares`, 0 if not given. `ridge`
    may hold one strength for each column. A column of zeros gets 0. Targets must be positive.
    `weights` multiply the error of each row, 1 if not given.
    Raises ValueError for targets that are not, for rows that are negative or not finite, for
    lengths that differ and for no rows at all.
    Source: C. L. Lawson, R. J. Hanson, Solving Least Squares Problems, ch. 23.
    """
    check_fit(rows, targets)
    weighted = rows / targets[:, np.newaxis]
    typical = typical_amounts(weighted)
    used = typical > 0
    of_rows = np.ones(len(targets)) if weights is None else weights
    scaled = weighted[:, used] / typical[used] * of_rows[:, np.newaxis]
    count = int(used.sum())
    roots = np.sqrt(np.broadcast_to(np.asarray(ridge, dtype=np.float64), used.shape)[used])
    towards = np.zeros(count) if shares is None else shares[used]
    matrix = np.vstack([scaled, np.diag(roots)])
    wanted = np.concatenate([of_rows, roots * towards])
    coefficients = np.zeros(rows.shape[1])
    if count:
        solution, _ = nnls(matrix, wanted, maxiter=100 * count)
        coefficients[used] = solution / typical[used]
    return coefficients


def typical_amounts(rows: FloatArray) -> FloatArray:
    """For each column the root mean square of what is not 0 in it; 0 for a column of zeros."""
    present = np.count_nonzero(rows, axis=0)
    typical: FloatArray = np.sqrt((rows**2).sum(axis=0) / np.maximum(present, 1))
    return typical


def check_fit(rows: FloatArray, targets: FloatArray) -> None:
    """Raises ValueError for what `fit_nonnegative` cannot fit."""
    if rows.ndim != 2 or targets.ndim != 1 or len(rows) != len(targets):
        raise ValueError(
            f"rows {rows.shape} and targets {targets.shape} do not belong together: "
            "give one row of features for each target"
        )
    if len(rows) == 0:
        raise ValueError("nothing to fit: give at least one row")
    if not np.all(np.isfinite(targets)) or np.any(targets <= 0):
        raise ValueError("targets must be positive and finite")
    if not np.all(np.isfinite(rows)) or np.any(rows < 0):
        raise ValueError("features must be non-negative and finite")
