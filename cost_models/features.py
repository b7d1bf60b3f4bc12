"""What a kernel graph is made of, as few non-negative numbers: the input of the cost models.

Each number is a physical amount, so that its coefficient is a physical rate: seconds for each
kernel, for each multiply-accumulate of a class, for each byte moved. This is the sum form of the
roofline model (S. Williams et al., Commun. ACM 52(4), 2009) with an overhead for each kernel.

With several threads a runtime still runs kernels one after another and splits each among its
threads, so what counts is the share of the busiest thread: the critical path (R. L. Graham, SIAM
J. Appl. Math. 17(2), 1969). Kernels too small to be split count whole.
"""

import math
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Literal

import numpy as np
import numpy.typing as npt

from cost_models.kernels import KernelClass, KernelGraph
from cost_models.nnls import FloatArray

Unit = Literal["run", "kernel", "mac", "byte"]

FEATURES: tuple[tuple[str, Unit], ...] = (
    ("constant", "run"),
    ("kernels", "kernel"),
    ("conv_macs", "mac"),
    ("pointwise_macs", "mac"),
    ("depthwise_macs", "mac"),
    ("grouped_macs", "mac"),
    ("gemm_macs", "mac"),
    ("integer_macs", "mac"),
    ("weight_bytes", "byte"),
    ("product_bytes", "byte"),
    ("pool_bytes", "byte"),
    ("normalise_bytes", "byte"),
    ("elementwise_bytes", "byte"),
    ("transcendental_bytes", "byte"),
    ("move_bytes", "byte"),
    ("unknown_bytes", "byte"),
)
FEATURE_NAMES: tuple[str, ...] = tuple(name for name, _ in FEATURES)
"""Columns of `feature_rows`. Bytes are of activations read and written, weights stand alone;
`product_bytes` are those of all convolutions and matrix products, `normalise_bytes` include
reductions, `gemm_macs` all products that are no convolution. MACs of 8-bit integers stand in
`integer_macs` alone. Amounts are weighted where a kernel is known to take more for each than its
class does."""

FEATURE_UNITS: tuple[Unit, ...] = tuple(unit for _, unit in FEATURES)

_COLUMN = {name: index for index, name in enumerate(FEATURE_NAMES)}
_KERNELS, _WEIGHTS, _INTEGER = (
    _COLUMN["kernels"],
    _COLUMN["weight_bytes"],
    _COLUMN["integer_macs"],
)
_PRODUCTS = _COLUMN["product_bytes"]
_MAC_COLUMN: dict[KernelClass, int] = {
    "conv": _COLUMN["conv_macs"],
    "pointwise": _COLUMN["pointwise_macs"],
    "depthwise": _COLUMN["depthwise_macs"],
    "grouped": _COLUMN["grouped_macs"],
    "gemm": _COLUMN["gemm_macs"],
    "matmul": _COLUMN["gemm_macs"],
    "recurrent": _COLUMN["gemm_macs"],
}
_BYTE_COLUMN: dict[KernelClass, int] = {
    **dict.fromkeys(_MAC_COLUMN, _PRODUCTS),
    "pool": _COLUMN["pool_bytes"],
    "reduce": _COLUMN["normalise_bytes"],
    "normalise": _COLUMN["normalise_bytes"],
    "elementwise": _COLUMN["elementwise_bytes"],
    "transcendental": _COLUMN["transcendental_bytes"],
    "move": _COLUMN["move_bytes"],
    "unknown": _COLUMN["unknown_bytes"],
}

_EFFORT: dict[str, float] = {
    "AveragePool": 2.0,
    "Elu": 4.0,
    "Erf": 2.0,
    "Gelu": 3.0,
    "LRN": 60.0,
    "Pow": 10.0,
    "Sigmoid": 1.3,
    "Softplus": 50.0,
}
"""Time for a byte compared to the usual operator of the class, measured with onnxruntime 1.32.0 on
an x86 core. Powers are taken one by one by the C library, exponentials many at once."""

_VECTOR_BLOCK = 8
_ROWS_THAT_HIDE = 16
_FEW_ROWS = 2.0
_EDGES, _DEPTHWISE_EDGES = 0.5, 4.0
_STEP_EFFORT = 2.0
_STEP_OVERHEAD = 0.3
_INTEGER_DEPTHWISE_EFFORT = 10.0
_MOST_TAPS, _LARGE_WINDOW_EFFORT = 25, 14.0  # XNNPACK, as ai-edge-litert 2.3.0 has it

_CELLS_FOR_EACH_KERNEL = 8

_MACS_TO_SPLIT = 65_536
_BYTES_TO_SPLIT = 131_072
"""Below these a kernel is not split. onnxruntime gives a matrix product one thread more for every
65,536 MACs (MLAS, sgemm.cpp) and an elementwise kernel one for about every 100,000 cycles."""

_Work = tuple[KernelClass, tuple[str, ...], int, int, int, int, int, bool]
_work = attrgetter(
    "kind", "ops", "macs", "input_bytes", "output_bytes", "weight_bytes", "steps", "integer"
)


