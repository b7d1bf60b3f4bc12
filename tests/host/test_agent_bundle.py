"""The agent on a USB stick: what is put on it, and what its installer does on a device."""

import base64
import csv
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host.agent_bundle.agent_wheel import build_agent_wheel
from host.agent_bundle.bundle import AgentBundle, bundle_name, write_agent_bundle
from host.agent_bundle.recipes import (
    ARCHITECTURES,
    PIP,
    Recipe,
    UnknownCombinationError,
    recipe_for,
)
from host.agent_bundle.wheels import MissingWheelError, NoIndexError, NoSuchFolderError, Wheels
from host.cli.app import run
from host.errors import UsageError
from protos.machines import Pin

PYTHON = "{}.{}".format(*sys.version_info[:2])
PURE = ("protobuf", "typing-extensions", "pip", "flatbuffers", "packaging")


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def put_wheel(folder: Path, pin: Pin, tag: str) -> None:
    """An empty package that pip takes for the real one."""
    name = pin.name.replace("-", "_")
    info = f"{name}-{pin.version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{pin.version}-{tag}.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {pin.name}\nVersion: {pin.version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


def put_wheels(folder: Path, recipe: Recipe) -> Path:
    folder.mkdir()
    machine = recipe.machine
    cp = f"cp{machine.python.replace('.', '')}"
    for pin in (PIP, *recipe.pins):
        native = f"{cp}-{cp}-linux_{machine.architecture}"
        put_wheel(folder, pin, "py3-none-any" if pin.name in PURE else native)
    return folder


def unpacked(bundle: AgentBundle, folder: Path) -> Path:
    with tarfile.open(bundle.path) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def pi_recipe() -> Recipe:
    return recipe_for("armv7l", "3.11")


@pytest.fixture(scope="module")
def pi_wheels(tmp_path_factory: pytest.TempPathFactory, pi_recipe: Recipe) -> Path:
    return put_wheels(tmp_path_factory.mktemp("wheels") / "pi", pi_recipe)


@pytest.fixture(scope="module")
def pi_bundle(
    tmp_path_factory: pytest.TempPathFactory, pi_recipe: Recipe, pi_wheels: Path
) -> AgentBundle:
    output = tmp_path_factory.mktemp("bundles") / "pi.tar.gz"
    return write_agent_bundle(pi_recipe, Wheels(pi_wheels), output, quiet)


@pytest.fixture(scope="module")
def pi_stick(tmp_path_factory: pytest.TempPathFactory, pi_bundle: AgentBundle) -> Path:
    return unpacked(pi_bundle, tmp_path_factory.mktemp("stick"))


# Which versions on which machine.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_an_agent_for_the_python_of_debian_12(architecture: str) -> None:
    recipe = recipe_for(architecture, "3.11")

    names = {pin.name for pin in recipe.pins}
    assert {"grpcio", "protobuf", "typing-extensions"} <= names
    assert ("psutil" in names) != ("psutil" in recipe.apt)
    assert recipe.machine.bits == (64 if "64" in architecture else 32)


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_numpy_on_64_bit_starts_on_old_processors_and_suits_the_runtimes(python: str) -> None:
    recipe = recipe_for("x86_64", python)

    versions = {pin.name: pin.version for pin in recipe.pins}
    numpy = tuple(int(part) for part in versions["numpy"].split("."))
    assert numpy < (2, 4)
    assert "tflite-runtime" not in versions or numpy < (2,)
    assert recipe.runtimes == ("onnx", "tflite", "ncnn")


def test_a_raspberry_pi_with_32_bit_takes_numpy_and_psutil_from_its_own_system() -> None:
    recipe = recipe_for("armv7l", "3.11")

    assert recipe.runtimes == ("tflite", "ncnn")
    assert dict(recipe.apt) == {"psutil": "python3-psutil", "numpy": "python3-numpy"}
    assert "numpy" not in {pin.name for pin in recipe.pins}


