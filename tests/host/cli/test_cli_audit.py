"""`genba audit`: who did what, and whether that record is whole."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from host.__main__ import main
from host.store import Store
from host.workspace import STORE_FILE, Workspace


@pytest.fixture
def noted(plant_store: Store) -> Store:
    """Three entries: a token, an enrolment and a job."""
    plant_store.audit.note("token", "kiosk", {"expires_at": "2026-11-24T09:00:00+00:00"})
    details = {"peer": "ipv4:192.0.2.7:52114", "key_sha256": "ab" * 32}
    plant_store.audit.note("enrol", "kiosk", details, actor="device kiosk")
    plant_store.audit.note("job", "press", {"label": "[b]model[/b].onnx", "study": "日本"})
    return plant_store


@pytest.fixture
def exported(noted: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "audit.jsonl"
    assert main(["audit", "export", str(path)]) == 0
    assert "wrote 3 entries" in capsys.readouterr().err
    return path


def shown(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert main(["audit", "show", "--json", *options]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def tamper(workspace: Workspace, statement: str) -> None:
    """What somebody does who owns the host: the triggers do not stop them."""
    database = sqlite3.connect(workspace.root / STORE_FILE)
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        database.execute(f"DROP TRIGGER {name}")
    database.execute(statement)
    database.commit()
    database.close()


def test_the_newest_entry_stands_last_with_its_details(
    noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["audit", "show"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[3:6]] == ["1", "2", "3"]
    assert "peer 192.0.2.7" in lines[4]
    assert "key sha256 abababababab…" in lines[4]
    assert "[b]model[/b].onnx" in lines[5]


def test_entries_are_told_whole_to_programs(
    noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = shown(capsys, "--action", "enrol")[0]

    assert entry["number"] == 2
    assert entry["actor"] == "device kiosk"
    assert entry["details"] == {"peer": "ipv4:192.0.2.7:52114", "key_sha256": "ab" * 32}
    assert len(entry["sha256"]) == len(entry["previous_sha256"]) == 64


def test_entries_are_chosen_by_device_action_and_time(
    noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = {
        "--device kiosk": [1, 2],
        "--action job": [3],
        "--last 2": [2, 3],
        "--since 2099-01-01": [],
        "--since 2020-01-01T08:30": [1, 2, 3],
        "--device kiosk --action job": [],
    }

    found = {options: shown(capsys, *options.split()) for options in numbers}

    assert {o: [entry["number"] for entry in entries] for o, entries in found.items()} == numbers


def test_older_entries_that_are_left_out_are_mentioned(
    noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["audit", "show", "--last", "1"])
    cut = capsys.readouterr().out
    main(["audit", "show", "--last", "3"])
    whole = capsys.readouterr().out

    assert "Older entries are not shown" in cut
    assert "Older entries" not in whole


def test_nothing_that_fits_is_said(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "show", "--device", "nobody"]) == 0
    assert "No entry of the audit log fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        (["show", "--action", "dance"], "use one of token, enrol"),
        (["show", "--since", "yesterday"], "write it as 2026-11-24"),
        (["show", "--since", "0001-01-01"], "is no time"),
        (["verify", "--expect", "abc"], "give all 64 hexadecimal digits"),
        (["verify", "--file", __file__], "line 1 is no entry"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_wrong_question_ends_with_2_and_one_sentence(
    workspace: Workspace,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    because: str,
) -> None:
    code = main(["audit", *arguments])

    error = capsys.readouterr().err
    assert code == 2
    assert because in error
    assert error.count("\n") == 1


def test_a_whole_log_tells_its_head_which_is_found_again_later(
    noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", "--json"]) == 0
    head = json.loads(capsys.readouterr().out)["head_sha256"]
    noted.audit.note("export", "cells", {})

    code = main(["audit", "verify", "--expect", head.upper()])

    told = capsys.readouterr().out
    assert code == 0
    assert "is whole: 4 entries" in told
    assert f"{head[:12]}… is in the chain" in told


def test_a_changed_entry_is_named_and_ends_with_1(
    workspace: Workspace, noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper(workspace, "UPDATE audit_log SET subject = 'press' WHERE number = 2")

    code = main(["audit", "verify"])

    assert code == 1
    assert "entry 2 was changed; 1 entry fit" in capsys.readouterr().err


def test_an_end_that_was_cut_off_is_noticed_by_its_head_alone(
    workspace: Workspace, noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    head = noted.audit.verify().head_sha256
    tamper(workspace, "DELETE FROM audit_log WHERE number = 3")

    alone = main(["audit", "verify"])
    capsys.readouterr()
    with_head = main(["audit", "verify", "--expect", head])

    assert (alone, with_head) == (0, 1)
    assert f"no entry has the expected hash {head}" in capsys.readouterr().err


def test_an_exported_log_is_checked_without_its_workspace(
    exported: Path,
    noted: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    head = noted.audit.verify().head_sha256
    monkeypatch.chdir(tmp_path)

    code = main(["audit", "verify", "--file", str(exported), "--expect", head])

    assert code == 0
    assert f"Head: {head}" in capsys.readouterr().out
    assert "日本" in exported.read_text(encoding="utf-8")


def test_a_log_is_exported_to_the_output(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "export", "-"]) == 0
    assert capsys.readouterr().out == exported.read_text(encoding="utf-8")


def _reworded(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("192.0.2.7", "192.0.2.8"), lines[2]]


def _shortened(lines: list[str]) -> list[str]:
    return [lines[0], lines[2]]


def _swapped(lines: list[str]) -> list[str]:
    return [lines[1], lines[0], lines[2]]


def _relinked(lines: list[str]) -> list[str]:
    second = json.loads(lines[1])
    second["previous_sha256"] = "0" * 64
    return [lines[0], json.dumps(second), lines[2]]


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (_reworded, "entry 2 was changed"),
        (_shortened, "entry 2 is missing"),
        (_swapped, "entry 1 is missing"),
        (_relinked, "entry 2 does not follow the one before"),
    ],
)
def test_a_changed_file_is_noticed(
    exported: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[str]], list[str]],
    because: str,
) -> None:
    lines = change(exported.read_text(encoding="utf-8").splitlines())
    exported.write_text("\n".join(lines), encoding="utf-8")

    code = main(["audit", "verify", "--file", str(exported)])

    assert code == 1
    assert because in capsys.readouterr().err


def test_a_file_whose_end_was_cut_off_lacks_the_expected_head(
    exported: Path, noted: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    head = noted.audit.verify().head_sha256
    lines = exported.read_text(encoding="utf-8").splitlines()
    exported.write_text("\n".join(lines[:2]), encoding="utf-8")

    code = main(["audit", "verify", "--file", str(exported), "--expect", head])

    assert code == 1
    assert "no entry has the expected hash" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"\xff\xfe", "is not text"),
        (b"[]\n", "line 1 is no entry"),
        (b'{"number": 1, "at": 7}\n', "line 1 is no entry"),
        (b'{"number": "\\ud800"}\n', "line 1 is no entry"),
    ],
)
def test_a_file_that_is_no_log_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, because: str
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)

    code = main(["audit", "verify", "--file", str(path)])

    assert code == 2
    assert because in capsys.readouterr().err
