"""Non-negative least squares on relative errors: the regression behind every cost model."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

FloatArray = npt.NDArray[np.float64]

RIDGE = 1e-6


def fit_nonnegative(
    rows: FloatArray, targets: FloatArray, ridge: float = RIDGE
) -> npt.NDArray[np.float64]:
    """Coefficients c >= 0 that minimise sum(((rows c - targets) / targets)^2) + ridge |d|^2.

    d_j is the share of a typical target that column j makes up where it is present: c_j times the
    root mean square, over the rows where the column is not 0, of row / target. So neither the unit
    of the targets nor that of a column changes a prediction, and how often a column is present
    does not either. The ridge only settles what the rows leave open, such as fewer rows than
    columns. A column of zeros gets 0. Targets must be positive.
    Raises ValueError for targets that are not, for rows that are negative or not finite, for
    lengths that differ and for no rows at all.
    Source: C. L. Lawson, R. J. Hanson, Solving Least Squares Problems, ch. 23.
    """
    _check(rows, targets)
    weighted = rows / targets[:, np.newaxis]
    present = np.count_nonzero(weighted, axis=0)
    used = present > 0
    typical = np.sqrt((weighted[:, used] ** 2).sum(axis=0) / present[used])
    scaled = weighted[:, used] / typical
    count = int(used.sum())
    matrix = np.vstack([scaled, np.sqrt(ridge) * np.eye(count)])
    wanted = np.concatenate([np.ones(len(targets)), np.zeros(count)])
    coefficients = np.zeros(rows.shape[1])
    if count:
        solution, _ = nnls(matrix, wanted, maxiter=100 * count)
        coefficients[used] = solution / typical
    return coefficients


def _check(rows: FloatArray, targets: FloatArray) -> None:
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