@pytest.mark.parametrize(
    ("architecture", "python", "cpu", "runtimes", "modules"),
    [
        ("armv7l", "3.11", "cortex-a9", ("ncnn",), {"grpc", "google.protobuf", "psutil", "numpy"}),
        ("armv7l", "3.11", "Cortex-A8", ("ncnn",), {"grpc", "google.protobuf", "psutil", "numpy"}),
        ("armv7l", "3.9", "", ("tflite", "ncnn"), {"grpc", "psutil", "numpy"}),
        ("armv7l", "3.13", "", ("onnx", "ncnn"), {"psutil", "numpy", "onnxruntime"}),
        ("i686", "3.11", "atom", ("ncnn",), {"numpy"}),
        ("i686", "3.9", "", ("ncnn",), set()),
        ("x86_64", "3.13", "core2", ("onnx", "ncnn"), set()),
        ("x86_64", "3.11", "core2", ("onnx", "tflite", "ncnn"), set()),
    ],
)
def test_an_old_cpu_gets_what_runs_on_it(
    architecture: str, python: str, cpu: str, runtimes: tuple[str, ...], modules: set[str]
) -> None:
    recipe = recipe_for(architecture, python, cpu=cpu)

    assert recipe.runtimes == runtimes
    assert set(recipe.apt) == modules
    assert set(recipe.missing) == {"onnx", "tflite", "ncnn"} - set(runtimes)


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "ncnn"])
def test_a_bundle_holds_only_what_the_chosen_runtime_needs(runtime: str) -> None:
    names = {pin.name for pin in recipe_for("x86_64", "3.11", [runtime]).pins}

    libraries = {"onnx": "onnxruntime", "tflite": "tflite-runtime", "ncnn": "ncnn"}
    assert names & set(libraries.values()) == {libraries[runtime]}
    assert "numpy" in names


def test_an_agent_without_a_runtime_needs_no_numpy() -> None:
    names = {pin.name for pin in recipe_for("x86_64", "3.11", ["none"]).pins}

    assert names == {"grpcio", "protobuf", "typing-extensions", "psutil"}


@pytest.mark.parametrize(
    ("architecture", "python", "runtimes", "text"),
    [
        ("ppc", "3.11", [], "the architectures are x86_64, aarch64, armv7l and i686"),
        ("armv6l", "3.11", [], "die by SIGILL on an ARMv6 CPU"),
        ("armv6l", "3.14", [], "with any Python"),
        ("x86_64", "3.8", [], "there is one for 3.9, 3.10, 3.11, 3.12 and 3.13"),
        ("x86_64", "3", [], "no agent is known for x86_64 with Python 3"),
        ("armv7l", "3.10", [], "there is one for 3.9, 3.11 and 3.13"),
        ("armv7l", "3.11", ["onnx"], "use --runtime tflite or ncnn; .* Python 3.13 has it"),
        ("armv7l", "3.13", ["tflite"], "Python 3.9 or 3.11 has it"),
        ("armv7l", "3.13", ["onnx", "tflite"], "use --runtime onnx or ncnn"),
        ("i686", "3.11", ["onnx"], "not built for 32-bit x86.*: use --runtime ncnn$"),
        ("x86_64", "3.11", ["torch"], "the runtimes are onnx, tflite, ncnn and none"),
        ("x86_64", "3.11", ["none", "onnx"], "stands alone"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(
    architecture: str, python: str, runtimes: Sequence[str], text: str
) -> None:
    with pytest.raises(UnknownCombinationError, match=text) as raised:
        recipe_for(architecture, python, runtimes)

    assert isinstance(raised.value, UsageError)


@pytest.mark.parametrize(
    ("architecture", "python", "cpu", "text"),
    [
        ("x86_64", "3.11", "z80", r"--cpu takes sse4\.1 \(penryn, .*\); no-sse4\.1 \(core2"),
        ("aarch64", "3.11", "cortex-a9", "no CPU 'cortex-a9' is known for aarch64"),
        ("armv7l", "3.13", "cortex-a9", r"Debian 13's gRPC aborts .* stay on Debian 12"),
        ("i686", "3.11", "pentium3", "need SSE2"),
    ],
)
def test_a_cpu_that_is_unknown_or_too_old_is_refused_with_the_reason(
    architecture: str, python: str, cpu: str, text: str
) -> None:
    with pytest.raises(UnknownCombinationError, match=text):
        recipe_for(architecture, python, cpu=cpu)


# The wheel of the agent.


def test_the_wheel_holds_the_agent_and_nothing_of_the_host(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_agent_wheel(tmp_path)) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith("/METADATA"))
        metadata = wheel.read(info).decode()
        entry_points = wheel.read(info.replace("METADATA", "entry_points.txt")).decode()

    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"device_agent", "protos"}
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name]
    assert "device_agent/reference/reference.onnx" in names
    assert "protos/machines.json" in names
    assert entry_points == "[console_scripts]\ngenba-agent = device_agent.__main__:main\n"
    assert "Requires-Dist: grpcio" in metadata
    assert "torch" not in metadata
    assert "Summary: Search, measure and ship small neural networks" in metadata


