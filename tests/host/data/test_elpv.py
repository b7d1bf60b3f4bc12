"""The example's photos: written once, as classes that the toolkit reads."""

import subprocess
import sys
from pathlib import Path

import pytest

from host.data.images import scan_folder

pytest.importorskip("elpv_dataset", reason="the extra demo is not installed")

PREPARE = Path(__file__).parents[3] / "examples" / "elpv" / "prepare.py"


def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PREPARE), *arguments], capture_output=True, text=True, check=False
    )


def test_the_photos_become_two_classes_and_a_second_run_writes_what_is_missing(
    tmp_path: Path,
) -> None:
    first = prepare(str(tmp_path / "photos"))
    next((tmp_path / "photos" / "defective").iterdir()).unlink()

    second = prepare(str(tmp_path / "photos"))

    assert first.returncode == 0, first.stderr
    assert "CC BY-NC-SA 4.0" in first.stdout
    assert "1803 functional, 821 defective; 2624 written now." in first.stdout
    assert "1803 functional, 821 defective; 1 written now." in second.stdout
    folder = scan_folder(tmp_path / "photos")
    assert folder.class_counts() == {"defective": 821, "functional": 1803}
    assert folder.channels == 1
    assert folder.excluded == ()


def test_a_target_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    done = prepare(str(tmp_path / "file"))

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
