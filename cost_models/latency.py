"""Latency of a network on one device profile, from the amounts of work in its kernels."""

from collections.abc import Sequence
from typing import ClassVar

from cost_models.features import FEATURES, feature_rows
from cost_models.kernels import KernelGraph
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel


class LatencyModel(NonNegativeModel):
    """Seconds of one inference at batch 1: overheads, multiply-accumulates and bytes by class.

    Additive, so it is meant for one thread; ten to fifteen networks chosen by `d_optimal` from
    `design_rows` are enough to start.
    """

    quantity: ClassVar[str] = "latency_seconds"
    columns: ClassVar[tuple[tuple[str, str], ...]] = FEATURES
    # Seconds on one core of a PC. Only ratios matter, and they only steer what is measured first.
    nominal_rates: ClassVar[dict[str, float]] = {
        "run": 1e-5,
        "kernel": 5e-6,
        "mac": 2e-11,
        "byte": 1e-10,
    }

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """The rows of `feature_rows`."""
        return feature_rows(graphs)