def test_the_wheel_records_the_hash_of_each_of_its_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_agent_wheel(tmp_path)) as wheel:
        record = next(name for name in wheel.namelist() if name.endswith("/RECORD"))
        rows = list(csv.reader(io.StringIO(wheel.read(record).decode())))
        contents = {name: wheel.read(name) for name in wheel.namelist()}

    assert {row[0] for row in rows} == set(contents)
    for name, digest, size in rows:
        if name != record:
            sha256 = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest()).decode()
            assert digest == f"sha256={sha256.rstrip('=')}"
            assert int(size) == len(contents[name])


# The archive.


def test_the_same_wheels_make_the_same_bytes(
    pi_recipe: Recipe, pi_wheels: Path, tmp_path: Path
) -> None:
    small = replace(pi_recipe, pins=pi_recipe.pins[:1])

    one = write_agent_bundle(small, Wheels(pi_wheels), tmp_path / "one.tar.gz", quiet)
    two = write_agent_bundle(small, Wheels(pi_wheels), tmp_path / "two.tar.gz", quiet)

    assert one.sha256 == two.sha256
    assert one.path.read_bytes() == two.path.read_bytes()


def test_the_archive_holds_one_folder_with_all_that_is_needed(
    pi_stick: Path, pi_recipe: Recipe
) -> None:
    files = {str(path.relative_to(pi_stick)) for path in pi_stick.rglob("*") if path.is_file()}

    assert pi_stick.name == bundle_name(pi_recipe)
    wheels = {name for name in files if name.startswith("wheels/")}
    assert files - wheels == {
        "MANIFEST.json",
        "README.md",
        "SHA256SUMS",
        "install.sh",
        "requirements.txt",
    }
    assert "wheels/grpcio-1.80.1-cp311-cp311-linux_armv7l.whl" in wheels
    assert len(wheels) == len(pi_recipe.pins) + 2  # pip, and the agent
    assert os.access(pi_stick / "install.sh", os.X_OK)


def test_the_checksums_name_every_file_and_hold(pi_stick: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=pi_stick,
        capture_output=True,
        text=True,
        check=False,
    )

    files = {path for path in pi_stick.rglob("*") if path.is_file()}
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK\n") == len(files) - 1


