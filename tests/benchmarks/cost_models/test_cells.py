"""Cells of NAS-Bench-201 as graphs: what is live, what is the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cost_models.cells import Cell, CellError
from host.spaces.nasbench201 import EDGES, OPERATIONS

NONE, SKIP, ONE, THREE, POOL = OPERATIONS


def text(*edges: str) -> str:
    """A published text from six operations, in the order of the search space's paper."""
    a, b, c, d, e, f = edges
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def cell(*edges: str) -> Cell:
    return Cell.parsed(text(*edges))


operations = st.tuples(*[st.sampled_from(OPERATIONS)] * len(EDGES))


@pytest.mark.parametrize(
    ("edges", "connected"),
    [
        ((NONE, NONE, NONE, SKIP, NONE, NONE), True),
        ((SKIP, NONE, SKIP, NONE, NONE, SKIP), True),
        ((THREE, THREE, THREE, NONE, NONE, NONE), False),
        ((NONE, NONE, NONE, NONE, THREE, THREE), False),
        ((NONE,) * 6, False),
    ],
)
def test_a_cell_is_connected_if_a_path_leads_through_it(
    edges: tuple[str, ...], connected: bool
) -> None:
    assert cell(*edges).is_connected is connected


def test_live_are_the_edges_on_a_path_from_input_to_output() -> None:
    found = cell(NONE, THREE, ONE, SKIP, POOL, NONE)

    # Node 1 gets nothing: its pooling into the output runs on zeros, and node 2 leads nowhere.
    assert [edge.operation for edge in found.live] == [SKIP]
    assert [edge.operation for edge in found.used] == [SKIP, POOL]
    assert [edge.operation for edge in found.unused] == [THREE, ONE]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        # The same convolution through either inner node.
        ((THREE, NONE, NONE, NONE, ONE, NONE), (NONE, THREE, NONE, NONE, NONE, ONE)),
        # A skip in front, in the middle and at the end.
        ((SKIP, NONE, THREE, NONE, NONE, SKIP), (NONE, NONE, NONE, THREE, NONE, NONE)),
        # Dead edges at the end and at the start.
        ((THREE, ONE, NONE, SKIP, NONE, NONE), (NONE, NONE, POOL, SKIP, NONE, POOL)),
        # The two inner nodes exchanged.
        ((THREE, ONE, NONE, NONE, POOL, SKIP), (ONE, THREE, NONE, NONE, SKIP, POOL)),
    ],
)
def test_cells_that_compute_the_same_are_one_graph(
    left: tuple[str, ...], right: tuple[str, ...]
) -> None:
    assert cell(*left).graph == cell(*right).graph


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((NONE, NONE, NONE, THREE, NONE, NONE), (NONE, NONE, NONE, ONE, NONE, NONE)),
        ((THREE, NONE, NONE, NONE, ONE, NONE), (ONE, NONE, NONE, NONE, THREE, NONE)),
        # One convolution read twice is not two convolutions, to the runtime.
        ((THREE, NONE, NONE, SKIP, SKIP, NONE), (THREE, THREE, NONE, NONE, SKIP, SKIP)),
        # A branch counted twice.
        ((NONE, SKIP, NONE, SKIP, NONE, SKIP), (NONE, NONE, NONE, SKIP, NONE, NONE)),
    ],
)
def test_cells_that_compute_something_else_are_two_graphs(
    left: tuple[str, ...], right: tuple[str, ...]
) -> None:
    assert cell(*left).graph != cell(*right).graph


@given(operations)
def test_a_dead_edge_does_not_change_the_graph(edges: tuple[str, ...]) -> None:
    found = cell(*edges)
    live = {(edge.target, edge.source) for edge in found.live}

    alone = [name if pair in live else NONE for name, pair in zip(edges, EDGES, strict=True)]

    assert cell(*alone).graph == found.graph
    assert cell(*alone).live == found.live


@given(operations)
def test_exchanging_unlinked_inner_nodes_leaves_the_graph(edges: tuple[str, ...]) -> None:
    first, second, _, direct, out_first, out_second = edges
    unlinked = (first, second, NONE, direct, out_first, out_second)
    exchanged = (second, first, NONE, direct, out_second, out_first)

    assert cell(*unlinked).graph == cell(*exchanged).graph


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "resnet50",
        text(SKIP, SKIP, SKIP, SKIP, SKIP, "nor_conv_5x5"),
        text(SKIP, SKIP, SKIP, SKIP, SKIP, SKIP) + "|none~0|",
        text(SKIP, SKIP, SKIP, SKIP, SKIP, SKIP)[1:],
    ],
)
def test_what_is_no_cell_is_named(wrong: str) -> None:
    with pytest.raises(CellError, match="is no NAS-Bench-201 cell"):
        Cell.parsed(wrong)
