"""Peak memory of the process that runs a network, from what its tensors need."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cost_models.kernels import KernelClass, KernelGraph
from cost_models.nnls import FloatArray
from cost_models.threaded import ThreadedModel

_CONVOLUTIONS: frozenset[KernelClass] = frozenset({"conv", "pointwise", "depthwise", "grouped"})


class PeakMemoryModel(ThreadedModel):
    """Peak resident bytes of the measuring process at batch 1.

    The constant is the runtime with its libraries; the rates say how many bytes are resident for
    each byte of weights and of activations alive at once by liveness analysis. A runtime holds
    weights up to three times while it loads: as the file has them, as it reads them, and packed
    for its kernels. That differs between convolutions and matrix products.
    """

    quantity: ClassVar[str] = "peak_rss_bytes"
    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("constant", "run"),
        ("peak_activation_bytes", "byte"),
        ("convolution_weight_bytes", "byte"),
        ("other_weight_bytes", "byte"),
    )
    nominal_rates: ClassVar[dict[str, float]] = {"run": 5e7, "byte": 2.0}

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """One row for each graph."""
        rows = [
            [1.0, graph.peak_activation_bytes, *_weights(graph)]  # whole bytes
            for graph in graphs
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.columns))


def _weights(graph: KernelGraph) -> tuple[int, int]:
    """Bytes of weights of convolutions, and of all else."""
    convolutions = sum(k.weight_bytes for k in graph.kernels if k.kind in _CONVOLUTIONS)
    return convolutions, graph.weight_bytes - convolutions
