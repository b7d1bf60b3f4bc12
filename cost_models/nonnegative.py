"""The non-negative linear cost model, whatever the quantity: prior, interval, persistence."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from cost_models.base import ModelFormatError, NotFittedError, Prediction
from cost_models.intervals import LEVEL, half_width, held_out_log_errors
from cost_models.kernels import KernelGraph
from cost_models.nnls import FloatArray, fit_nonnegative

FORMAT_VERSION = 1

_UNKNOWN = "unknown_bytes"
_FLOOR = 1e-6


@dataclass(frozen=True)
class _Fit:
    rows: FloatArray
    targets: FloatArray
    coefficients: FloatArray
    unseen: tuple[bool, ...]
    half_width: float

    def values(self, rows: FloatArray) -> FloatArray:
        return _values(rows, self.coefficients, self.targets)


class NonNegativeModel:
    """A sum of non-negative amounts times non-negative rates, fitted on relative errors.

    A feature that is zero in every measured network has no rate of its own: it is charged at the
    highest fitted rate of its unit, and the interval of a network that has it is open above.
    Operators of unknown kind are always flagged. Source: the op-count model of
    `fit_nonnegative` with the intervals of `half_width`.
    """

    quantity: ClassVar[str]
    columns: ClassVar[tuple[tuple[str, str], ...]]
    """Name and unit of each feature."""
    nominal_rates: ClassVar[dict[str, float]]
    """What an amount of each unit costs on some device, to an order of magnitude."""

    def __init__(self, level: float = LEVEL) -> None:
        if not 0 < level < 1:
            raise ValueError(f"level {level} must lie between 0 and 1")
        self.level = level
        self._fit: _Fit | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns of what `features` returns."""
        return tuple(name for name, _ in self.columns)

    @property
    def n(self) -> int:
        """How many measurements the model was fitted on; 0 before the first fit."""
        return 0 if self._fit is None else len(self._fit.targets)

    @property
    def coefficients(self) -> dict[str, float]:
        """The fitted rate of each feature; raises NotFittedError before the first fit."""
        return dict(zip(self.feature_names, self._fitted.coefficients.tolist(), strict=True))

    @property
    def half_width(self) -> float:
        """Half-width of the interval on the logarithm; raises NotFittedError."""
        return self._fitted.half_width

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """One row of features for each graph."""
        raise NotImplementedError

    def design_rows(self, rows: FloatArray) -> FloatArray:
        """Rows of `features`, each divided by a rough prediction: what `d_optimal` should get.

        The fit minimises relative errors, so the design that teaches it most is that of rows
        divided by their targets. Targets are not known yet: fitted rates stand in for them, or
        nominal ones before the first fit. Undivided, the largest networks would win always.
        """
        rows = self._checked(rows)
        if self._fit is None:
            rates = np.array([self.nominal_rates[unit] for unit in self._units])
            rough: FloatArray = np.maximum(rows @ rates, _FLOOR * min(self.nominal_rates.values()))
        else:
            rough = self._fit.values(rows)
        return rows / rough[:, np.newaxis]

    def fit(self, graphs: Sequence[KernelGraph], measured: FloatArray) -> Self:
        """Forget what was fitted before, fit these, return self.

        Raises ValueError for lengths that differ and for values that are not positive and finite.
        """
        return self.fit_rows(self.features(graphs), measured)

    def fit_rows(self, rows: FloatArray, measured: FloatArray) -> Self:
        """As `fit`, from rows of `features`."""
        rows = self._checked(rows)
        targets = np.array(measured, dtype=np.float64)
        coefficients = _rates(rows, targets, self._units)
        width = half_width(held_out_log_errors(rows, targets, self._predictor), self.level)
        unseen = tuple((rows == 0).all(axis=0).tolist())
        self._fit = _Fit(rows, targets, coefficients, unseen, width)
        return self

    def predict(self, graphs: Sequence[KernelGraph]) -> list[Prediction]:
        """One prediction for each graph; raises NotFittedError before the first fit."""
        return self.predict_rows(self.features(graphs))

    def predict_rows(self, rows: FloatArray) -> list[Prediction]:
        """As `predict`, from rows of `features`."""
        fitted, rows = self._fitted, self._checked(rows)
        values = fitted.values(rows)
        shrink = math.exp(-fitted.half_width)
        stretch = 1 / shrink if shrink > 0 else math.inf
        present = rows > 0
        novel = present & np.array(fitted.unseen)
        watched = novel | (present & np.array([name == _UNKNOWN for name in self.feature_names]))
        flags = {int(i): self._names(watched[i]) for i in np.flatnonzero(watched.any(axis=1))}
        highs = np.where(novel.any(axis=1), math.inf, values * stretch)
        return [
            Prediction(value, low, high, self.level, self.n, flags.get(index, ()))
            for index, (value, low, high) in enumerate(
                zip(values.tolist(), (values * shrink).tolist(), highs.tolist(), strict=True)
            )
        ]

    def to_json(self) -> str:
        """The fitted model as JSON text, training rows included; raises NotFittedError."""
        fitted = self._fitted
        width = fitted.half_width
        return json.dumps(
            {
                "model": self.quantity,
                "version": FORMAT_VERSION,
                "level": self.level,
                "features": list(self.feature_names),
                "coefficients": fitted.coefficients.tolist(),
                "half_width": None if math.isinf(width) else width,
                "rows": fitted.rows.tolist(),
                "targets": fitted.targets.tolist(),
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The model that `to_json` wrote; raises ModelFormatError for any other text."""
        try:
            stored = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelFormatError(f"the stored cost model is no JSON: {error}") from error
        if not isinstance(stored, dict):
            raise ModelFormatError("the stored cost model is no JSON object")
        wanted = (cls.quantity, FORMAT_VERSION, [name for name, _ in cls.columns])
        found = (stored.get("model"), stored.get("version"), stored.get("features"))
        if found != wanted:
            raise ModelFormatError(
                f"the stored cost model is {found[0]!r} version {found[1]!r} with features "
                f"{found[2]!r}, not {wanted[0]!r} version {wanted[1]!r} of this program: fit anew"
            )
        return cls._restored(stored)

    @classmethod
    def _restored(cls, stored: dict[str, Any]) -> Self:
        try:
            model = cls(float(stored["level"]))
            rows = model._checked(np.array(stored["rows"], dtype=np.float64))
            targets = np.array(stored["targets"], dtype=np.float64)
            coefficients = np.array(stored["coefficients"], dtype=np.float64)
            width = stored["half_width"]
            width = math.inf if width is None else float(width)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFormatError(f"the stored cost model is damaged: {error!r}") from error
        fits = targets.shape == rows.shape[:1] and coefficients.shape == rows.shape[1:]
        if not fits or not np.isfinite(coefficients).all() or coefficients.min() < 0:
            raise ModelFormatError("the stored cost model is damaged: its numbers do not fit")
        unseen = tuple((rows == 0).all(axis=0).tolist())
        model._fit = _Fit(rows, targets, coefficients, unseen, width)
        return model

    @property
    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise NotFittedError(f"the {self.quantity} model has seen no measurement: fit it first")
        return self._fit

    @property
    def _units(self) -> tuple[str, ...]:
        return tuple(unit for _, unit in self.columns)

    def _names(self, mask: np.typing.NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(name for name, on in zip(self.feature_names, mask, strict=True) if on)

    def _checked(self, rows: FloatArray) -> FloatArray:
        checked = np.array(rows, dtype=np.float64)
        if checked.ndim != 2 or checked.shape[1] != len(self.columns):
            raise ValueError(
                f"rows of shape {checked.shape} do not have the {len(self.columns)} columns "
                f"of the {self.quantity} model"
            )
        return checked

    def _predictor(
        self, rows: FloatArray, targets: FloatArray
    ) -> Callable[[FloatArray], FloatArray]:
        coefficients = _rates(rows, targets, self._units)
        return lambda unseen: _values(unseen, coefficients, targets)


def _values(rows: FloatArray, coefficients: FloatArray, targets: FloatArray) -> FloatArray:
    # Above 0, so that a logarithm exists; relative, so that the unit does not matter.
    floored: FloatArray = np.maximum(rows @ coefficients, _FLOOR * targets.min())
    return floored


def _rates(rows: FloatArray, targets: FloatArray, units: tuple[str, ...]) -> FloatArray:
    """Fitted coefficients, and for columns without any data the highest of the same unit."""
    coefficients = fit_nonnegative(rows, targets)
    seen = (rows > 0).any(axis=0)
    kinds = np.array(units)
    for index in np.flatnonzero(~seen):
        same = coefficients[seen & (kinds == kinds[index])]
        coefficients[index] = same.max(initial=0.0)
    return coefficients
