"""Tables of measured cells, and files that are none."""

import math
from pathlib import Path

import pytest

from benchmarks.cost_models.tables import TableError, number_columns, read_table

SKIP = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
CONV = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
POOL = "|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|"
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_is_read_with_its_values(tmp_path: Path) -> None:
    path = table(tmp_path, "arch_str,ms,name", f"{CONV},2.5,a", f"{SKIP},1e-1,b")

    found = read_table(path, ["ms"])

    assert [cell.edges[0].operation for cell in found.cells] == ["nor_conv_3x3", "skip_connect"]
    assert found.values["ms"].tolist() == [2.5, 0.1]
    assert number_columns(path) == ["ms"]


def test_an_index_column_gives_the_order(tmp_path: Path) -> None:
    path = table(tmp_path, "index,arch_str,ms", f"10,{CONV},1", f"9,{SKIP},2")

    assert read_table(path, ["ms"]).values["ms"].tolist() == [2.0, 1.0]
    assert number_columns(path) == ["ms"]


def test_cells_that_do_not_count_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [f"{CONV},3", f"{POOL},-1", f"{SKIP},", f"{POOL},0", f"{CONV},NaN", f"{DEAD},5"]

    found = read_table(table(tmp_path, "arch_str,ms", *rows), ["ms"])

    assert found.usable("ms").tolist() == [0]
    assert found.left_out("ms") == {"disconnected": 1, "infeasible": 2, "not_measured": 2}


def test_a_mark_of_a_spreadsheet_at_the_start_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"arch_str,ms\n{CONV},1\n", encoding="utf-8-sig")

    assert math.isclose(read_table(path, ["ms"]).values["ms"][0], 1.0)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["arch_str,ms", f"{CONV},fast"], r"line 2: 'fast' in column 'ms' is no number"),
        (["arch_str,ms", f"{CONV},inf"], r"line 2: 'inf' in column 'ms' is no number"),
        (["arch_str,ms", f"{CONV},1", "resnet,2"], "'resnet' is no NAS-Bench-201 cell"),
        (["arch_str,ms", CONV], r"line 2: the row ends before 'ms'"),
        (["arch_str,seconds", f"{CONV},1"], r"no column 'ms'; it has 'arch_str', 'seconds'"),
        (["cell,ms", f"{CONV},1"], r"no column 'arch_str'; it has 'cell', 'ms'"),
        (["arch_str,ms"], "holds no cells"),
        ([""], "has no column 'arch_str'; it has no columns at all"),
        (["index,arch_str,ms", f"one,{CONV},1"], "'one' in column 'index' is no whole number"),
        (["arch_str,ms", f'"{CONV},1'], "is no CSV file"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_in_a_sentence(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(TableError, match=said):
        read_table(table(tmp_path, *lines), ["ms"])


def test_a_missing_file_a_folder_and_a_binary_file_are_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00arch_str")

    with pytest.raises(TableError, match=r"cannot read .*nothing\.csv"):
        read_table(tmp_path / "nothing.csv", ["ms"])
    with pytest.raises(TableError, match="cannot read"):
        read_table(tmp_path, ["ms"])
    with pytest.raises(TableError, match="no text in UTF-8"):
        read_table(binary, ["ms"])
