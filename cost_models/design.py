"""Which networks to measure next: optimal design of experiments, before any label is known."""

from typing import Literal

import numpy as np

from cost_models.nnls import FloatArray

Scale = Literal["deviation", "largest"]

_PRIOR = 0.01
_TIE = 1e-12


def d_optimal(
    rows: FloatArray,
    count: int,
    *,
    chosen_rows: FloatArray | None = None,
    scale: Scale = "deviation",
) -> list[int]:
    """Indices of `count` rows whose measurement would teach a linear model most, best first.

    Greedy D-optimal: with z = [1, x / std(x)], or [1, x / max(x)] for the scale "largest", and
    M = 0.01 I + sum over what is chosen of z z', take the row with the largest z' M^-1 z, which
    multiplies det M by 1 + that; of equal rows the first. `chosen_rows` have been measured already
    and count as chosen. `count` may be below the number of columns. Deterministic.
    By its deviation a column that few rows have weighs more than one that many have; by its largest
    amount all weigh the same, which suits rows of which each has few columns.
    Raises ValueError if fewer than `count` rows are there or the columns differ.
    Source: V. V. Fedorov, Theory of Optimal Experiments, 1972; the ridge is the prior of
    Bayesian D-optimality (K. Chaloner, I. Verdinelli, Statist. Sci. 10(3), 1995).
    """
    if count < 0 or count > len(rows):
        raise ValueError(f"cannot choose {count} of {len(rows)} rows")
    known = np.zeros((0, rows.shape[1])) if chosen_rows is None else chosen_rows
    if known.shape[1:] != rows.shape[1:]:
        raise ValueError(f"rows {rows.shape} and chosen_rows {known.shape} differ in their columns")
    scaled = _scaled(np.vstack([rows, known]), scale)
    candidates, measured = scaled[: len(rows)], scaled[len(rows) :]
    inverse = np.linalg.inv(_PRIOR * np.eye(scaled.shape[1]) + measured.T @ measured)
    taken: list[int] = []
    free = np.ones(len(rows), dtype=bool)
    for _ in range(count):
        gains = np.einsum("ij,jk,ik->i", candidates, inverse, candidates, optimize=True)
        gains[~free] = -np.inf
        best = int(np.argmax(gains >= gains.max() * (1 - _TIE)))
        taken.append(best)
        free[best] = False
        # Sherman and Morrison: the inverse after adding z z'.
        direction = inverse @ candidates[best]
        inverse = inverse - np.outer(direction, direction) / (1 + gains[best])
    return taken


def _scaled(rows: FloatArray, scale: Scale) -> FloatArray:
    """Each column by its scale, 0 where that is 0, with a column of ones before."""
    if len(rows) == 0:
        return np.zeros((0, rows.shape[1] + 1))
    largest = np.abs(rows).max(axis=0, initial=0.0)
    sizes = largest if scale == "largest" else rows.std(axis=0)
    # A constant column's spread may come out as a rounding error of its size.
    varies = sizes > 1e-12 * largest
    scaled = np.where(varies, rows / np.where(varies, sizes, 1.0), 0.0)
    return np.hstack([np.ones((len(rows), 1)), scaled])
