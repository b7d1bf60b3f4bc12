"""Cells of NAS-Bench-201: which edges are live, which cells are the same graph."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from host.spaces.base import Candidate, CandidateTextError
from host.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201

INPUT, OUTPUT = 0, 3
INNER = (1, 2)
SKIP = "skip_connect"
CONVOLUTIONS = ("nor_conv_1x1", "nor_conv_3x3")
WORK = (*CONVOLUTIONS, "avg_pool_3x3")
"""The operations that compute something."""

_SPACE = NasBench201()


class CellError(ValueError):
    """A text is no NAS-Bench-201 cell."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One operation of a cell, from one of its four nodes to a later one."""

    source: int
    target: int
    operation: str


@dataclass(frozen=True)
class Cell:
    """A cell by its edges other than "none", in the order of the published text."""

    edges: tuple[Edge, ...]

    @classmethod
    def parsed(cls, text: str) -> "Cell":
        """The cell of a published text such as `|nor_conv_3x3~0|+|none~0|none~1|+|...|`.

        Raises CellError where it is none.
        """
        try:
            candidate = _SPACE.parse(text)
        except CandidateTextError as error:
            raise CellError(str(error)) from error
        if _SPACE.text(candidate) != text:
            raise CellError(f"{text!r} is no NAS-Bench-201 cell, only something like it")
        operations = [OPERATIONS[choice] for choice in candidate.choices]
        return cls(
            tuple(
                Edge(source, target, operation)
                for (target, source), operation in zip(EDGES, operations, strict=True)
                if operation != "none"
            )
        )

    @cached_property
    def text(self) -> str:
        """The published text; `parsed` reads it back."""
        operations = {(edge.target, edge.source): edge.operation for edge in self.edges}
        return _SPACE.text(
            Candidate(tuple(OPERATIONS.index(operations.get(edge, "none")) for edge in EDGES))
        )

    @cached_property
    def fed(self) -> frozenset[int]:
        """The nodes that the input reaches; the others hold zeros."""
        found = {INPUT}
        for edge in sorted(self.edges, key=lambda edge: edge.source):
            if edge.source in found:
                found.add(edge.target)
        return frozenset(found)

    @cached_property
    def read(self) -> frozenset[int]:
        """The nodes that reach the output; what flows into the others is lost."""
        found = {OUTPUT}
        for edge in sorted(self.edges, key=lambda edge: -edge.target):
            if edge.target in found:
                found.add(edge.source)
        return frozenset(found)

    @cached_property
    def used(self) -> tuple[Edge, ...]:
        """The edges that reach the output, whether the input reaches them or not."""
        return tuple(edge for edge in self.edges if edge.target in self.read)

    @cached_property
    def live(self) -> tuple[Edge, ...]:
        """The edges on a path from the input to the output."""
        return tuple(edge for edge in self.used if edge.source in self.fed)

    @cached_property
    def unused(self) -> tuple[Edge, ...]:
        """The edges whose result nobody reads."""
        return tuple(edge for edge in self.edges if edge.target not in self.read)

    @property
    def is_connected(self) -> bool:
        """Whether a path leads from the cell's input to its output."""
        return OUTPUT in self.fed

    @cached_property
    def graph(self) -> str:
        """The same text for all cells that compute the same: their distinct graph.

        Dead edges do not count, a skip is its source, and the terms of a node have no order: 5,773
        graphs among the 15,625 cells. NAS-Bench-201 (arXiv:2001.00326) counts 6,466, as it merges
        fewer.
        """
        values = {INPUT: "x"}
        for node in (*INNER, OUTPUT):
            terms = sorted(
                values[edge.source]
                if edge.operation == SKIP
                else f"{edge.operation}({values[edge.source]})"
                for edge in self.live
                if edge.target == node
            )
            values[node] = terms[0] if len(terms) == 1 else f"({'+'.join(terms)})"
        return values[OUTPUT]


def into(edges: Iterable[Edge], node: int) -> list[Edge]:
    """Those of the edges that end at a node."""
    return [edge for edge in edges if edge.target == node]


def out_of(edges: Iterable[Edge], node: int) -> list[Edge]:
    """Those of the edges that start at a node."""
    return [edge for edge in edges if edge.source == node]
