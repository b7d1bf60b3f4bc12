"""`genba cost export` and `import`: files, what they replace, and what is refused."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host.__main__ import main
from host.device import Device, Runtime
from host.store import Store


@pytest.fixture
def exported(kiosk: Device, tmp_path: Path, said: Any) -> Path:
    path = tmp_path / "kiosk.json"
    said("cost", "export", "kiosk", path)
    return path


def test_a_twin_predicts_what_the_device_predicts(
    exported: Path, enrol: Callable[[str], Device], mobile: Path, said: Any, loaded: Any
) -> None:
    enrol("press")

    output = said("cost", "import", exported, "--device", "press")
    devices = ("--device", "kiosk", "--device", "press")
    first, second = loaded("cost", "predict", mobile, *devices)
    shown = said("cost", "show", "press")

    assert "models of kiosk (Intel(R) Core(TM)2 Duo), onnxruntime 1.23.2, 1 thread" in output
    assert "press has a new model of latency" in output
    assert first["latency_seconds"] == second["latency_seconds"]
    assert "calibration, imported" in shown


def test_the_models_before_are_named_and_kept(
    exported: Path, kiosk: Device, plant_store: Store, said: Any
) -> None:
    before = plant_store.cost_models.newest(kiosk.id)

    output = said("cost", "import", exported, "--device", "kiosk")

    assert output.count("which is kept") == 2
    after = plant_store.cost_models.newest(kiosk.id)
    assert {row.id for row in before}.isdisjoint(row.id for row in after)


def test_both_leave_a_trace_in_the_audit_log(
    exported: Path, kiosk: Device, plant_store: Store, said: Any
) -> None:
    said("cost", "import", exported, "--device", "kiosk")

    entries = list(plant_store.audit.entries())[-2:]
    assert [(entry.action, entry.subject) for entry in entries] == [
        ("export", "kiosk"),
        ("import", "kiosk"),
    ]
    assert entries[0].details == entries[1].details
    assert entries[0].details["path"] == str(exported)


def test_a_file_is_not_replaced_unless_forced_and_then_whole(exported: Path, said: Any) -> None:
    exported.write_text("mine")

    message = said("cost", "export", "kiosk", exported, code=2)
    kept = exported.read_text()
    said("cost", "export", "kiosk", exported, "--force")

    assert "is there already" in message
    assert kept == "mine"
    assert json.loads(exported.read_text())["format"] == "genba-cost-models"
    assert stat.S_IMODE(exported.stat().st_mode) == 0o644
    assert [path.name for path in exported.parent.glob("*kiosk.json*")] == ["kiosk.json"]


def test_models_of_another_version_need_force_and_another_cpu_is_said(
    exported: Path,
    plant_store: Store,
    enrol: Callable[[str], Device],
    device_facts: Any,
    mobile: Path,
    said: Any,
    loaded: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("press")
    newer = (Runtime("onnx", "onnxruntime", "1.24.0", works=True, why_not=""),)
    facts = replace(device_facts, runtimes=newer, cpu_model="ARMv7")
    plant_store.devices.open_session(device.id, "session", agent_version="1.0", facts=facts)
    command = ("cost", "import", exported, "--device", "press")

    message = said(*command, code=2)
    assert main([*map(str, command), "--force"]) == 0
    notes = capsys.readouterr().err

    assert "are of onnxruntime 1.23.2, 1 thread and press has onnxruntime 1.24.0" in message
    assert "another CPU (Intel(R) Core(TM)2 Duo; press has ARMv7)" in notes
    assert "because of --force" in notes
    loaded("cost", "predict", mobile, "--device", "press")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file"),
        (b"", "no JSON"),
        (b"\xff\xfe", "not text"),
        (b"{}", "no file of cost models"),
        (b'{"format": "genba-cost-models", "version": 99}', "version 99"),
        (b'{"format": "genba-cost-models", "version": 1}', "'device' is missing"),
        (b'{"format": "genba-cost-models", "version": NaN}', "no JSON"),
    ],
)
def test_a_file_of_something_else_is_refused_and_nothing_is_stored(
    enrol: Callable[[str], Device],
    plant_store: Store,
    tmp_path: Path,
    content: bytes | None,
    why: str,
    said: Any,
) -> None:
    device, path = enrol("press"), tmp_path / "models.json"
    if content is not None:
        path.write_bytes(content)

    message = said("cost", "import", path, "--device", "press", code=2)

    assert "models.json" in message
    assert why in message
    assert plant_store.cost_models.newest(device.id) == []


def test_what_cannot_be_exported_is_a_sentence(kiosk: Device, tmp_path: Path, said: Any) -> None:
    folder = tmp_path / "none"

    assert "no folder" in said("cost", "export", "kiosk", folder / "a.json", code=2)
    assert "is there already" in said("cost", "export", "kiosk", tmp_path, code=2)
    threads = said("cost", "export", "kiosk", "a.json", "--threads", 4, code=2)
    assert "genba device calibrate kiosk --threads 4" in threads
    assert "nobody" in said("cost", "export", "nobody", "a.json", code=2)
    assert not Path("a.json").exists()
