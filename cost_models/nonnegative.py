"""The non-negative linear cost model, whatever the quantity: prior, residual, interval, text."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from cost_models import stored
from cost_models.additive import Recipe, chosen, clearly_lower, recipes
from cost_models.base import ModelFormatError, NotFittedError, Prediction
from cost_models.boosting import BoostedTrees
from cost_models.fitted import Fit, Learner, Mask, Residual
from cost_models.intervals import LEVEL, MOST_FOLDS, Predictor, held_out
from cost_models.kernels import KernelGraph
from cost_models.nnls import FloatArray, check_fit
from cost_models.residual import GaussianProcess, Kernel

FORMAT_VERSION = 3

SHAPE = "shape"
"""Unit of a column that is no amount: it has no rate, only the residual sees it."""

_UNKNOWN = "unknown_bytes"
_FLOOR = 1e-6
_RESIDUAL_FROM = 15
_TREES_FROM = 300
_TREE_FOLDS = 5


class NonNegativeModel:
    """A sum of non-negative amounts times non-negative rates, fitted on relative errors.

    A feature that is zero in every measured network has no rate of its own: it is charged at the
    highest fitted rate of its unit, and the interval of a network that has it is open above.
    Operators of unknown kind are always flagged. From 15 rows on the sum is corrected by a learned
    factor where that clearly lowers the held-out error. See README.md of this package.
    """

    quantity: ClassVar[str]
    columns: ClassVar[tuple[tuple[str, str], ...]]
    """Name and unit of each feature. A column of unit SHAPE is not charged."""
    nominal_rates: ClassVar[dict[str, float]]
    """What an amount of each unit costs on some device, to an order of magnitude."""

    def __init__(self, level: float = LEVEL) -> None:
        if not 0 < level < 1:
            raise ValueError(f"level {level} must lie between 0 and 1")
        self.level = level
        self._fit: Fit | None = None

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
    def measured_rows(self) -> FloatArray:
        """The rows of features that the model was fitted on; raises NotFittedError."""
        return self._fitted.rows.copy()

    @property
    def measured_values(self) -> FloatArray:
        """What was measured for them; raises NotFittedError."""
        return self._fitted.targets.copy()

    @property
    def held_out_values(self) -> FloatArray:
        """Prediction of each measured row by a model fitted without it, none for a single row.

        Raises NotFittedError.
        """
        return self._fitted.held_out.copy()

    @property
    def held_out_widths(self) -> FloatArray:
        """Half-width, on the logarithm, of the interval of each of `held_out_values`: wide where a
        network differs from the others, infinite where there are too few. Raises NotFittedError.
        """
        return self._fitted.held_out_widths(self.level)

    @property
    def log_errors(self) -> FloatArray:
        """log(measured / held-out prediction) of each measured row; raises NotFittedError."""
        return self._fitted.log_errors.copy()

    @property
    def half_width(self) -> float:
        """Half-width, on the logarithm, of the interval of a network amid the measured ones.

        Infinite where there are too few for the level. Raises NotFittedError.
        """
        return self._fitted.half_width(self.level)

    @property
    def unseen(self) -> Mask:
        """For each feature whether no measured network has any of it; raises NotFittedError."""
        return self._fitted.unseen

    @property
    def is_corrected(self) -> bool:
        """Whether a learned factor stands on the sum; raises NotFittedError."""
        return self._fitted.residual is not None

    @property
    def is_transferred(self) -> bool:
        """Whether models of other devices were mixed in; raises NotFittedError."""
        return self._fitted.is_transferred

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
            rates = self._nominal_rates
            rough: FloatArray = np.maximum(rows @ rates, _FLOOR * min(self.nominal_rates.values()))
        else:
            rough = self._fit.additive(rows)
        return np.where(self._charged, rows / rough[:, np.newaxis], rows)

    def fit(
        self, graphs: Sequence[KernelGraph], measured: FloatArray, others: Sequence[Self] = ()
    ) -> Self:
        """Forget what was fitted before, fit these, return self.

        `others` are fitted models of the same kind of other devices; they are mixed in only where
        that clearly lowers the held-out error. Raises ValueError for lengths that differ and for
        values that are not positive and finite, NotFittedError for others that are not fitted.
        """
        return self.fit_rows(self.features(graphs), measured, others)

    def fit_rows(self, rows: FloatArray, measured: FloatArray, others: Sequence[Self] = ()) -> Self:
        """As `fit`, from rows of `features`."""
        rows = self._checked(rows)
        targets = np.array(measured, dtype=np.float64)
        sources = [np.array(list(other.coefficients.values())) for other in others]
        check_fit(rows, targets)

        def predictor(recipe: Recipe, some: FloatArray, values: FloatArray) -> Predictor:
            return self._fitted_by(recipe, some, values).additive

        among = self._recipes(self._amounts(rows), targets, sources)
        plainest = self._fitted_by(among[0], rows, targets)
        recipe = chosen(rows, targets, among, predictor, 1 / plainest.novelty.of_measured**2)
        plain = held_out(rows, targets, lambda r, t: predictor(recipe, r, t))
        self._fit = self._corrected(recipe, rows, targets, plain)
        return self

    def predict(self, graphs: Sequence[KernelGraph]) -> list[Prediction]:
        """One prediction for each graph; raises NotFittedError before the first fit."""
        return self.predict_rows(self.features(graphs))

    def predict_rows(self, rows: FloatArray) -> list[Prediction]:
        """As `predict`, from rows of `features`."""
        fitted, rows = self._fitted, self._checked(rows)
        additive = fitted.additive(rows)
        factors = fitted.factors(rows, additive)
        novel = (rows > 0) & self.unseen
        open_above = novel.any(axis=1)
        widths = fitted.half_widths(rows, additive, self.level)
        # What was never measured may cost nothing: it counts in the value, not in the lower end.
        lows = np.minimum(fitted.additive(np.where(novel, 0.0, rows)), additive) * factors
        values = additive * factors
        with np.errstate(over="ignore"):
            highs = np.where(open_above, math.inf, values * np.exp(widths))
        flags = self._flags(rows, novel)
        n, level = self.n, self.level
        return [
            Prediction(value, low, high, level, n, flags.get(index, ()))
            for index, (value, low, high) in enumerate(
                zip(values.tolist(), (lows * np.exp(-widths)).tolist(), highs.tolist(), strict=True)
            )
        ]

    def contributions(self, row: FloatArray) -> FloatArray:
        """What each feature of a row adds to the predicted value; raises NotFittedError.

        The sum is the value, but for the floor far below all measurements.
        """
        added: FloatArray = self.contributions_of(np.asarray(row)[np.newaxis])[0]
        return added

    def contributions_of(self, rows: FloatArray) -> FloatArray:
        """As `contributions`, for each of several rows."""
        fitted, rows = self._fitted, self._checked(rows)
        factors = fitted.factors(rows, fitted.additive(rows))
        added: FloatArray = rows * fitted.coefficients * factors[:, np.newaxis]
        return added

    def to_json(self) -> str:
        """The fitted model as JSON text, training rows included; raises NotFittedError."""
        return stored.text(self.parts())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The model that `to_json` wrote; raises ModelFormatError for any other text."""
        return cls.of_parts(stored.parsed(text))

    def parts(self) -> dict[str, Any]:
        """What `to_json` writes, as plain lists, numbers and texts."""
        fitted = self._fitted
        return {
            "model": self.quantity,
            "version": FORMAT_VERSION,
            "level": self.level,
            "features": list(self.feature_names),
            "coefficients": fitted.coefficients.tolist(),
            "rows": fitted.rows.tolist(),
            "measured": fitted.targets.tolist(),
            "held_out": fitted.held_out.tolist(),
            "transferred": fitted.is_transferred,
            "residual": _residual_parts(fitted.residual),
        }

    @classmethod
    def of_parts(cls, found: dict[str, Any]) -> Self:
        """The model whose `parts` these are; raises ModelFormatError for anything else."""
        names = [name for name, _ in cls.columns]
        stored.require(found, cls.quantity, FORMAT_VERSION, names)
        level = stored.number(found, "level")
        if not 0 < level < 1:
            raise ModelFormatError(f"the stored cost model is damaged: level {level}")
        model = cls._empty(level, found)
        model._restore(found)  # noqa: SLF001  # a constructor of its own class
        return model

    def _restore(self, found: dict[str, Any]) -> None:
        width = len(self.columns)
        measured = stored.numbers(found, "measured", (None,))
        count, residual = len(measured), found.get("residual")
        held = stored.numbers(found, "held_out", (count if count > 1 else 0,))
        if not count or measured.min() <= 0 or held.min(initial=1.0) <= 0:
            raise ModelFormatError("the stored cost model is damaged: values that are not positive")
        fit = Fit(
            rows=stored.numbers(found, "rows", (count, width)),
            targets=measured,
            charged=self._charged,
            coefficients=stored.numbers(found, "coefficients", (width,)),
            held_out=held,
            is_transferred=stored.flag(found, "transferred"),
        )
        learner = None if residual is None else _stored_learner(residual, width + 1)
        with np.errstate(all="ignore"):
            try:
                self._fit = fit if learner is None else fit.corrected_by(learner)
                predictions = self.predict_rows(fit.rows)
            except np.linalg.LinAlgError as error:
                raise ModelFormatError(f"the stored cost model is damaged: {error}") from error
        if not all(0 < p.value < math.inf and not math.isnan(p.high) for p in predictions):
            raise ModelFormatError("the stored cost model is damaged: its numbers overflow")

    @classmethod
    def _empty(cls, level: float, found: dict[str, Any]) -> Self:  # noqa: ARG003
        """A model that is not fitted yet, with what `found` holds besides the fit."""
        return cls(level)

    @property
    def _fitted(self) -> Fit:
        if self._fit is None:
            raise NotFittedError(f"the {self.quantity} model has seen no measurement: fit it first")
        return self._fit

    @property
    def _charged(self) -> Mask:
        return np.array([unit != SHAPE for _, unit in self.columns])

    @property
    def _nominal_rates(self) -> FloatArray:
        return np.array([self.nominal_rates.get(unit, 0.0) for _, unit in self.columns])

    def _amounts(self, rows: FloatArray) -> FloatArray:
        """What of the rows is charged."""
        return np.where(self._charged, rows, 0.0)

    def _recipes(
        self, rows: FloatArray, targets: FloatArray, sources: Sequence[FloatArray]
    ) -> list[Recipe]:
        """The ways to find the rates, the plainest first."""
        return recipes(rows, targets, sources)

    def _fitted_by(self, recipe: Recipe, rows: FloatArray, targets: FloatArray) -> Fit:
        """The additive fit by that recipe, without anything held out."""
        rates = recipe.rates(self._amounts(rows), targets)
        return Fit(
            rows=rows,
            targets=targets,
            charged=self._charged,
            coefficients=self._completed(rates, rows, targets),
            held_out=np.zeros(0),
            is_transferred=bool(recipe.sources),
        )

    def _completed(self, rates: FloatArray, rows: FloatArray, targets: FloatArray) -> FloatArray:
        """Rates with those of columns without any data: the highest of the same unit.

        Where that unit has none, the nominal rate, as this device compares to the nominal one.
        """
        seen = (rows > 0).any(axis=0)
        missing = np.flatnonzero(~seen & self._charged & (rates == 0))
        if not len(missing):
            return rates
        units = np.array([unit for _, unit in self.columns])
        nominal = rows @ self._nominal_rates
        usual = nominal > 0
        pace = np.median(targets[usual] / nominal[usual]) if usual.any() else 1.0
        for index in missing:
            highest = rates[seen & (units == units[index])].max(initial=0.0)
            rates[index] = highest if highest > 0 else pace * self._nominal_rates[index]
        return rates

    def _corrected(
        self, recipe: Recipe, rows: FloatArray, targets: FloatArray, plain: FloatArray
    ) -> Fit:
        """The fit by that recipe, whose held-out predictions are `plain`, with the residual that
        lowers its held-out error clearly, if any does.
        """
        whole = replace(self._fitted_by(recipe, rows, targets), held_out=plain)
        if len(targets) < _RESIDUAL_FROM:
            return whole
        prior = whole.additive(rows)
        kernel = Kernel.learned(
            whole.inputs(rows, prior), np.log(targets / prior), whole.input_groups()
        )

        def process(inputs: FloatArray, logs: FloatArray) -> GaussianProcess:
            return GaussianProcess.fitted(inputs, logs, kernel)

        learners: list[tuple[Learner, int]] = [(process, MOST_FOLDS)]
        if len(targets) >= _TREES_FROM:
            learners.append((BoostedTrees.fitted, _TREE_FOLDS))
        best, errors = whole, np.abs(whole.log_errors)
        for learner, most in learners:

            def fit(some: FloatArray, values: FloatArray, learner: Learner = learner) -> Predictor:
                return self._fitted_by(recipe, some, values).corrected_by(learner).values

            tried = replace(whole, held_out=held_out(rows, targets, fit, most))
            if clearly_lower(np.abs(tried.log_errors), errors, deviations=1):
                best, errors = tried.corrected_by(learner), np.abs(tried.log_errors)
        return best

    def _flags(self, rows: FloatArray, novel: Mask) -> dict[int, tuple[str, ...]]:
        """Names of what is flagged in each row that has any."""
        watched = novel | ((rows > 0) & np.array([n == _UNKNOWN for n in self.feature_names]))
        names = np.array(self.feature_names)
        return {
            int(i): tuple(names[watched[i]].tolist()) for i in np.flatnonzero(watched.any(axis=1))
        }

    def _checked(self, rows: FloatArray) -> FloatArray:
        checked = np.array(rows, dtype=np.float64)
        if checked.ndim != 2 or checked.shape[1] != len(self.columns):
            raise ValueError(
                f"rows of shape {checked.shape} do not have the {len(self.columns)} columns "
                f"of the {self.quantity} model"
            )
        if not np.isfinite(checked).all() or checked.min(initial=0.0) < 0:
            raise ValueError("features must be non-negative and finite")
        return checked


def _residual_parts(residual: Residual | None) -> dict[str, Any] | None:
    if isinstance(residual, GaussianProcess):
        return {"lengths": list(residual.kernel.lengths), "noise": residual.kernel.noise}
    if isinstance(residual, BoostedTrees):
        return residual.parts()
    return None


def _stored_learner(found: object, inputs: int) -> Learner:
    """What gives the stored residual back: the process by its kernel, the trees as they were."""
    if not isinstance(found, dict):
        raise ModelFormatError("the stored cost model is damaged: its residual is none")
    if "columns" in found:
        trees = BoostedTrees.of_parts(found, inputs)
        return lambda _inputs, _logs: trees
    lengths = stored.numbers(found, "lengths", (inputs,))
    noise = stored.number(found, "noise")
    if lengths.min() <= 0 or noise <= 0:
        raise ModelFormatError("the stored cost model is damaged: its residual")
    kernel = Kernel(tuple(lengths.tolist()), noise)
    return lambda inputs, logs: GaussianProcess.fitted(inputs, logs, kernel)
