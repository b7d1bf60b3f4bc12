"""What a non-negative model knows after a fit, and all that follows from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from cost_models.intervals import Novelty, half_width
from cost_models.nnls import FloatArray

_FLOOR = 1e-6

Mask = npt.NDArray[np.bool_]


class Residual(Protocol):
    """A function of the inputs that was learned from log errors of the sum."""

    def values(self, inputs: FloatArray) -> FloatArray:
        """The logarithm of the factor on each row."""
        ...


Learner = Callable[[FloatArray, FloatArray], Residual]
"""Learns a residual from inputs and log errors."""


@dataclass(frozen=True)
class Fit:
    """Rows, what was measured of them, rates and residual; nothing of it is ever changed.

    `charged` says which columns are amounts. `held_out` is the prediction of each row by a fit
    without it; empty for a single row.
    """

    rows: FloatArray
    targets: FloatArray
    charged: Mask
    coefficients: FloatArray
    held_out: FloatArray
    residual: Residual | None = None
    is_transferred: bool = False

    def corrected_by(self, learner: Learner) -> Self:
        """With a residual learned from the rows."""
        additive = self.additive(self.rows)
        logs = np.log(self.targets / additive)
        return replace(self, residual=learner(self.inputs(self.rows, additive), logs))

    @cached_property
    def unseen(self) -> Mask:
        """Charged columns of which no row has any."""
        unseen: Mask = (self.rows == 0).all(axis=0) & self.charged
        return unseen

    @cached_property
    def log_errors(self) -> FloatArray:
        """log(measured / held-out prediction) of each row."""
        errors: FloatArray = np.log(self.targets[: len(self.held_out)] / self.held_out)
        return errors

    @cached_property
    def novelty(self) -> Novelty:
        """How far other rows are from these."""
        return Novelty(self._design(self.rows, self.additive(self.rows)))

    def additive(self, rows: FloatArray) -> FloatArray:
        """The sum of amounts times rates.

        Above 0, so that a logarithm exists; relative, so that the unit does not matter.
        """
        floored: FloatArray = np.maximum(rows @ self.coefficients, _FLOOR * self.targets.min())
        return floored

    def values(self, rows: FloatArray) -> FloatArray:
        """The sum times the learned factor."""
        additive = self.additive(rows)
        return additive * self.factors(rows, additive)

    def factors(self, rows: FloatArray, additive: FloatArray) -> FloatArray:
        """The learned factor on the sum; 1 without a residual."""
        if self.residual is None:
            return np.ones(len(rows))
        factors: FloatArray = np.exp(self.residual.values(self.inputs(rows, additive)))
        return factors

    def half_widths(self, rows: FloatArray, additive: FloatArray, level: float) -> FloatArray:
        """Half-width of the interval of each row, on the logarithm."""
        novelty = self._damped(self.novelty(self._design(rows, additive)))
        widths: FloatArray = self.half_width(level) * novelty
        return widths

    def held_out_widths(self, level: float) -> FloatArray:
        """Half-width, on the logarithm, of the interval around each held-out value."""
        widths: FloatArray = self.half_width(level) * self._damped(self.novelty.of_measured)
        return widths[: len(self.held_out)]

    def half_width(self, level: float) -> float:
        """That of a row amid the measured ones; infinite where these are too few."""
        if not len(self.held_out):
            return math.inf
        return half_width(self.log_errors / self._damped(self.novelty.of_measured), level)

    def inputs(self, rows: FloatArray, additive: FloatArray) -> FloatArray:
        """What the residual sees: amounts over prediction, size, and what is no amount."""
        amounts = rows[:, self.charged] / additive[:, np.newaxis]
        return np.hstack([amounts, np.log(additive)[:, np.newaxis], rows[:, ~self.charged]])

    def input_groups(self) -> npt.NDArray[np.int64]:
        """0 for inputs that are amounts or size, 1 for the others."""
        amounts = int(self.charged.sum()) + 1
        return np.repeat([0, 1], [amounts, len(self.charged) + 1 - amounts])

    def _design(self, rows: FloatArray, additive: FloatArray) -> FloatArray:
        design: FloatArray = np.where(self.charged, rows / additive[:, np.newaxis], 0.0)
        return design

    def _damped(self, novelty: FloatArray) -> FloatArray:
        # What a correction gets wrong grows less at the edge than what a linear model does.
        return novelty if self.residual is None else np.sqrt(novelty)
