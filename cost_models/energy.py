"""Power while a network runs, and the energy of one inference, on top of a latency model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from cost_models.additive import Recipe
from cost_models.base import ModelFormatError
from cost_models.fitted import Mask
from cost_models.intervals import LEVEL
from cost_models.kernels import KernelGraph
from cost_models.latency import LatencyModel
from cost_models.nnls import FloatArray
from cost_models.nonnegative import SHAPE, NonNegativeModel

WHOLE = "run"
"""First column of both models: the whole run, whose rate is the power that all classes share."""

_TRACE = 1e-9
_CONSTANT_POWER = 1e6
_RIDGES = (_CONSTANT_POWER, 1.0, 0.1)

Columns = tuple[tuple[str, str], ...]


def columns_upon(latency: Columns, unit: str) -> Columns:
    """The columns of a model that stands on a latency model with those columns."""
    return (
        (WHOLE, unit),
        *((name, SHAPE if old == SHAPE else unit) for name, old in latency),
    )


class _UponLatency(NonNegativeModel):
    """Watts for each class of work times what the latency model says of the class.

    Watts are net: what the device draws above idle. The first rate is one constant power, the
    others what a class draws above it; these are used only where that clearly lowers the held-out
    error. What the latency model has not seen is flagged here too, and open above.
    """

    latency_kind: ClassVar[type[NonNegativeModel]] = LatencyModel

    def __init__(self, latency: NonNegativeModel, level: float = LEVEL) -> None:
        """`latency` must be fitted before this model is used."""
        super().__init__(level)
        self.latency = latency

    def seconds(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """Predicted seconds of each network, whole and by the column of the latency model."""
        return self.seconds_of(self.latency.features(graphs))

    def seconds_of(self, latency_rows: FloatArray) -> FloatArray:
        """As `seconds`, from rows of features of the latency model."""
        added = self.latency.contributions_of(latency_rows)
        whole = added.sum(axis=1, keepdims=True)
        # A class without a rate is still there: it must be seen to be flagged.
        by_class = np.where(latency_rows > 0, np.maximum(added, _TRACE * whole), 0.0)
        shape = np.array([unit == SHAPE for _, unit in self.latency.columns])
        return np.hstack([whole, np.where(shape, latency_rows, by_class)])

    def _amounts(self, rows: FloatArray) -> FloatArray:
        amounts = super()._amounts(rows)
        return np.where(amounts > 2 * _TRACE * rows[:, :1], amounts, 0.0)

    def _recipes(
        self,
        rows: FloatArray,
        targets: FloatArray,  # noqa: ARG002
        sources: Sequence[FloatArray],  # noqa: ARG002
    ) -> list[Recipe]:
        # The constant alone stays free; the classes are drawn towards it more or less.
        first = np.arange(rows.shape[1]) == 0
        return [Recipe(tuple(np.where(first, 0.0, ridge).tolist())) for ridge in _RIDGES]

    @property
    def unseen(self) -> Mask:
        """As of every model; what the latency model has not seen counts too."""
        unseen: Mask = super().unseen | np.concatenate([[False], self.latency.unseen])
        return unseen

    def parts(self) -> dict[str, Any]:
        """As of every model, with those of the latency model."""
        return super().parts() | {"latency": self.latency.parts()}

    @classmethod
    def _empty(cls, level: float, found: dict[str, Any]) -> Self:
        latency = found.get("latency")
        if not isinstance(latency, dict):
            raise ModelFormatError("the stored cost model is damaged: it has no latency model")
        return cls(cls.latency_kind.of_parts(latency), level)


class PowerModel(_UponLatency):
    """Watts above idle while a network runs: class powers weighted by shares of the latency."""

    quantity: ClassVar[str] = "power_watts"
    columns: ClassVar[Columns] = columns_upon(LatencyModel.columns, "share")
    nominal_rates: ClassVar[dict[str, float]] = {"share": 3.0}

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """One, then the share of each column of the latency model in the predicted latency."""
        return self._shares(self.seconds(graphs))

    def features_of(self, latency_rows: FloatArray) -> FloatArray:
        """As `features`, from rows of features of the latency model."""
        return self._shares(self.seconds_of(latency_rows))

    def _shares(self, seconds: FloatArray) -> FloatArray:
        return np.where(self._charged, seconds / seconds[:, :1], seconds)


class EnergyModel(_UponLatency):
    """Joules above idle of one inference: class powers times predicted seconds.

    The powers are learned from measured seconds where the latency model was fitted on the same
    network, so they do not make up for its errors; the interval counts its held-out errors.
    """

    quantity: ClassVar[str] = "energy_joules"
    columns: ClassVar[Columns] = columns_upon(LatencyModel.columns, "second")
    nominal_rates: ClassVar[dict[str, float]] = {"second": 3.0}

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """The predicted seconds, whole and by the column of the latency model."""
        return self.seconds(graphs)

    def features_of(self, latency_rows: FloatArray) -> FloatArray:
        """As `features`, from rows of features of the latency model."""
        return self.seconds_of(latency_rows)

    def fit(
        self, graphs: Sequence[KernelGraph], measured: FloatArray, others: Sequence[Self] = ()
    ) -> Self:
        """Forget what was fitted before, fit these, return self. See `NonNegativeModel.fit`."""
        return self.fit_latency_rows(self.latency.features(graphs), measured, others)

    def fit_latency_rows(
        self, latency_rows: FloatArray, measured: FloatArray, others: Sequence[Self] = ()
    ) -> Self:
        """As `fit`, from rows of features of the latency model.

        `fit_rows` takes seconds as they are given instead.
        """
        rows = self.seconds_of(latency_rows)
        known = self._known_seconds()
        seconds = np.array(
            [known.get(row.tobytes(), (1.0, 1.0)) for row in np.asarray(latency_rows, np.float64)]
        ).reshape(-1, 2)
        self.fit_rows(np.where(self._charged, rows * seconds[:, :1], rows), measured, others)
        fitted = self._fitted
        if len(fitted.held_out):
            self._fit = replace(fitted, held_out=fitted.held_out * seconds[:, 1] / seconds[:, 0])
        return self

    def _known_seconds(self) -> dict[bytes, tuple[float, float]]:
        """Measured and held-out over predicted seconds, by the row that the latency was fitted on.

        What was measured twice stands for its mean.
        """
        latency = self.latency
        rows, held_out = latency.measured_rows, latency.held_out_values
        if not len(held_out):
            return {}
        ratios = np.stack([latency.measured_values, held_out], axis=1)
        ratios /= latency.contributions_of(rows).sum(axis=1, keepdims=True)
        found: dict[bytes, list[FloatArray]] = {}
        for row, pair in zip(rows, ratios, strict=True):
            found.setdefault(row.tobytes(), []).append(pair)
        means = {row: np.mean(pairs, axis=0) for row, pairs in found.items()}
        return {row: (float(mean[0]), float(mean[1])) for row, mean in means.items()}
