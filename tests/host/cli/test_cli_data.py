"""`genba data check`: what is found, what it says to do, and a picture to look at."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from host.__main__ import main
from host.report import data_sheet_frame
from host.report.data_sheet_frame import _has_glyph as has_glyph
from host.report.data_sheet_frame import drawable, is_drawable
from host.training.metrics import wilson_interval

Check = Callable[..., tuple[int, Any]]


def picture(seed: int, size: tuple[int, int] = (24, 16), mode: str = "L") -> Image.Image:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    values = np.random.default_rng(seed).integers(0, 256, shape)
    return Image.fromarray(values.astype(np.uint8))


def write_class(folder: Path, count: int, start: int, **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(start + number, **options).save(folder / f"part{number // 2:02}_{number % 2}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_class(tmp_path / "photos" / "傷", 20, 0)
    write_class(tmp_path / "photos" / "good", 60, 100)
    return tmp_path / "photos"


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """The exit code of the command, and what it prints with --json."""

    def run(*arguments: object) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["data", "check", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def text(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command prints for people, in one line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        main(["data", "check", *map(str, arguments)])
        return " ".join(capsys.readouterr().out.split())

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The sentence with which a wrong command ends."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["data", "check", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    return run


def test_sound_data_are_counted_and_training_can_start(photos: Path, check: Check) -> None:
    code, found = check(photos)

    assert code == 0
    assert found["trainable"] is True
    assert found["problems"] == found["left_out"] == found["copies"] == []
    assert found["counts"] == {"good": 60, "傷": 20}
    assert found["parts"] == {
        "train": {"good": 36, "傷": 12},
        "validation": {"good": 12, "傷": 4},
        "test": {"good": 12, "傷": 4},
    }
    assert found["imbalance"] == 3.0
    assert found["images"]["sizes"]["傷"] == [{"width": 24, "height": 16, "count": 20}]
    assert found["images"]["grey"] == {"good": 60, "傷": 20}


def test_a_small_test_part_is_warned_of_with_the_width_of_its_interval(
    photos: Path, check: Check
) -> None:
    _, found = check(photos)

    low, high = wilson_interval(11, 12)
    sentence = next(text for text in found["warnings"] if 'class "good" has 12' in text)
    assert f"if 11 of them are found, the true share is somewhere between {low:.0%} and" in sentence
    assert f"{100 * (high - low):.0f} points wide" in sentence
    assert "collect it up to 150 in all" in sentence


def test_thirty_in_test_are_enough(tmp_path: Path, check: Check) -> None:
    write_class(tmp_path / "a", 150, 0, size=(4, 4))
    write_class(tmp_path / "b", 150, 200, size=(4, 4))

    assert check(tmp_path)[1]["warnings"] == []


def test_broken_files_and_pictures_in_two_classes_are_named(
    photos: Path, check: Check, text: Callable[..., str]
) -> None:
    (photos / "傷" / "broken.png").write_bytes(b"no picture")
    (photos / "good" / "copy.png").write_bytes((photos / "傷" / "part00_0.png").read_bytes())

    code, found = check(photos)

    assert code == 0
    assert {file["path"]: file["why"] for file in found["left_out"]} == {
        "good/copy.png": "two classes",
        "傷/part00_0.png": "two classes",
        "傷/broken.png": "unusable",
    }
    assert any(
        "1 file cannot be used and is left out, such as 傷/broken.png" in w
        for w in found["warnings"]
    )
    assert any("2 files left out for standing in two classes" in w for w in found["warnings"])
    shown = text(photos)
    assert "left out 傷/broken.png: cannot identify image file" in shown
    assert "training can start" in shown


def test_copies_within_a_class_are_told_apart_from_conflicts(photos: Path, check: Check) -> None:
    (photos / "傷" / "again.png").write_bytes((photos / "傷" / "part00_0.png").read_bytes())

    _, found = check(photos)

    assert found["copies"] == [["傷/again.png", "傷/part00_0.png"]]
    assert found["left_out"] == []


def test_a_picture_saved_anew_in_another_part_is_reported(tmp_path: Path, check: Check) -> None:
    for number, part in enumerate(("train", "test")):
        write_class(tmp_path / part / "a", 10, 100 * number)
        write_class(tmp_path / part / "b", 10, 100 * number + 50)
    picture(3).save(tmp_path / "test" / "a" / "anew.jpg", quality=90)

    _, found = check(tmp_path)

    (pair,) = found["images"]["alike"]
    assert set(pair["paths"]) == {"train/a/part01_1.png", "test/a/anew.jpg"}
    assert "test" in pair["parts"]
    assert found["given_parts"] == ["train", "test"]
    assert any("1 pair of pictures in different parts looks alike" in w for w in found["warnings"])


def test_groups_keep_shots_of_one_part_together(photos: Path, check: Check) -> None:
    code, found = check(photos, "--group", r"(\w+/part\d+)_")

    assert code == 0
    assert found["groups"]["count"] == 40
    assert found["groups"]["mixed"] == {}
    totals = [sum(counts.values()) for counts in found["groups"]["by_part"].values()]
    assert sum(totals) == 40
    assert check(photos)[1]["groups"] is None


def test_groups_of_several_classes_are_noted(photos: Path, check: Check) -> None:
    code, found = check(photos, "--group", r"part(\d+)_")

    assert code == 0
    assert found["groups"]["count"] == 30
    assert found["groups"]["mixed"]["00"] == ["good", "傷"]
    assert any('10 of 30 groups hold several classes, such as "00"' in n for n in found["notes"])


def test_a_class_in_too_few_groups_is_a_problem_and_the_facts_are_still_told(
    photos: Path, check: Check, text: Callable[..., str]
) -> None:
    code, found = check(photos, "--group", r"(\w+)/")

    assert code == 1
    assert found["trainable"] is False
    assert "stands in one group only" in found["problems"][0]
    assert found["counts"] == {"good": 60, "傷": 20}
    assert "training cannot start" in text(photos, "--group", r"(\w+)/")


def test_one_class_is_a_problem(tmp_path: Path, check: Check) -> None:
    write_class(tmp_path / "good", 10, 0)

    code, found = check(tmp_path)

    assert code == 1
    only = f'{tmp_path} has only one class, "good"'
    more = "training needs two classes or more, each in a sub-folder of its own"
    assert found["problems"] == [f"{only}: {more}"]


def test_a_class_of_broken_files_is_a_problem_and_is_drawn_without_them(
    photos: Path, tmp_path: Path, check: Check
) -> None:
    (photos / "empty").mkdir()
    (photos / "empty" / "x.png").write_bytes(b"x")

    code, found = check(photos, "--out", tmp_path / "out")

    assert code == 1
    assert 'class "empty" of' in found["problems"][0]
    assert "has 0 usable images (left out: empty/x.png" in found["problems"][0]
    assert (tmp_path / "out" / "contact-sheet.png").exists()


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"size": (24, 16)}, {"size": (16, 16)}, "pictures have different shapes, from 16x16 to"),
        ({"size": (24, 16)}, {"size": (16, 16)}, "no size of picture occurs in every class"),
        ({}, {"mode": "RGB"}, 'class "a" is all grey and class "b" all in colour'),
    ],
)
def test_ways_to_tell_classes_without_looking_are_warned_of(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], sentence: str, check: Check
) -> None:
    write_class(tmp_path / "a", 10, 0, **first)
    write_class(tmp_path / "b", 10, 100, **second)

    assert any(sentence in warning for warning in check(tmp_path)[1]["warnings"])


def test_a_rare_class_is_warned_of(tmp_path: Path, check: Check) -> None:
    write_class(tmp_path / "good", 120, 0, size=(4, 4))
    write_class(tmp_path / "bad", 6, 200, size=(4, 4))

    warnings = check(tmp_path)[1]["warnings"]

    assert any('class "good" has 20 times as many pictures as "bad"' in w for w in warnings)


def test_given_parts_that_leak_are_warned_of(tmp_path: Path, check: Check) -> None:
    for number, part in enumerate(("train", "test")):
        write_class(tmp_path / part / "a", 12, 100 * number)
        write_class(tmp_path / part / "b", 12, 100 * number + 50)
    (tmp_path / "train/a/zz_0.png").write_bytes((tmp_path / "test/a/part00_0.png").read_bytes())

    _, plain = check(tmp_path)
    code, grouped = check(tmp_path, "--group", r"/(\w+)_")

    assert any("copies of held-back ones, such as train/a/zz_0.png" in w for w in plain["warnings"])
    assert code == 1
    assert any("23 files left out" in w or "24 files left out" in w for w in grouped["warnings"])


def test_a_table_with_other_headers_is_read_and_files_beside_it_are_counted(
    photos: Path, check: Check
) -> None:
    files = [p.relative_to(photos).as_posix() for p in sorted(photos.rglob("*.png"))]
    rows = [f"{file};{file.split('/')[0]};{file[-8:-6]}" for file in files[:70]]
    (photos / "list.csv").write_text("\n".join(["画像;判定;部品", *rows]), "utf-8-sig")

    code, found = check(
        photos,
        *("--table", photos / "list.csv", "--column", "path=画像", "--column", "label=判定"),
        *("--column", "group=部品"),
    )

    assert code == 0
    assert found["counts"] == {"good": 60, "傷": 10}
    assert found["groups"]["count"] == 30
    assert found["not_in_table"] == 10
    assert any("10 files below the folder are not in the table" in w for w in found["warnings"])


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    for label, name in enumerate(("bearing", "ok")):
        (tmp_path / "signals" / name).mkdir(parents=True)
        for number in range(6):
            rng = np.random.default_rng(10 * label + number)
            noise = rng.normal(size=600)
            table = np.column_stack([np.arange(600) / 100, noise, np.full(600, 5.0)])
            np.savetxt(
                tmp_path / "signals" / name / f"{number}.csv",
                table,
                delimiter=",",
                header="t,x,dead",
                comments="",
            )
    return tmp_path / "signals"


def test_signals_are_cut_and_odd_channels_are_named(
    machines: Path, tmp_path: Path, check: Check, text: Callable[..., str]
) -> None:
    options = ("--signals", "--length", "100", "--step", "50")

    code, found = check(machines, *options, "--out", tmp_path / "out")

    assert code == 0
    assert found["counts"] == {"bearing": 66, "ok": 66}
    assert found["signals"]["recordings"] == {"bearing": 6, "ok": 6}
    assert (found["signals"]["rising"], found["signals"]["flat"]) == (["t"], ["dead"])
    sentences = " ".join(found["warnings"])
    assert 'channel "t" rises with every sample' in sentences
    assert 'channel "dead" never changes' in sentences
    assert "windows of 100 samples every 50 overlap" in sentences
    assert "but of 1 recording only" in sentences
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    assert "recordings have 600 to 600 samples" in text(machines, *options)
    chosen = check(machines, *options, "--channels", "x")[1]
    assert chosen["signals"]["channels"] == ["x"]
    assert chosen["signals"]["rising"] == []


def test_a_sheet_of_recordings_in_few_files_reads_each_file_once(
    tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        labels = np.arange(40) % 2
        np.savez(tmp_path / f"{name}.npz", inputs=rng.normal(size=(40, 1, 50)), labels=labels)
    read: list[str] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)

    check(tmp_path, "--signals", "--out", tmp_path / "out")

    assert sorted(read) == ["one.npz", "one.npz", "two.npz", "two.npz"]  # checked, then drawn


def test_pairs_beyond_those_that_are_listed_are_counted(
    photos: Path, check: Check, text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.data.likeness.MOST_LISTED", 20)
    for part in ("train", "test"):
        for number in range(6):
            pixels = np.array(picture(7))
            pixels[int(part == "test"), number] ^= 1
            (photos / part / "a").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(photos / part / "a" / f"{number}.png")
        write_class(photos / part / "b", 30, 300 if part == "train" else 400)

    _, found = check(photos)

    assert len(found["images"]["alike"]) == 20
    # Six of each part, and one of the training part stands apart for validation.
    assert found["images"]["alike_count"] == 6 * 6 + 5
    assert found["images"]["alike_of_two_classes"] == 0
    assert any("41 pairs of pictures in different parts look alike" in w for w in found["warnings"])
    assert "and 31 more pairs" in text(photos)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--length", "100"), "--length, --step and --channels are for signals: say --signals"),
        (("--signals",), "there is no"),
        (("--column", "klass=x"), "--column klass=x: write it as path=HEADER"),
        (("--column", "label="), "--column label=: write it as"),
        (("--signals", "--length", "9", "--channels", "a,,b"), "names nothing somewhere"),
        (("--group", "part("), "is no regular expression"),
        (("--table", "nowhere.csv"), "the table nowhere.csv cannot be read"),
    ],
)
def test_wrong_options_end_with_a_sentence(
    photos: Path, options: tuple[str, ...], sentence: str, refused: Callable[..., str]
) -> None:
    folder = photos if options != ("--signals",) else photos / "gone"
    if options == ("--signals",):
        options = ("--signals", "--length", "10")

    assert sentence in refused(folder, *options)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "there is no image folder" in refused(tmp_path / "gone")


def test_a_folder_that_cannot_be_written_is_named(
    photos: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("in the way")

    assert "cannot be made" in refused(photos, "--out", tmp_path / "file")


def sheet_pixels(path: Path) -> np.ndarray:
    with Image.open(io.BytesIO(path.read_bytes())) as opened:
        return np.asarray(opened.convert("L"))


def test_the_contact_sheet_has_a_row_of_pictures_for_each_class(
    photos: Path, tmp_path: Path, check: Check
) -> None:
    write_class(photos / "black", 9, 300)
    for file in (photos / "black").iterdir():
        Image.new("L", (24, 16), 0).save(file)

    _, found = check(photos, "--out", tmp_path / "out")

    assert found["picture"] == str(tmp_path / "out" / "contact-sheet.png")
    assert json.loads((tmp_path / "out" / "data-check.json").read_text("utf-8")) == found
    pixels = sheet_pixels(tmp_path / "out" / "contact-sheet.png")
    dark_in_row = (pixels == 0).sum(axis=1)
    assert (dark_in_row > 1000).sum() > 80  # one row of eight black pictures, side by side
    assert (dark_in_row > 1000).sum() < 200


def test_the_contact_sheet_is_drawn_by_the_seed(photos: Path, tmp_path: Path, check: Check) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        check(photos, "--seed", seed, "--out", tmp_path / name)

    a, b, c = (sheet_pixels(tmp_path / name / "contact-sheet.png") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.fixture
def no_japanese_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    latin_only = lambda: mpl.rc_context({"font.family": ["DejaVu Sans"]})  # noqa: E731
    monkeypatch.setattr(data_sheet_frame, "fonts", latin_only)
    has_glyph.cache_clear()
    yield
    has_glyph.cache_clear()


@pytest.mark.usefixtures("no_japanese_font")
def test_without_a_japanese_font_classes_are_numbered_and_nothing_crashes(
    photos: Path, tmp_path: Path, check: Check
) -> None:
    write_class(photos / "$odd_{name}$", 6, 500)

    code, _ = check(photos, "--out", tmp_path / "out")

    assert code == 0
    assert not is_drawable("傷")
    assert drawable("傷 ok.png") == "· ok.png"
    assert sheet_pixels(tmp_path / "out" / "contact-sheet.png").min() < 50
