"""How good predictions are: rank, error and coverage, which belong together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from cost_models.base import Prediction
from cost_models.nnls import FloatArray


@dataclass(frozen=True)
class Evaluation:
    """Predictions against measurements of the same networks, none of which were trained on.

    Shares lie in [0, 1]. `rho` is None where one side is constant.
    """

    n: int
    rho: float | None
    mape: float
    within_5_percent: float
    within_10_percent: float
    coverage: float


def evaluate(predictions: Sequence[Prediction], measured: FloatArray) -> Evaluation:
    """All figures at once; raises ValueError for lengths that differ or nothing to compare."""
    values = np.array([prediction.value for prediction in predictions])
    return Evaluation(
        n=len(measured),
        rho=spearman(values, measured),
        mape=mape(values, measured),
        within_5_percent=within(values, measured, 0.05),
        within_10_percent=within(values, measured, 0.1),
        coverage=coverage(
            np.array([prediction.low for prediction in predictions]),
            np.array([prediction.high for prediction in predictions]),
            measured,
        ),
    )


def spearman(predicted: FloatArray, measured: FloatArray) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where one side is constant."""
    _check(predicted, measured)
    ranks = np.stack([rankdata(predicted), rankdata(measured)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=1))
    return None if lengths.min() == 0 else float(ranks[0] @ ranks[1] / lengths.prod())


def mape(predicted: FloatArray, measured: FloatArray) -> float:
    """Mean of |predicted - measured| / measured; 0.1 is ten per cent."""
    _check(predicted, measured)
    return float(np.mean(np.abs(predicted - measured) / measured))


def within(predicted: FloatArray, measured: FloatArray, tolerance: float = 0.1) -> float:
    """Share of predictions off by at most `tolerance` times the measured value."""
    _check(predicted, measured)
    return float(np.mean(np.abs(predicted - measured) <= tolerance * measured))


def coverage(low: FloatArray, high: FloatArray, measured: FloatArray) -> float:
    """Share of measured values inside their intervals, the ends included."""
    _check(low, measured)
    _check(high, measured)
    return float(np.mean((low <= measured) & (measured <= high)))


def _check(predicted: FloatArray, measured: FloatArray) -> None:
    if predicted.shape != measured.shape or measured.ndim != 1 or len(measured) == 0:
        raise ValueError(
            f"{predicted.shape} predictions and {measured.shape} measurements cannot be compared"
        )
