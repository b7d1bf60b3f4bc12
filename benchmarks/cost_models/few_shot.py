"""A model of a table from few of its rows: which cells to measure, which kind of runtime it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.cost_models.runtimes import KINDS, CellModel
from cost_models.base import Prediction
from cost_models.design import d_optimal
from cost_models.nnls import FloatArray, fit_nonnegative

Selection = Literal["d-optimal", "random"]
SELECTIONS: tuple[Selection, ...] = ("d-optimal", "random")

CANDIDATES = 600
"""How many cells, drawn at random, D-optimal choice looks at."""
_ROWS_FOR_EACH_COLUMN = 1.5

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FewShot:
    """A fitted model of the kind of runtime that suits the measurements best."""

    kind: int
    model: CellModel

    def predict(self, rows: FloatArray) -> list[Prediction]:
        """Predictions for rows of `amount_rows`."""
        return self.model.predict_rows(rows[:, columns_of(self.kind)])


def columns_of(kind: int) -> slice:
    """Where the amounts of a kind stand in a row of `amount_rows`."""
    start = sum(len(other.columns) for other in KINDS[:kind])
    return slice(start, start + len(KINDS[kind].columns))


def kinds_for(count: int) -> list[int]:
    """The kinds that so many measurements can tell apart: one and a half for each column.

    The smallest kind is always among them.
    """
    found = [
        kind
        for kind, model in enumerate(KINDS)
        if count >= _ROWS_FOR_EACH_COLUMN * len(model.columns)
    ]
    return found or [min(range(len(KINDS)), key=lambda kind: len(KINDS[kind].columns))]


def choose(rows: FloatArray, ids: Indices, count: int, selection: Selection) -> Indices:
    """Those `count` of the ids, which are in random order, that should be measured.

    D-optimal choice serves all kinds in question at once and looks at the first 600 ids; labels
    play no part. It stops at as many cells as there are independent columns, which then are all
    known. The rest are the next ids: extreme cells alone would make the intervals too wide.
    """
    if selection == "random":
        return ids[:count]
    candidates = ids[: max(CANDIDATES, count)]
    # A kind that cannot be fitted yet would only draw measurements away from the others.
    design = np.hstack([rows[candidates][:, columns_of(kind)] for kind in kinds_for(count)])
    independent = int(np.linalg.matrix_rank(design))
    designed = candidates[d_optimal(design, min(count, independent))]
    others = candidates[~np.isin(candidates, designed)]
    return np.concatenate([designed, others[: count - len(designed)]])


def fit(rows: FloatArray, measured: FloatArray) -> FewShot:
    """The model of the best kind, by the Bayesian information criterion on relative errors.

    Source: G. Schwarz, Ann. Statist. 6(2), 1978. Raises ValueError as `fit_nonnegative`.
    """
    kind = min(kinds_for(len(measured)), key=lambda kind: _criterion(rows, measured, kind))
    return FewShot(kind, KINDS[kind]().fit_rows(rows[:, columns_of(kind)], measured))


def _criterion(rows: FloatArray, measured: FloatArray, kind: int) -> float:
    own = rows[:, columns_of(kind)]
    errors = own @ fit_nonnegative(own, measured) / measured - 1
    count = len(measured)
    # An exact fit must still compare, by the number of columns.
    return float(count * np.log(np.mean(errors**2) + 1e-12) + own.shape[1] * np.log(count))


def as_printed(values: Sequence[float] | FloatArray) -> FloatArray:
    """Values with four significant digits, as they are printed: what is equal there is a tie.

    Devices that count whole steps have many equal values; without rounding, rounding errors of
    the fit would put them in some order.
    """
    exact = np.asarray(values, dtype=np.float64)
    unit = 10.0 ** (np.floor(np.log10(exact)) - 3)
    rounded: FloatArray = np.round(exact / unit) * unit
    return rounded
