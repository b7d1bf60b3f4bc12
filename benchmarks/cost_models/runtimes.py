"""What a runtime executes of a cell, as non-negative amounts: the features of the cost models.

A table says neither which runtime measured it nor what that does with dead edges, and runtimes
differ there more than in anything else. So there is one small model for each kind of runtime, and
the measurements choose among them:

- eager (PyTorch): every edge at full price, and "none" is a multiplication by zero.
- converted (TFLite): what nobody reads is folded away, what no input reaches is executed. The
  multiplication by zero that cuts off a lone convolution is fused into its weights, so that this
  convolution stays.
- compiled (EdgeTPU): live edges only.
- parallel (TensorRT on a small GPU): all operations cost about the same, whatever their work; it
  is the reads of intermediate results that count.

Source: residuals of tables of other devices than HELP's six targets (pixel3, edgetpu, edgegpu and
the GPUs at other batch sizes), read against what TensorFlow's converter and PyTorch do.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from benchmarks.cost_models.cells import (
    CONVOLUTIONS,
    INNER,
    INPUT,
    OUTPUT,
    SKIP,
    WORK,
    Cell,
    Edge,
    into,
    out_of,
)
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel

_EDGES = 6


def kept(cell: Cell) -> tuple[Edge, ...]:
    """Edges that nobody reads and that a converter leaves in the graph all the same.

    Where an unused node is one convolution alone, the multiplication by zero behind it becomes
    part of its weights, and the graph still holds it and what leads to it. An unused node of more
    terms is folded to zeros.
    """
    if 2 in cell.read or 1 in cell.read:
        return tuple(
            edge
            for node in INNER
            if node not in cell.read
            for edge in _lone_convolution(_terms(cell, node))
        )
    first, second = _lone_convolution(into(cell.edges, 1)), _terms(cell, 2)
    if not second:
        return first
    leads_on = second[0].source == 1
    if len(second) > 1 or (first and not leads_on):
        return ()
    if second[0].operation == SKIP:
        return first
    last = _lone_convolution(second)
    return (*into(cell.edges, 1), *last) if last and leads_on else last


def _terms(cell: Cell, node: int) -> list[Edge]:
    """The edges into a node, without skips of zeros."""
    return [
        edge for edge in into(cell.edges, node) if edge.operation != SKIP or edge.source in cell.fed
    ]


def _lone_convolution(terms: Sequence[Edge]) -> tuple[Edge, ...]:
    return tuple(terms) if len(terms) == 1 and terms[0].operation in CONVOLUTIONS else ()


def _work(edges: Iterable[Edge]) -> list[float]:
    """How many of each operation that computes something."""
    operations = [edge.operation for edge in edges]
    return [float(operations.count(operation)) for operation in WORK]


def _skips(edges: Iterable[Edge]) -> float:
    return float(sum(edge.operation == SKIP for edge in edges))


def _additions(edges: Iterable[Edge]) -> float:
    """Terms of each node beyond its first."""
    edges = list(edges)
    return float(sum(max(len(into(edges, node)) - 1, 0) for node in (*INNER, OUTPUT)))


def eager(cell: Cell) -> list[float]:
    """Amounts where everything is executed."""
    return [1.0, float(_EDGES - len(cell.edges)), *_work(cell.edges)]


def converted(cell: Cell) -> list[float]:
    """Amounts where what nobody reads is folded, but for lone convolutions."""
    executed = [*cell.used, *kept(cell)]
    return [1.0, _skips(cell.live), _additions(executed), *_work(executed)]


def compiled(cell: Cell) -> list[float]:
    """Amounts where only what the output depends on is executed."""
    return [1.0, _skips(cell.live), _additions(cell.live), *_work(cell.live)]


def parallel(cell: Cell) -> list[float]:
    """Amounts where launches and reads of intermediate results cost more than the work."""
    executed = [edge for edge in cell.used if edge.operation != SKIP or edge.source in cell.fed]
    readers = [[edge.operation for edge in out_of(executed, node)] for node in INNER]
    convolutions = [sum(name in CONVOLUTIONS for name in names) for names in readers]
    pairs = [(len(names), count) for names, count in zip(readers, convolutions, strict=True)]
    return [
        1.0,
        float(sum(len(names) for names in readers)),
        float(sum(e.operation in CONVOLUTIONS for e in out_of(executed, INPUT))),
        float(sum(edge.operation == WORK[-1] for edge in executed)),
        float(sum(max(count - 1, 0) for count in convolutions)),
        float(sum(0 < count < reads for reads, count in pairs)),
        float(sum(0 < count == reads for reads, count in pairs)),
        float(sum(count == 0 < reads for reads, count in pairs)),
        float(sum(e.operation in CONVOLUTIONS and e.source not in cell.fed for e in executed)),
    ]


class CellModel(NonNegativeModel):
    """A cost model of cells, whose features are the amounts of one kind of runtime."""

    quantity: ClassVar[str] = "value of a table"
    nominal_rates: ClassVar[dict[str, float]] = {"run": 1.0, "edge": 0.1}

    @staticmethod
    def amounts(cell: Cell) -> list[float]:
        """What the runtime executes of a cell, one number for each column."""
        raise NotImplementedError


class EagerModel(CellModel):
    """Every edge at full price."""

    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("constant", "run"),
        ("none", "edge"),
        ("conv1", "edge"),
        ("conv3", "edge"),
        ("pool", "edge"),
    )

    @staticmethod
    def amounts(cell: Cell) -> list[float]:
        """See `eager`."""
        return eager(cell)


class ConvertedModel(CellModel):
    """What nobody reads is folded."""

    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("constant", "run"),
        ("skip", "edge"),
        ("add", "edge"),
        ("conv1", "edge"),
        ("conv3", "edge"),
        ("pool", "edge"),
    )

    @staticmethod
    def amounts(cell: Cell) -> list[float]:
        """See `converted`."""
        return converted(cell)


class CompiledModel(CellModel):
    """Live edges only."""

    columns: ClassVar[tuple[tuple[str, str], ...]] = ConvertedModel.columns

    @staticmethod
    def amounts(cell: Cell) -> list[float]:
        """See `compiled`."""
        return compiled(cell)


class ParallelModel(CellModel):
    """Reads of intermediate results."""

    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("constant", "run"),
        ("inner_read", "edge"),
        ("input_conv", "edge"),
        ("pool", "edge"),
        ("further_inner_conv", "edge"),
        ("inner_node_read_by_both", "edge"),
        ("inner_node_read_by_conv", "edge"),
        ("inner_node_read_by_other", "edge"),
        ("zero_fed_conv", "edge"),
    )

    @staticmethod
    def amounts(cell: Cell) -> list[float]:
        """See `parallel`."""
        return parallel(cell)


KINDS: tuple[type[CellModel], ...] = (EagerModel, ConvertedModel, CompiledModel, ParallelModel)


def amount_rows(cells: Sequence[Cell]) -> FloatArray:
    """The amounts of all kinds side by side, one row for each cell."""
    rows = [[amount for kind in KINDS for amount in kind.amounts(cell)] for cell in cells]
    return np.array(rows).reshape(len(cells), sum(len(kind.columns) for kind in KINDS))
