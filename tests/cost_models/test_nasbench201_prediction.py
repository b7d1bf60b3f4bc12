"""The few-shot benchmark on published measurements of NAS-Bench-201."""

import os
from pathlib import Path

import pytest

from benchmarks.cost_models import BARS, TABLE, DataError, cell_features, is_connected, run

DATA = Path(os.environ.get("GENBA_DATA", Path(__file__).parents[2] / "../shared/data"))


def cell(*edges: str) -> str:
    """An architecture string from its six operations, in the order of the search space's paper."""
    a, b, c, d, e, f = edges
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


NONE, SKIP, ONE, THREE, POOL = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)


def test_every_operation_of_a_full_cell_is_live() -> None:
    found = cell_features(cell(THREE, ONE, POOL, SKIP, THREE, ONE))

    assert found == [1, 1, 2, 2, 1, 3, 0, 0, 0, 0, 0, 0]


def test_what_no_input_reaches_is_zero_fed_and_what_nobody_reads_is_unused() -> None:
    found = cell_features(cell(NONE, THREE, ONE, SKIP, POOL, NONE))

    # Node 1 gets nothing: its pooling into the output runs on zeros, and node 2 leads nowhere.
    assert found == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("edges", "connected"),
    [
        ((NONE, NONE, NONE, SKIP, NONE, NONE), True),
        ((SKIP, NONE, SKIP, NONE, NONE, SKIP), True),
        ((THREE, THREE, THREE, NONE, NONE, NONE), False),
        ((NONE, NONE, NONE, NONE, THREE, THREE), False),
    ],
)
def test_a_cell_is_connected_if_a_path_leads_through_it(
    edges: tuple[str, ...], connected: bool
) -> None:
    assert is_connected(cell(*edges)) is connected


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nothing.csv"):
        run(tmp_path / "nothing.csv")


def test_a_table_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("index,name\n0,a\n")

    with pytest.raises(DataError, match="not the expected table"):
        run(tmp_path / "other.csv")


@pytest.mark.skipif(
    not (DATA / TABLE).is_file(), reason=f"{DATA / TABLE} is not there; GENBA_DATA names its folder"
)
def test_ten_measurements_of_one_device_beat_published_ones_with_nine_more_devices() -> None:
    found = run(DATA / TABLE)

    assert found["rho at N=10"]["mean"] > BARS[10]
    assert found["rho at N=20"]["mean"] >= BARS[20]
    assert found["rho at N=10"]["mean"] > 0.965
    assert found["rho at N=20"]["mean"] > 0.97
