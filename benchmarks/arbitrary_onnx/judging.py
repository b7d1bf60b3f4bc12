"""Predictions against measurements of networks that no model was fitted on, beside baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.arbitrary_onnx.calibrating import Calibrated
from benchmarks.arbitrary_onnx.measurements import Measured
from cost_models.base import Prediction
from cost_models.evaluate import coverage, spearman, within
from cost_models.kernels import KernelGraph
from cost_models.nnls import FloatArray, fit_nonnegative

TOLERANCE = 0.25

Amount = Callable[[KernelGraph], float]


@dataclass(frozen=True)
class Unseen:
    """A network of the corpus in one setting: what a runtime executes, and what it took."""

    name: str
    graph: KernelGraph
    measured: Measured


@dataclass(frozen=True)
class Figures:
    """Errors are |predicted - measured| / measured; shares lie in [0, 1]."""

    n: int
    median_error: float
    within_25_percent: float
    spearman: float | None


@dataclass(frozen=True)
class Miss:
    """One prediction and what was measured, in the unit of the quantity."""

    name: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative, with its sign."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Setting:
    """The outcome of one runtime and number of threads."""

    runtime: str
    threads: int
    calibrated_on: int
    loud: int
    """How many of the networks the model flags: it has seen too little of them."""
    latency: Figures
    unflagged: Figures | None
    coverage: float
    memory: Figures
    flops: Figures
    parameters: Figures
    quiet: int
    """Networks of which a look was undisturbed."""
    worst: tuple[Miss, ...]
    worst_memory: tuple[Miss, ...]


def judge(runtime: str, threads: int, fitted: Calibrated, tested: Sequence[Unseen]) -> Setting:
    """All figures of one setting. Raises ValueError where nothing was tested."""
    graphs = [each.graph for each in tested]
    seconds = np.array([each.measured.latency_seconds for each in tested])
    peaks = np.array([float(each.measured.peak_rss_bytes) for each in tested])
    predictions, memory = fitted.latency.predict(graphs), fitted.memory.predict(graphs)
    plain = np.array([not prediction.flagged for prediction in predictions])
    values = _values(predictions)
    return Setting(
        runtime=runtime,
        threads=threads,
        calibrated_on=len(fitted.graphs),
        loud=int((~plain).sum()),
        latency=figures(values, seconds),
        unflagged=figures(values[plain], seconds[plain]) if plain.any() else None,
        coverage=coverage(
            np.array([each.low for each in predictions]),
            np.array([each.high for each in predictions]),
            seconds,
        ),
        memory=figures(_values(memory), peaks),
        flops=figures(_proportional(fitted, graphs, _macs), seconds),
        parameters=figures(_proportional(fitted, graphs, _weights), seconds),
        quiet=sum(each.measured.quiet for each in tested),
        worst=_worst(tested, values, seconds),
        worst_memory=_worst(tested, _values(memory), peaks),
    )


def figures(predicted: FloatArray, measured: FloatArray) -> Figures:
    """Raises ValueError for nothing to compare."""
    share = within(predicted, measured, TOLERANCE)
    return Figures(
        len(measured),
        float(np.median(np.abs(predicted / measured - 1))),
        share,
        spearman(predicted, measured),
    )


def _proportional(fitted: Calibrated, graphs: Sequence[KernelGraph], amount: Amount) -> FloatArray:
    """A baseline: a constant and one rate, fitted on the same calibration measurements."""
    rates = fit_nonnegative(_line(fitted.graphs, amount), fitted.latencies)
    predicted: FloatArray = _line(graphs, amount) @ rates
    return predicted


def _line(graphs: Sequence[KernelGraph], amount: Amount) -> FloatArray:
    return np.array([[1.0, amount(graph)] for graph in graphs])


def _macs(graph: KernelGraph) -> float:
    return float(graph.macs)


def _weights(graph: KernelGraph) -> float:
    return float(graph.weight_bytes)


def _values(predictions: Sequence[Prediction]) -> FloatArray:
    return np.array([each.value for each in predictions])


def _worst(
    tested: Sequence[Unseen], predicted: FloatArray, measured: FloatArray, count: int = 10
) -> tuple[Miss, ...]:
    order = np.argsort(-np.abs(np.log(predicted / measured)))[:count]
    return tuple(Miss(tested[i].name, float(predicted[i]), float(measured[i])) for i in order)
