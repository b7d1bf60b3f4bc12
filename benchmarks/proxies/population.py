"""Which cells are ranked: those of a table, by one of the two protocols of the field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.cost_models.cells import Cell
from benchmarks.cost_models.tables import Table, TableError
from benchmarks.proxies.metrics import Indices, Names
from cost_models.nnls import FloatArray
from host.spaces.base import Candidate
from host.spaces.nasbench201 import EDGES, OPERATIONS

Protocol = Literal["all", "live"]
PROTOCOLS: tuple[Protocol, ...] = ("all", "live")


@dataclass(frozen=True)
class Population:
    """Cells and their accuracies in percent by column; `further` holds columns that are not judged.

    Protocol "all" takes every cell, "live" those in which every edge lies on a path from input to
    output; a cell without any edge is among them, as it is in the literature: 9,445 of 15,625.
    """

    path: Path
    protocol: Protocol
    cells: tuple[Cell, ...]
    accuracy: dict[str, FloatArray]
    further: dict[str, FloatArray]

    @cached_property
    def graphs(self) -> Names:
        """The distinct graph of each cell; cells without a path are one graph."""
        return np.array([cell.graph if cell.is_connected else "" for cell in self.cells])

    @cached_property
    def candidates(self) -> tuple[Candidate | None, ...]:
        """Each cell without its dead edges as a candidate; None where no path leads through."""
        return tuple(pruned(cell) if cell.is_connected else None for cell in self.cells)

    @property
    def distinct(self) -> int:
        """How many distinct graphs."""
        return len(set(self.graphs.tolist()))

    @property
    def dead(self) -> int:
        """How many cells have no path from input to output."""
        return sum(candidate is None for candidate in self.candidates)


def population(
    table: Table,
    columns: Sequence[str],
    protocol: Protocol,
    *,
    sample: int | None = None,
    seed: int = 0,
) -> Population:
    """The cells of a table, or so many of them drawn at random.

    Cells that lack an accuracy in any of the columns are left out. Raises TableError for fewer
    than two cells.
    """
    known = np.all([np.isfinite(table.values[column]) for column in columns], axis=0)
    usable = [
        index
        for index in np.flatnonzero(known).tolist()
        if protocol == "all" or is_live(table.cells[index])
    ]
    if sample is not None and sample < len(usable):
        drawn = np.random.default_rng(seed).permutation(len(usable))[:sample]
        usable = [usable[place] for place in sorted(drawn.tolist())]
    if len(usable) < 2:
        raise TableError(
            f"{table.path} holds {len(usable)} cells of protocol {protocol!r} with a value in "
            f"{', '.join(columns)}; two are needed"
        )
    places: Indices = np.array(usable)
    taken = {column: values[places] for column, values in table.values.items()}
    return Population(
        path=table.path,
        protocol=protocol,
        cells=tuple(table.cells[index] for index in usable),
        accuracy={column: taken[column] for column in columns},
        further={column: values for column, values in taken.items() if column not in columns},
    )


def is_live(cell: Cell) -> bool:
    """Whether no edge of a cell is dead."""
    return len(cell.live) == len(cell.edges)


def pruned(cell: Cell) -> Candidate:
    """The candidate of a cell, its dead edges "none"."""
    operations = {(edge.target, edge.source): edge.operation for edge in cell.live}
    return Candidate(tuple(OPERATIONS.index(operations.get(edge, "none")) for edge in EDGES))
