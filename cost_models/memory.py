"""Peak memory of the process that runs a network, from what its tensors need."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cost_models.kernels import KernelGraph
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel


class PeakMemoryModel(NonNegativeModel):
    """Peak resident bytes of the measuring process at batch 1.

    The constant is the runtime with its libraries; the rates say how many bytes are resident for
    each byte of weights (a runtime may keep a second, packed copy) and of activations alive at
    once by liveness analysis.
    """

    quantity: ClassVar[str] = "peak_rss_bytes"
    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("constant", "run"),
        ("peak_activation_bytes", "byte"),
        ("weight_bytes", "byte"),
    )
    nominal_rates: ClassVar[dict[str, float]] = {"run": 4e7, "byte": 1.0}

    def features(self, graphs: Sequence[KernelGraph]) -> FloatArray:
        """One, peak activation bytes, weight bytes of each graph."""
        rows = [[1.0, float(g.peak_activation_bytes), float(g.weight_bytes)] for g in graphs]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 3)
