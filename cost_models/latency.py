"""Latency of a network on one device profile, from the amounts of work in its kernels."""

from collections.abc import Sequence
from typing import ClassVar

from cost_models.features import FEATURES, feature_rows
from cost_models.kernels import KernelGraph
from cost_models.nnls import FloatArray
from cost_models.threaded import ThreadedModel


class LatencyModel(ThreadedModel):
    """Seconds of one inference at batch 1: overheads, multiply-accumulates and bytes by class.

    With several threads the amounts are those of the busiest one. Ten to fifteen networks chosen
    by `d_optimal` from `design_rows` are enough to start.
    """

    quantity: ClassVar[str] = "latency_seconds"
    columns: ClassVar[tuple[tuple[str, str], ...]] = FEATURES
    # Seconds on one core of a PC, to one digit. Only ratios within a unit matter.
    nominal_rates: ClassVar[dict[str, float]] = {
        "run": 1e-5,
        "kernel": 1e-6,
        "mac": 2e-11,
        "depthwise_macs": 5e-11,
        "grouped_macs": 3e-11,
        "integer_macs": 1e-11,
        "byte": 3e-11,
        "normalise_bytes": 6e-11,
        "pool_bytes": 6e-11,
        "transcendental_bytes": 6e-11,
        "unknown_bytes": 1e-10,
    }

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """The rows of `feature_rows`."""
        return feature_rows(graphs, self.threads)
