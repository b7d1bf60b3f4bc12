"""What every cost model is: few measurements in, predictions with intervals out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from cost_models.kernels import KernelGraph
from cost_models.nnls import FloatArray


class NotFittedError(RuntimeError):
    """A cost model was asked for a prediction before it had seen a measurement."""


class ModelFormatError(ValueError):
    """Stored text is no cost model of this kind and version."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted number, in the model's unit, with an interval at `level`.

    `high` is infinite where `n` measurements are too few for the level, or where the network
    holds something that no measured network held; `flagged` then names it.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    flagged: tuple[str, ...] = ()


class CostModel(Protocol):
    """Predicts one quantity of one device profile from kernel graphs."""

    @property
    def quantity(self) -> str:
        """Name of what is predicted, its unit included, such as "latency_seconds"."""
        ...

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns of what `features` returns."""
        ...

    @property
    def n(self) -> int:
        """How many measurements the model was fitted on; 0 before the first fit."""
        ...

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """One row of features for each graph: input of `predict_rows` and `design_rows`."""
        ...

    def design_rows(self, rows: FloatArray) -> FloatArray:
        """Rows of `features` as `d_optimal` should get them, weighted as the fit weighs them."""
        ...

    def fit(self, graphs: Sequence[KernelGraph], measured: FloatArray) -> Self:
        """Forget what was fitted before, fit these, return self.

        Raises ValueError for lengths that differ and for values that are not positive and finite.
        """
        ...

    def predict(self, graphs: Sequence[KernelGraph]) -> list[Prediction]:
        """One prediction for each graph; raises NotFittedError before the first fit."""
        ...

    def predict_rows(self, rows: FloatArray) -> list[Prediction]:
        """As `predict`, from rows of `features`."""
        ...

    def to_json(self) -> str:
        """The fitted model as JSON text, training rows included; raises NotFittedError."""
        ...

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The model that `to_json` wrote; raises ModelFormatError for any other text."""
        ...
