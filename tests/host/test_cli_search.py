"""`genba search` and `genba front` with what people get wrong, and what they then read."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from host.__main__ import main
from host.device import DeviceFacts
from host.pki import Token
from host.workspace import GatewaySettings, Workspace

STUDY = """
name = "housings"
[data]
folder = "images"
[[devices]]
name = "panel"
max_latency_ms = 40
"""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace as the current folder, with a study and images of two classes beside it."""
    made = Workspace.create(tmp_path / "plant", GatewaySettings(address="127.0.0.1"))
    monkeypatch.delenv("GENBA_WORKSPACE", raising=False)
    monkeypatch.chdir(made.root)
    Path("study.toml").write_text(STUDY)
    for name in ("good", "scratched"):
        Path("images", name).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), 10 * number + len(name)).save(f"images/{name}/{number}.png")
    return made


def enrol(plant: Workspace, name: str, facts: DeviceFacts) -> None:
    token = Token.make("127.0.0.1", 1, plant.authority().fingerprint)
    with plant.open_store() as store:
        store.devices.add_token(name, token.secret_sha256, store.now() + timedelta(hours=1))
        store.devices.enrol(token.secret_sha256, "00" * 32, facts)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and the one sentence on standard error."""
    code = main(list(arguments))
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("genba: ")
    return code, lines[-1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "nmae"}, "unknown key 'nmae'"),
        ({"40": '"quick"'}, "devices.0.max_latency_ms"),
        ({"40": "0"}, "greater than 0"),
        ({"[data]": "[data"}, "is no TOML file"),
    ],
)
def test_a_wrong_study_file_is_a_usage_error(plant, capsys, change, sentence):
    text = STUDY
    for old, new in change.items():
        text = text.replace(old, new, 1)
    Path("study.toml").write_text(text)

    code, said = complaint(capsys, "search", "run", "study.toml")

    assert code == 2
    assert sentence in said


def test_a_study_file_that_is_not_there_is_a_usage_error(plant, capsys):
    code, said = complaint(capsys, "search", "run", "elsewhere.toml")

    assert code == 2
    assert "there is no file elsewhere.toml" in said


def test_an_unknown_device_is_named_with_what_to_do(plant, capsys):
    code, said = complaint(capsys, "search", "run", "study.toml")

    assert code == 2
    assert "no device is named 'panel'" in said
    assert "genba device enroll" in said


@pytest.mark.parametrize(
    ("break_images", "sentence"),
    [
        (lambda images: images.rename("gone"), "there is no image folder"),
        (lambda images: (images / "good").rename("good"), "only one class"),
        (lambda images: [(images / n).rename(n) for n in ("good", "scratched")], "no class fold"),
    ],
    ids=["missing", "one class", "empty"],
)
def test_images_that_cannot_be_trained_on_are_a_usage_error(
    plant, capsys, device_facts, break_images, sentence
):
    enrol(plant, "panel", device_facts)
    break_images(Path("images"))

    code, said = complaint(capsys, "search", "run", "study.toml")

    assert code == 2
    assert sentence in said


def test_a_restriction_that_names_no_choice_is_a_usage_error(plant, capsys, device_facts):
    enrol(plant, "panel", device_facts)
    Path("study.toml").write_text(STUDY + "[space]\nrestrict.resolution = [65]\n")

    code, said = complaint(capsys, "search", "run", "study.toml")

    assert code == 2
    assert "resolution = [65] must name some of" in said


def test_a_study_refused_for_its_space_has_not_taken_its_name(plant, capsys, device_facts):
    enrol(plant, "panel", device_facts)
    Path("study.toml").write_text(STUDY + "[space]\nrestrict.colour = [1]\n")

    code, said = complaint(capsys, "search", "run", "study.toml")

    assert code == 2
    assert "no decision 'colour'" in said
    with plant.open_store() as store:
        assert store.studies.all() == []


def test_a_folder_that_cannot_be_written_to_is_no_traceback(plant, capsys):
    Path("taken").write_text("a file")

    code, said = complaint(capsys, "init", "taken/plant")

    assert code in (1, 2)
    assert "taken/plant" in said


def test_two_ports_of_one_number_are_refused_before_a_workspace_is_made(plant, capsys):
    ports = ("--gateway-port", "8443", "--enrolment-port", "8443")

    code, said = complaint(capsys, "init", "new", "--address", "127.0.0.1", *ports)

    assert code == 2
    assert "must differ" in said
    assert not Path("new").exists()


@pytest.mark.parametrize("command", [("search", "status"), ("search", "resume"), ("front", "show")])
def test_a_study_that_does_not_exist_is_a_usage_error(plant, capsys, command):
    code, said = complaint(capsys, *command, "nothing")

    assert code == 2
    assert "no study is named 'nothing'" in said


@pytest.mark.parametrize("command", ["show", "plot"])
def test_a_study_without_a_front_says_how_to_get_one(plant, capsys, command):
    with plant.open_store() as store:
        store.studies.create("young", "{}", 0)

    code, said = complaint(capsys, "front", command, "young")

    assert code == 1
    assert "genba search resume young" in said


def test_a_stored_configuration_of_another_version_is_no_traceback(plant, capsys):
    with plant.open_store() as store:
        store.studies.create("old", '{"name": "old", "unheard_of": 1}', 0)

    code, said = complaint(capsys, "search", "resume", "old")

    assert code == 2
    assert "another version of genba" in said


def test_the_list_of_studies_tells_their_state(plant, capsys):
    with plant.open_store() as store:
        first = store.studies.create("first", "{}", 0)
        store.studies.set_stage(first.id, "search")
        store.studies.fail(first.id, "no candidate meets all limits")

    assert main(["search", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["stage"] == "search"
    assert listed["failed_because"] == "no candidate meets all limits"
    assert main(["search", "list"]) == 0
    assert "first" in capsys.readouterr().out


def test_an_empty_list_says_what_to_run(plant, capsys):
    assert main(["search", "list"]) == 0

    assert "genba search run" in capsys.readouterr().out


def test_the_schema_is_json(plant, capsys):
    assert main(["search", "schema"]) == 0

    assert "devices" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("content", [b"", b"no zip"], ids=["empty", "text"])
def test_a_bundle_that_is_none_is_a_failure(plant, capsys, content):
    Path("broken.zip").write_bytes(content)

    code, said = complaint(capsys, "bundle", "verify", "broken.zip")

    assert code == 1
    assert "broken.zip is not intact" in said


def test_a_bundle_that_is_not_there_is_a_usage_error(plant, capsys):
    code, said = complaint(capsys, "bundle", "verify", "none.zip")

    assert code == 2
    assert "there is no bundle none.zip" in said


def command_names(app: Any, prefix: str = "") -> list[str]:
    names = [prefix + (c.name or c.callback.__name__) for c in app.registered_commands]
    for group in app.registered_groups:
        names += command_names(group.typer_instance, f"{group.name} ")
    return names


def test_every_command_stands_in_the_readme():
    from host.cli.app import app

    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    commands = [f"genba {name}" for name in command_names(app)]

    assert len(commands) > 10
    assert [command for command in commands if f"`{command}" not in readme] == []


def test_help_is_quick_because_nothing_heavy_is_loaded():
    script = (
        "import sys; from host.__main__ import main; main(['search', '--help']); "
        "print(*sorted({'torch', 'pymoo', 'matplotlib', 'onnx', 'grpc'} & set(sys.modules)))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )

    assert ran.stdout.splitlines()[-1] == ""
