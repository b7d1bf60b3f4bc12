"""What runtimes execute of a cell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cost_models.cells import Cell
from benchmarks.cost_models.runtimes import (
    KINDS,
    amount_rows,
    compiled,
    converted,
    eager,
    kept,
    parallel,
)
from host.spaces.nasbench201 import EDGES, OPERATIONS

NONE, SKIP, ONE, THREE, POOL = OPERATIONS


def cell(*edges: str) -> Cell:
    a, b, c, d, e, f = edges
    return Cell.parsed(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|")


def cells() -> st.SearchStrategy[Cell]:
    return st.tuples(*[st.sampled_from(OPERATIONS)] * len(EDGES)).map(lambda edges: cell(*edges))


FULL = cell(THREE, ONE, POOL, SKIP, THREE, ONE)
DEAD = cell(NONE, THREE, ONE, SKIP, POOL, NONE)
"""Node 1 holds zeros that the output reads through a pooling; nobody reads node 2."""


def test_where_every_edge_is_live_only_what_runtimes_count_differs() -> None:
    work = [2.0, 2.0, 1.0]

    assert eager(FULL) == [1.0, 0.0, *work]
    assert converted(FULL) == compiled(FULL) == [1.0, 1.0, 3.0, *work]


def test_an_eager_runtime_executes_dead_edges_and_multiplies_by_zero() -> None:
    assert eager(DEAD) == [1.0, 2.0, 1.0, 1.0, 1.0]


def test_a_converter_folds_what_nobody_reads_and_executes_what_reads_zeros() -> None:
    assert converted(DEAD) == [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]


def test_a_compiler_executes_live_edges_only() -> None:
    assert compiled(DEAD) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        # A lone convolution into an unused node stays, its weights times zero.
        ((NONE, THREE, NONE, SKIP, NONE, NONE), [THREE]),
        ((THREE, NONE, NONE, SKIP, NONE, NONE), [THREE]),
        ((THREE, SKIP, NONE, NONE, NONE, ONE), [THREE]),
        # A skip of zeros is no second term.
        ((NONE, THREE, SKIP, SKIP, NONE, NONE), [THREE]),
        # A sum, a pooling and a skip are folded to zeros.
        ((SKIP, THREE, ONE, SKIP, SKIP, NONE), []),
        ((NONE, POOL, NONE, SKIP, NONE, NONE), []),
        ((NONE, SKIP, NONE, SKIP, NONE, NONE), []),
        # What leads to a convolution that stays is executed too.
        ((POOL, NONE, THREE, SKIP, NONE, NONE), [POOL, THREE]),
        ((ONE, NONE, SKIP, SKIP, NONE, NONE), [ONE]),
        # A pooling of it has a second reader, so that nothing is fused.
        ((ONE, NONE, POOL, SKIP, NONE, NONE), []),
        # Two unused convolutions, one of them cut off by zero, are a sum.
        ((ONE, THREE, NONE, SKIP, NONE, NONE), []),
    ],
)
def test_a_converter_keeps_a_convolution_alone_in_an_unused_node(
    edges: tuple[str, ...], expected: list[str]
) -> None:
    assert [edge.operation for edge in kept(cell(*edges))] == expected


@given(cells())
def test_what_is_kept_is_unused(found: Cell) -> None:
    assert set(kept(found)) <= set(found.unused)


@given(cells())
def test_amounts_are_not_negative_and_kinds_are_ordered_by_what_they_execute(found: Cell) -> None:
    all_, executed, live = eager(found)[2:], converted(found)[3:], compiled(found)[3:]

    assert min(amount_rows([found])[0]) >= 0
    assert all(a >= b >= c for a, b, c in zip(all_, executed, live, strict=True))


def test_convolutions_of_an_intermediate_result_beside_other_readers_are_counted_apart() -> None:
    found = parallel(cell(SKIP, THREE, ONE, NONE, SKIP, POOL))

    # Node 1 is read by a convolution and a skip, node 2 by a pooling.
    assert found == [1.0, 3.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]


def test_amounts_of_all_kinds_stand_side_by_side() -> None:
    found = amount_rows([FULL, DEAD])

    assert found.shape == (2, sum(len(kind.columns) for kind in KINDS))
    assert np.array_equal(
        found[1], [*eager(DEAD), *converted(DEAD), *compiled(DEAD), *parallel(DEAD)]
    )
    assert amount_rows([]).shape == (0, found.shape[1])