def test_the_manifest_tells_versions_hashes_and_where_each_wheel_came_from(
    pi_stick: Path, pi_bundle: AgentBundle
) -> None:
    manifest = json.loads((pi_stick / "MANIFEST.json").read_text())

    assert manifest == pi_bundle.manifest
    assert manifest["cpu"] == "vfpv4"
    assert manifest["debian_packages"] == ["python3-psutil", "python3-numpy"]
    wheels = {wheel["package"]: wheel for wheel in manifest["wheels"]}
    assert wheels["tflite-runtime"]["version"] == "2.14.0"
    assert wheels["tflite-runtime"]["origin"] == "folder of wheels"
    assert wheels["genba"]["origin"] == "the installed genba"
    for wheel in wheels.values():
        data = (pi_stick / "wheels" / wheel["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == wheel["sha256"]


@pytest.mark.parametrize("name", ["README.md", "install.sh"])
def test_the_texts_say_what_this_bundle_is(pi_stick: Path, name: str) -> None:
    text = (pi_stick / name).read_text()

    assert "armv7l" in text
    assert "python3-numpy" in text
    assert "no-vfpv4" in text if name == "install.sh" else "Not onnx: " in text
    assert not [word for word in text.split() if word.startswith("@") and word.endswith("@")]


def test_the_readme_is_english_and_japanese(pi_stick: Path) -> None:
    text = (pi_stick / "README.md").read_text()

    assert "## Install" in text
    assert "## インストール" in text
    assert "onnx は使えません: " in text
    assert text.count("sudo apt install openssl python3-psutil python3-numpy") == 2


def test_a_bundle_for_an_older_cpu_is_told_by_its_name() -> None:
    old = bundle_name(recipe_for("armv7l", "3.11", cpu="cortex-a9"))
    new = bundle_name(recipe_for("armv7l", "3.11", cpu="cortex-a7"))

    assert old.endswith("-armv7l-no-vfpv4-py311-ncnn")
    assert new.endswith("-armv7l-py311-tflite-ncnn")


# Where wheels come from.


def test_all_missing_wheels_are_named_with_the_command_that_fetches_them(
    pi_recipe: Recipe, pi_wheels: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for wheel in pi_wheels.glob("pip-*.whl"):
        (few / wheel.name).write_bytes(wheel.read_bytes())
    few_pins = tuple(pin for pin in pi_recipe.pins if pin.name in ("grpcio", "tflite-runtime"))
    small = replace(pi_recipe, pins=few_pins)

    with pytest.raises(MissingWheelError) as raised:
        write_agent_bundle(small, Wheels(few), tmp_path / "pi.tar.gz", quiet)

    said = str(raised.value)
    assert "lacks grpcio==1.80.1 tflite-runtime==2.14.0" in said
    assert "pip download --no-deps --only-binary=:all: --implementation=cp" in said
    assert "--platform=linux_armv7l" in said
    assert list(tmp_path.iterdir()) == [few]


def test_a_wheel_of_another_machine_does_not_count(tmp_path: Path) -> None:
    pin = Pin("grpcio", "1.80.1")
    put_wheel(tmp_path, pin, "cp311-cp311-linux_x86_64")

    with pytest.raises(MissingWheelError, match=r"lacks grpcio==1\.80\.1"):
        Wheels(tmp_path).fetch([pin], recipe_for("i686", "3.11").machine, tmp_path, quiet)


def test_a_folder_that_is_not_there_is_a_wrong_command(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFolderError, match="no folder of wheels"):
        Wheels(tmp_path / "no").fetch([PIP], recipe_for("i686", "3.11").machine, tmp_path, quiet)


def test_without_a_network_the_way_around_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")

    with pytest.raises(NoIndexError, match="--wheels"):
        Wheels().fetch([PIP], recipe_for("x86_64", "3.11").machine, tmp_path, quiet)


# The command.


def test_the_command_writes_the_archive_into_a_folder_and_says_so_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = put_wheels(tmp_path / "wheels", recipe_for("i686", "3.11"))
    stick = tmp_path / "stick"
    stick.mkdir()

    code = run(
        f"agent-bundle --arch i686 --wheels {wheels} --output {stick} --runtime none --json".split()
    )

    answer = json.loads(capsys.readouterr().out)
    (written,) = stick.iterdir()
    assert code == 0
    assert answer["file"] == str(written)
    assert answer["sha256"] == hashlib.sha256(written.read_bytes()).hexdigest()
    assert answer["manifest"]["architecture"] == "i686"
    assert answer["manifest"]["runtimes"] == []


def test_a_combination_that_does_not_exist_ends_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(["agent-bundle", "--arch", "armv7l", "--runtime", "onnx"])

    assert code == 2
    assert "use --runtime tflite or ncnn" in capsys.readouterr().err


def test_the_command_for_an_old_cpu_says_what_is_missing_there_and_what_debian_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = put_wheels(tmp_path / "wheels", recipe_for("armv7l", "3.11", cpu="cortex-a9"))

    code = run(
        f"agent-bundle --arch armv7l --cpu cortex-a9 --wheels {wheels} --output {tmp_path}".split()
    )

    said = capsys.readouterr().out
    assert code == 0
    assert "not tflite: tflite-runtime for 32-bit ARM needs VFPv4" in said
    assert "Debian's python3-grpcio, python3-protobuf, python3-psutil, python3-numpy" in said


# The installer.


def install(stick: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(stick / "install.sh"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        **more,
    )


def python_that_says(folder: Path, answer: str) -> str:
    """A Python of another machine that has no packages."""
    path = folder / "python3"
    path.write_text(f'#!/bin/sh\ncase "$*" in *calcsize*) echo "{answer}" ;; *) exit 1 ;; esac\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            "3.11 64 aarch64",
            "is a 64-bit aarch64: make one with `genba agent-bundle --arch aarch64",
        ),
        ("3.11 64 x86_64", "is a 64-bit x86_64"),
        ("3.11 32 x86_64", "is a 32-bit i686"),
        ("3.11 32 armv6l", "no agent is known for this machine (32-bit Python on armv6l)"),
        (
            "3.12 32 armv7l",
            "is 3.12: make one with `genba agent-bundle --arch armv7l --python 3.12`",
        ),
        ("3.11 32 armv7l", "sudo apt install python3-psutil python3-numpy"),
        ("3.11 32 aarch64", "sudo apt install python3-psutil python3-numpy"),
    ],
)
def test_the_installer_looks_at_the_python_and_not_at_the_kernel(
    pi_stick: Path, tmp_path: Path, answer: str, text: str
) -> None:
    python = python_that_says(tmp_path, answer)

    done = install(pi_stick, "--python", python, "--prefix", str(tmp_path / "opt"))

    assert done.returncode == 1
    assert text in done.stderr
    assert not (tmp_path / "opt").exists()


def test_the_installer_finds_a_damaged_file(pi_bundle: AgentBundle, tmp_path: Path) -> None:
    stick = unpacked(pi_bundle, tmp_path)
    with (stick / "requirements.txt").open("a") as file:
        file.write("evil==1.0\n")

    done = install(stick, "--prefix", "/nonexistent/opt")

    assert done.returncode == 1
    assert "requirements.txt: FAILED" in done.stdout
    assert "damaged or missing" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--faster",), "unknown option --faster"),
        (("--prefix",), "--prefix needs a value"),
        (("--prefix", "here"), "needs an absolute path"),
        (("--python", "/nonexistent/python3"), "that starts here"),
    ],
)
def test_a_wrong_option_of_the_installer_is_a_sentence(
    pi_stick: Path, arguments: Sequence[str], text: str
) -> None:
    done = install(pi_stick, *arguments)

    assert done.returncode == 1
    assert text in done.stderr


