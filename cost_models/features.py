"""What a kernel graph is made of, as few non-negative numbers: the input of the cost models.

Each number is a physical amount, so that its coefficient is a physical rate: seconds for each
kernel, for each multiply-accumulate of a class, for each byte moved. This is the sum form of the
roofline model (S. Williams et al., Commun. ACM 52(4), 2009) with an overhead for each kernel.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cost_models.kernels import KernelClass, KernelGraph
from cost_models.nnls import FloatArray

Unit = Literal["run", "kernel", "mac", "byte"]

FEATURES: tuple[tuple[str, Unit], ...] = (
    ("constant", "run"),
    ("kernels", "kernel"),
    ("conv_macs", "mac"),
    ("pointwise_macs", "mac"),
    ("depthwise_macs", "mac"),
    ("gemm_macs", "mac"),
    ("weight_bytes", "byte"),
    ("window_bytes", "byte"),
    ("gemm_bytes", "byte"),
    ("pool_bytes", "byte"),
    ("reduce_bytes", "byte"),
    ("elementwise_bytes", "byte"),
    ("move_bytes", "byte"),
    ("unknown_bytes", "byte"),
)
FEATURE_NAMES: tuple[str, ...] = tuple(name for name, _ in FEATURES)
"""Columns of `feature_row`. Bytes are of activations read and written, weights stand alone;
`window_bytes` are those of all convolutions."""

FEATURE_UNITS: tuple[Unit, ...] = tuple(unit for _, unit in FEATURES)

_COLUMN = {name: index for index, name in enumerate(FEATURE_NAMES)}
_CONSTANT, _KERNELS, _WEIGHTS = (
    _COLUMN["constant"],
    _COLUMN["kernels"],
    _COLUMN["weight_bytes"],
)
_MAC_COLUMN: dict[KernelClass, int] = {
    "conv": _COLUMN["conv_macs"],
    "pointwise": _COLUMN["pointwise_macs"],
    "depthwise": _COLUMN["depthwise_macs"],
    "gemm": _COLUMN["gemm_macs"],
}
_BYTE_COLUMN: dict[KernelClass, int] = {
    "conv": _COLUMN["window_bytes"],
    "pointwise": _COLUMN["window_bytes"],
    "depthwise": _COLUMN["window_bytes"],
    "gemm": _COLUMN["gemm_bytes"],
    "pool": _COLUMN["pool_bytes"],
    "reduce": _COLUMN["reduce_bytes"],
    "elementwise": _COLUMN["elementwise_bytes"],
    "move": _COLUMN["move_bytes"],
    "unknown": _COLUMN["unknown_bytes"],
}


def feature_row(graph: KernelGraph) -> FloatArray:
    """The amounts named by FEATURE_NAMES for one inference at batch 1."""
    row = [0.0] * len(FEATURE_NAMES)
    row[_CONSTANT] = 1.0
    row[_KERNELS] = float(len(graph.kernels))
    for kernel in graph.kernels:
        row[_BYTE_COLUMN[kernel.kind]] += kernel.input_bytes + kernel.output_bytes
        row[_WEIGHTS] += kernel.weight_bytes
        if kernel.macs:
            row[_MAC_COLUMN[kernel.kind]] += kernel.macs
    return np.array(row)


def feature_rows(graphs: Sequence[KernelGraph]) -> FloatArray:
    """One `feature_row` for each graph."""
    if not graphs:
        return np.zeros((0, len(FEATURE_NAMES)))
    return np.stack([feature_row(graph) for graph in graphs])
