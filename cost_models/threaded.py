"""A model of a setting with so many threads, whose rates are drawn towards usual ones."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from cost_models import stored
from cost_models.additive import Recipe, recipes
from cost_models.base import ModelFormatError
from cost_models.intervals import LEVEL
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel
from cost_models.prior import STRENGTHS, NominalRecipe


class ThreadedModel(NonNegativeModel):
    """What is predicted depends on the threads that a runtime uses.

    `nominal_rates` may name columns besides units, and steer the fit: see `NominalRecipe`.
    """

    def __init__(self, level: float = LEVEL, threads: int = 1) -> None:
        """Raises ValueError for a level that is no probability and for less than one thread."""
        super().__init__(level)
        if threads < 1:
            raise ValueError(f"a network runs on one thread at least, not on {threads}")
        self.threads = threads

    def parts(self) -> dict[str, Any]:
        """What `to_json` writes, as plain lists, numbers and texts."""
        return {**super().parts(), "threads": self.threads}

    @classmethod
    def _empty(cls, level: float, found: dict[str, Any]) -> Self:
        threads = stored.number(found, "threads")
        if threads < 1 or threads != int(threads):
            raise ModelFormatError(f"the stored cost model is damaged: {threads} threads")
        return cls(level, int(threads))

    @property
    def _nominal_rates(self) -> FloatArray:
        return np.array(
            [
                self.nominal_rates.get(name, self.nominal_rates.get(unit, 0.0))
                for name, unit in self.columns
            ]
        )

    def _recipes(
        self, rows: FloatArray, targets: FloatArray, sources: Sequence[FloatArray]
    ) -> list[Recipe]:
        """The ways to find the rates, the plainest first."""
        units = [unit for _, unit in self.columns]
        numbers = tuple(sorted(set(units)).index(unit) for unit in units)
        nominal = tuple(self._nominal_rates.tolist())
        transferred = [each for each in recipes(rows, targets, sources) if each.sources]
        return [
            *(NominalRecipe(ridge, (), nominal, numbers) for ridge in STRENGTHS),
            *transferred,
        ]
