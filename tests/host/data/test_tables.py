"""Tables of labels: what is read, what is left out, and what is refused with a way out."""

from pathlib import Path

import pytest
from PIL import Image

from host.__main__ import main
from host.data.check import check_data
from host.data.dataset import read_data
from host.data.listing import list_folder, with_groups
from host.data.table import ALL_COLUMNS, Columns, list_table
from host.errors import UsageError


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "labels.csv").write_text(text, encoding)
    return folder / "labels.csv"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_paths_labels_groups_and_parts_are_read(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    rows = ["path,label,group,split", "b/2.png,傷,P1,test", "a/1.png,good,P2,Val", "c.png,good,,"]
    text = "\r\n".join(rows).replace(",", delimiter)

    listing = list_table(written(tmp_path, text, encoding), ALL_COLUMNS)

    assert listing.classes == ("good", "傷")
    assert listing.root == tmp_path
    assert [(f.path, f.label, f.group, f.subset) for f in listing.files] == [
        ("a/1.png", "good", "P2", "validation"),
        ("b/2.png", "傷", "P1", "test"),
        ("c.png", "good", None, None),
    ]


def test_columns_may_have_other_names_and_stand_anywhere(tmp_path: Path) -> None:
    table = written(tmp_path, '検査日,"file, name",結果,部品\n1,"x;y.png",NG,7\n2,z.png,OK,8\n')

    listing = list_table(table, Columns(path="file, name", label="結果", group="部品"))

    assert [(f.path, f.label, f.group) for f in listing.files] == [
        ("x;y.png", "NG", "7"),
        ("z.png", "OK", "8"),
    ]


def test_paths_of_windows_are_understood(tmp_path: Path) -> None:
    listing = list_table(written(tmp_path, "path,label\nline1\\cam2\\1.png,a\n"), ALL_COLUMNS)

    assert listing.files[0].path == "line1/cam2/1.png"


def test_rows_that_say_too_little_or_contradict_each_other_are_left_out(tmp_path: Path) -> None:
    text = (
        "path,label,group\nok.png,a,1\n,a,1\nunlabelled.png,,1\n\n"
        "both.png,a,1\nsub/../both.png,b,1\ntwice.png,a,1\ntwice.png,a,1\n"
        "torn.png,a,1\ntorn.png,a,2\nshort.png\n"
    )

    listing = list_table(written(tmp_path, text), ALL_COLUMNS)

    assert [file.path for file in listing.files] == ["ok.png", "twice.png"]
    assert {file.path: file.reason for file in listing.excluded} == {
        "line 3 of labels.csv": "the row has no path",
        "unlabelled.png": "line 4 of labels.csv gives it no label",
        "short.png": "line 12 of labels.csv gives it no label",
        "both.png": 'the table says "a" and "b" of it',
        "torn.png": "the table names it twice, with two groups or parts",
    }


def test_shift_jis_is_named_with_the_way_to_convert_it(tmp_path: Path) -> None:
    table = written(tmp_path, "path,label\n1.png,良品\n", "cp932")

    with pytest.raises(UsageError, match=r"not UTF-8 but perhaps Shift-JIS.*iconv -f CP932"):
        list_table(table, ALL_COLUMNS)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "file,class\n1.png,a\n",
            ALL_COLUMNS,
            r'no column "path", "label": it has "file", "class"',
        ),
        ("path,label\n1.png,a\n", Columns(group="part"), "no column 'part' for the group"),
        ("path,label\n1.png,a\n", Columns(split="fold"), "no column 'fold' for the split"),
        ("path,label,split\n1.png,a,holdout\n", ALL_COLUMNS, "line 2 .* has the split 'holdout'"),
        ("path,label\n", ALL_COLUMNS, "names no file that can be used"),
        ("", ALL_COLUMNS, "has no column"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(
    tmp_path: Path, text: str, columns: Columns, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        list_table(written(tmp_path, text), columns)


@pytest.mark.parametrize("text", ["path,label,{0}\n1.png,a\n", "path,label\n1.png,{0}\n"])
def test_a_cell_that_is_longer_than_any_is_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"is no CSV file: .*field larger than field limit"):
        list_table(written(tmp_path, text.format("x" * 200_000)), ALL_COLUMNS)


def test_rows_with_paths_that_no_file_can_have_are_left_out(tmp_path: Path) -> None:
    long = "x" * 300
    text = f"path,label\nok.png,a\nnul\0.png,a\n{long}\\1.png,a\n{long}.png,b\n"
    Image.new("L", (4, 4)).save(tmp_path / "ok.png")

    folder = read_data(tmp_path, kind="images", table=written(tmp_path, text))

    assert {file.path: file.reason for file in folder.excluded} == {
        "line 3 of labels.csv": "the path has a NUL character, which no path can have",
        f"{long}/1.png": "File name too long",
        f"{long}.png": "File name too long",
    }
    assert check_data(folder, tmp_path, seed=0).unlisted == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a\0b", "has a NUL character, which no path can have"),
        ("x" * 300, "is too long for a path"),
    ],
    ids=["NUL", "long"],
)
def test_folders_and_tables_that_no_path_can_name_are_refused(
    tmp_path: Path, name: str, sentence: str
) -> None:
    for folder, table in ((tmp_path / name, None), (tmp_path, tmp_path / name)):
        with pytest.raises(UsageError, match=sentence):
            read_data(folder, table=table)


def test_a_column_without_a_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["data", "check", str(tmp_path), "--column", "label=Class"])

    assert code == 2
    assert "--column names columns of a table: give the table with --table" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.csv cannot be read \(No such file"):
        list_table(tmp_path / "nowhere.csv", ALL_COLUMNS)


def images_at(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [(r"part(\d+)", ["7", "8"]), (r"^(?P<class>\w+)/(?P<group>[^_]+)_", ["part7", "part8"])],
)
def test_a_pattern_on_the_path_makes_groups(
    tmp_path: Path, pattern: str, groups: list[str]
) -> None:
    root = images_at(tmp_path, "a/part7_1.png", "b/part8_1.png")

    listing = with_groups(list_folder(root, frozenset({".png"})), pattern)

    assert [file.group for file in listing.files] == groups


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"part(\d+", "is no regular expression: "),
        (r"part\d+", "has no brackets around the group"),
        (r"shot(\d+)", r"finds no group in 2 of 2 paths, such as a/part7_1.png"),
        (r"part7_(\d)", r"finds no group in 1 of 2 paths, such as b/part8_1.png"),
        (r"part(7)?", r"finds no group in 1 of 2 paths"),
    ],
)
def test_a_pattern_that_does_not_group_every_file_is_refused(
    tmp_path: Path, pattern: str, message: str
) -> None:
    root = images_at(tmp_path, "a/part7_1.png", "b/part8_1.png")

    with pytest.raises(UsageError, match=message):
        with_groups(list_folder(root, frozenset({".png"})), pattern)


def test_a_wrong_pattern_is_refused_where_there_is_no_file_either(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    with pytest.raises(UsageError, match="is no regular expression"):
        with_groups(list_folder(tmp_path, frozenset({".png"})), "part(")


def test_groups_come_from_the_table_or_from_a_pattern_but_not_from_both(tmp_path: Path) -> None:
    table = written(tmp_path, "path,label,group\n1.png,a,x\n")

    with pytest.raises(UsageError, match="has a column of groups already"):
        with_groups(list_table(table, ALL_COLUMNS), r"(\d)")