def test_the_installer_explains_itself(pi_stick: Path) -> None:
    done = install(pi_stick, "--help")

    assert done.returncode == 0
    assert "--token" in done.stdout
    assert "set -eu" not in done.stdout


@pytest.fixture(scope="session")
def own_stick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with real wheels for this very machine and Python."""
    folder = tmp_path_factory.mktemp("own")
    try:
        recipe = recipe_for(platform.machine(), PYTHON, ["onnx"])
        bundle = write_agent_bundle(recipe, Wheels(), folder / "own.tar.gz", quiet)
    except (NoIndexError, UnknownCombinationError) as error:
        pytest.skip(str(error))
    return unpacked(bundle, tmp_path_factory.mktemp("stick"))


@pytest.mark.slow
def test_a_device_without_a_network_gets_a_working_agent(own_stick: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "HOME": str(tmp_path)}
    where = ("--prefix", str(tmp_path / "opt"), "--home", str(tmp_path / "home"))

    done = install(own_stick, "--python", sys.executable, *where, env=environ)
    again = install(own_stick, "--python", sys.executable, *where, env=environ)

    assert done.returncode == 0, done.stderr
    assert f"enroll --home {tmp_path / 'home'} --token TOKEN" in done.stdout
    assert "installing" not in again.stdout
    agent = tmp_path / "opt" / "bin" / "genba-agent"
    doctor = json.loads(said_by(agent, "doctor", "--json", "--home", str(tmp_path / "home")))
    checks = {check["name"]: check for check in doctor}
    assert checks["runtime onnx"]["state"] == "ok", checks["runtime onnx"]
    status = json.loads(said_by(agent, "status", "--json", "--home", str(tmp_path / "home")))
    assert status["identity"] is None
    assert status["facts"]["runtimes"][0]["works"] is True
    assert not (agent.resolve().parent / "genba").exists()


def said_by(agent: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(agent), *arguments], capture_output=True, text=True, check=False, env=environ, cwd="/"
    ).stdout