def feature_rows(graphs: Sequence[KernelGraph], threads: int = 1) -> FloatArray:
    """The amounts named by FEATURE_NAMES for one inference at batch 1, one row for each graph.

    On one thread they are totals; on several, those of the busiest thread.
    """
    rows = np.zeros((len(graphs), len(FEATURE_NAMES)))
    if not graphs:
        return rows
    sizes = np.array([len(graph.kernels) for graph in graphs], dtype=np.intp)
    distinct = _Distinct()
    kernels = chain.from_iterable(graph.kernels for graph in graphs)
    # Networks repeat themselves: each distinct kernel is looked at once.
    index = np.fromiter(map(distinct.__getitem__, map(_work, kernels)), np.intp, int(sizes.sum()))
    if len(index):
        amounts = np.array([_amounts(work, threads) for work in distinct])
        rows = _summed(amounts, index, sizes)
    rows[:, 0] = 1.0
    return rows


def _summed(
    amounts: FloatArray, index: npt.NDArray[np.intp], sizes: npt.NDArray[np.intp]
) -> FloatArray:
    """The sum of the rows of `amounts` that `index` names, for each run of so many as `sizes`."""
    cells = len(sizes) * len(amounts)
    if cells <= _CELLS_FOR_EACH_KERNEL * len(index):
        # How often each graph has each distinct kernel: much quicker where these are few.
        cell = np.repeat(np.arange(len(sizes)), sizes) * len(amounts) + index
        counts = np.bincount(cell, minlength=cells).reshape(len(sizes), len(amounts))
        counted: FloatArray = counts @ amounts
        return counted
    rows = np.zeros((len(sizes), amounts.shape[1]))
    full = sizes > 0
    rows[full] = np.add.reduceat(amounts[index], (np.cumsum(sizes) - sizes)[full], axis=0)
    return rows


def feature_row(graph: KernelGraph, threads: int = 1) -> FloatArray:
    """The row of a single graph."""
    row: FloatArray = feature_rows((graph,), threads)[0]
    return row


class _Distinct(dict[_Work, int]):
    """Numbers keys in the order in which they are first asked for."""

    def __missing__(self, work: _Work) -> int:
        number = self[work] = len(self)
        return number


def _amounts(work: _Work, threads: int) -> list[float]:
    kind, ops, macs, input_bytes, output_bytes, weight_bytes, steps, integer = work
    share = 1.0 if threads == 1 else _share(work, threads)
    row = [0.0] * len(FEATURE_NAMES)
    row[_KERNELS] = 1.0 + _STEP_OVERHEAD * (steps - 1)
    effort = _EFFORT.get(ops[0], 1.0) if kind not in _MAC_COLUMN else 1.0
    row[_BYTE_COLUMN[kind]] = share * effort * (input_bytes + output_bytes)
    row[_WEIGHTS] = share * weight_bytes
    if macs:
        column = _INTEGER if integer else _MAC_COLUMN[kind]
        row[column] = share * macs * _slowness(work)
        row[_WEIGHTS] /= 1 + _rows(work) / _ROWS_THAT_HIDE
    return row


def _rows(work: _Work) -> float:
    """How often each weight is used in a step: the pixels of a convolution, the rows of a product.

    The weights of a product with few rows come from memory as fast as that allows; those of one
    with many rows come while it computes.
    """
    _, _, macs, _, _, weight_bytes, steps, integer = work
    weights = weight_bytes / (1 if integer else 4)
    return macs / steps / max(1.0, weights)


def _slowness(work: _Work) -> float:
    """How much longer a multiply-accumulate takes than in a large kernel of its class.

    With few rows each weight that is fetched is used few times; near the edges of a small image
    windows are cut and vectors half empty; a convolution into few channels uses a part of the
    registers; and the steps of a recurrent kernel are products with a vector.
    """
    kind, _, macs, _, output_bytes, weight_bytes, _, integer = work
    rows = max(1.0, _rows(work))
    if kind == "recurrent":
        return _STEP_EFFORT
    if kind == "matmul":
        return 1.0
    if kind in {"pointwise", "gemm"}:
        return 1.0 + _FEW_ROWS / rows
    if kind == "depthwise":
        edges = 1.0 + _DEPTHWISE_EDGES / math.sqrt(rows)
        return edges * _depthwise_effort(work)
    size = 1 if integer else 4
    deep = macs / max(1.0, output_bytes / size)
    channels = weight_bytes / size / (deep + 1)
    narrow = min(1.0, (_VECTOR_BLOCK / max(1.0, channels)) ** 2)
    return 1.0 + narrow + _EDGES / math.sqrt(rows) + _FEW_ROWS / rows


def _depthwise_effort(work: _Work) -> float:
    """Integers and, in TFLite, windows larger than its kernels for them take a slow road."""
    _, ops, macs, _, output_bytes, _, _, integer = work
    if integer:
        return _INTEGER_DEPTHWISE_EFFORT
    taps = macs / max(1.0, output_bytes / 4)
    return _LARGE_WINDOW_EFFORT if ops[0] == "DEPTHWISE_CONV_2D" and taps > _MOST_TAPS else 1.0


def _share(work: _Work, threads: int) -> float:
    """The share of the busiest thread."""
    _, _, macs, input_bytes, output_bytes, _, steps, _ = work
    pieces = max(macs // steps // _MACS_TO_SPLIT, (input_bytes + output_bytes) // _BYTES_TO_SPLIT)
    return 1.0 / min(threads, max(1, pieces))
