"""Where a prediction comes from: what each kernel of a network adds to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel


@dataclass(frozen=True)
class KernelShare:
    """A kernel, by its place in the order of execution, and the seconds that it adds."""

    index: int
    kind: KernelClass
    operators: tuple[str, ...]
    macs: int
    moved_bytes: int
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """A predicted latency as a sum, and the factor that is put on the sum.

    `whole_seconds` is what belongs to no single kernel, such as that kernels run side by side:
    it may be negative. `factor` is what the model has learned beyond the sum, and the drift of
    the device.
    """

    kernels: tuple[KernelShare, ...]
    constant_seconds: float
    whole_seconds: float
    total_seconds: float

    @property
    def sum_seconds(self) -> float:
        """The kernels, the constant, and what belongs to the network as a whole."""
        kernels = sum(kernel.seconds for kernel in self.kernels)
        return kernels + self.constant_seconds + self.whole_seconds

    @property
    def factor(self) -> float:
        """The prediction over the sum."""
        return self.total_seconds / self.sum_seconds if self.sum_seconds > 0 else 1.0


def explain(model: NonNegativeModel, graph: KernelGraph, total_seconds: float) -> Explanation:
    """Take a predicted latency apart; `total_seconds` is what `Predictor.predict` gave."""
    constant = np.array([unit == "run" for _, unit in model.columns])
    rates = np.array(list(model.coefficients.values()))
    (whole,) = model.features([graph]) * rates
    seconds = (_kernel_rows(model, graph) * rates)[:, ~constant].sum(axis=1).tolist()
    constant_seconds = float(whole[constant].sum())
    rest = float(whole[~constant].sum()) - sum(seconds)
    return Explanation(
        kernels=tuple(
            KernelShare(
                index=index,
                kind=kernel.kind,
                operators=kernel.ops,
                macs=kernel.macs,
                moved_bytes=kernel.input_bytes + kernel.output_bytes + kernel.weight_bytes,
                seconds=spent,
            )
            for index, (kernel, spent) in enumerate(zip(graph.kernels, seconds, strict=True))
        ),
        constant_seconds=constant_seconds,
        whole_seconds=0.0 if abs(rest) < 1e-9 * float(whole.sum()) else rest,
        total_seconds=total_seconds,
    )


def flagged_operators(
    model: NonNegativeModel, graph: KernelGraph, columns: Sequence[str]
) -> tuple[str, ...]:
    """The leading operators of the kernels that these columns of the model count; the column's
    own name where no single kernel has any of it.
    """
    if not columns:
        return ()
    rows = _kernel_rows(model, graph)
    names: dict[str, None] = {}
    for column in columns:
        place = model.feature_names.index(column) if column in model.feature_names else None
        found = [] if place is None else np.flatnonzero(rows[:, place] > 0).tolist()
        operators = [graph.kernels[index].ops[0] for index in found]
        names.update(dict.fromkeys(operators or [column.replace("_", " ")]))
    return tuple(names)


def _kernel_rows(model: NonNegativeModel, graph: KernelGraph) -> FloatArray:
    """The features of every kernel as a network of its own."""
    return model.features([KernelGraph((_alone(kernel),), 0) for kernel in graph.kernels])


def _alone(kernel: Kernel) -> Kernel:
    return replace(kernel, reads=(NETWORK_INPUT,) * len(kernel.reads))
