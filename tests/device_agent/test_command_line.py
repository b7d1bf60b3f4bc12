from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent import VERSION
from device_agent.state import Home

HEAVY = ("numpy", "onnx", "onnxruntime", "torch", "cryptography", "host", "cost_models", "psutil")


def genba_agent(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "device_agent", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize(
    "module", ["device_agent.__main__", "device_agent.session", "device_agent.enrol"]
)
def test_importing_the_agent_loads_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"

    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == []


def test_a_worker_loads_no_grpc() -> None:
    script = "import sys, device_agent.worker; print('grpc' in sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == "False"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("run", "--forever"),
        ("enroll",),
        ("enroll", "--token", "no token"),
        ("install", "--print", "--user", "No User"),
    ],
)
def test_a_wrong_command_is_usage(arguments: Any, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path / "home")) if arguments[-1:] == ("no token",) else ()

    done = genba_agent(*arguments, *home)

    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_run_without_enrolment_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    done = genba_agent("run", "--home", str(tmp_path))

    assert done.returncode == 1
    assert "genba-agent enroll --token" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_printed() -> None:
    done = genba_agent("--version")

    assert done.returncode == 0
    assert done.stdout.startswith("genba-agent ")


def test_the_version_written_in_the_agent_is_that_of_the_distribution() -> None:
    metadata = pytest.importorskip("importlib.metadata")
    try:
        installed = metadata.version("genba")
    except metadata.PackageNotFoundError:
        pytest.skip("genba is not installed here, only importable")

    assert installed == VERSION


def test_enrolling_and_running_by_command(
    host: Any, tmp_path: Path, make_model: Callable[..., bytes]
) -> None:
    pytest.importorskip("onnxruntime")
    home = str(tmp_path / "home")
    host.offer(make_model())

    enrolment = genba_agent("enroll", "--token", host.token, "--home", home)
    again = genba_agent("enroll", "--token", host.token, "--home", home)
    run = genba_agent("run", "--once", "--home", home)

    assert enrolment.returncode == 0, enrolment.stderr
    assert "enrolled as press-3" in enrolment.stdout
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert run.returncode == 0, run.stderr
    assert len(host.reports) == 1


def test_status_is_for_people_and_for_programs(enrolled: Home) -> None:
    text = genba_agent("status", "--home", str(enrolled.path))
    data = json.loads(genba_agent("status", "--json", "--home", str(enrolled.path)).stdout)

    assert text.returncode == 0
    assert "press-3" in text.stdout
    assert "onnxruntime" in text.stdout
    assert data["identity"]["device_name"] == "press-3"
    assert data["facts"]["cpu_cores_logical"] >= 1
    assert data["facts"]["runtimes"][0]["name"] == "onnx"
    assert "guard network" in text.stdout
    assert {"network", "files"} <= {guard["name"] for guard in data["facts"]["guards"]}
    assert "PRIVATE" not in text.stdout + json.dumps(data)


def test_status_of_a_new_device_says_that_it_is_not_enrolled(tmp_path: Path) -> None:
    done = genba_agent("status", "--home", str(tmp_path / "new"))

    assert done.returncode == 0
    assert "not enrolled" in done.stdout
    assert not (tmp_path / "new").exists()


def test_the_doctor_is_for_people_and_for_programs(tmp_path: Path) -> None:
    home = str(tmp_path / "new")

    text = genba_agent("doctor", "--home", home)
    done = genba_agent("doctor", "--json", "--home", home)

    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["enrolment"]["state"] == "warn"
    assert "genba-agent enroll" in checks["enrolment"]["mend"]
    expected = {"governor", "runtime onnx", "guard network", "schedstat", "free memory"}
    assert expected <= set(checks)
    fails = any(check["state"] == "fail" for check in checks.values())
    assert done.returncode == text.returncode == int(fails)
    assert "not enrolled" in text.stdout
    assert "mend:" in text.stdout
    assert not (tmp_path / "new").exists()


def test_a_damaged_configuration_is_found_by_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")

    done = genba_agent("doctor", "--json", "--home", str(tmp_path))

    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 1
    assert checks["configuration"]["state"] == "fail"


def test_status_into_a_pipe_that_closes_ends_quietly(tmp_path: Path) -> None:
    script = f"{sys.executable} -m device_agent status --home {tmp_path} | true"

    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stderr == ""


def test_the_unit_is_only_written_where_another_folder_is_named(tmp_path: Path) -> None:
    python = Path(sys.executable).resolve()
    hidden = any(str(python).startswith(f"{name}/") for name in ("/home", "/root", "/tmp"))

    done = genba_agent("install", "--unit-dir", str(tmp_path))

    if hidden:
        assert done.returncode == 1
        assert "which a service does not see" in done.stderr
        assert list(tmp_path.iterdir()) == []
    else:
        assert done.returncode == 0, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["genba-agent.service"]


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="this system runs systemd")
@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_without_systemd_there_is_no_service(command: str) -> None:
    done = genba_agent(command)

    assert done.returncode == 1
    assert "not started by systemd" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_running_agent_tells_systemd_of_its_start_and_its_end(
    host: Any, enrolled: Home, tmp_path: Path
) -> None:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(60)
    environ = {
        **os.environ,
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "3000000",
    }
    command = [sys.executable, "-m", "device_agent", "run", "--home", str(enrolled.path)]

    with (
        contextlib.closing(told),
        subprocess.Popen(
            command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as agent,
    ):
        heard: list[str] = []
        while {"READY=1", "WATCHDOG=1"} - set(heard):
            heard.append(told.recv(4096).decode())
        agent.terminate()
        while heard[-1] != "STOPPING=1":
            heard.append(told.recv(4096).decode())
        code = agent.wait(timeout=30)

    assert code == 0
    assert any(message.startswith("STATUS=attached to") for message in heard)
