"""What is shown on each board, step by step: install, the agent's own tests, enrolment,
measurements of one network in every form, and a crash that the agent survives.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from protos.machines import RUNTIMES
from tests.legacy.boards import Board
from tests.legacy.bundles import REPOSITORY, Bundle, make_bundle, test_tools
from tests.legacy.errors import LegacyError
from tests.legacy.plant import MODELS, Plant, end
from tests.legacy.roots import STORE, Machine, prepared_root
from tests.legacy.table import Cell, Line

HOME = "/var/lib/genba-agent"
AGENT = "/opt/genba-agent/bin/genba-agent"
_INSTALL_SECONDS = 900.0
_TESTS_SECONDS = 900.0
_START_SECONDS = 300.0
_LOOK_SECONDS = 0.2
# Long enough to be in the middle of it when the worker is killed.
_LONG_PRESET = "standard"
# The files of tests/device_agent that run on a board in about a minute. Of the others,
# test_agent_over_mtls, test_link, test_enrol, test_identity, test_renewal and test_lease_proof need
# `cryptography` for a host of their own (the real host below is one); test_cage*, test_worker and
# test_faults need what an emulator does not have (Landlock, seccomp, a limit of addresses), and
# test_clocks a C compiler; test_jobs, test_measuring, test_preflight and test_interference compare
# times, and test_memory what is resident, which is the emulator's; test_runtimes knows that
# XNNPACK is on, which it is not on 32-bit ARM; test_tflite_runtime_env needs a network;
# test_service_* and test_doctor look at systemd and the clock of this machine.
OWN_TESTS = (
    *("codec", "state", "system", "outbox", "steadiness", "turn", "sensors", "throttle"),
    *("tflite_scan", "ncnn_scan", "runtime_contract"),
)
# What takes minutes there, or looks at the clock: thousands of made-up files for one scan, which is
# pure Python; workers by the dozen; how quick an interval is computed; texts for which Hypothesis
# builds a table of all characters first.
_NOT = " and ".join(
    f"not {name}"
    for name in (
        *("flipped_bytes", "offsets_to_anywhere", "noise_behind", "truncated_file"),
        *("outputs_are_bounded", "very_many_samples"),
        *("value_survives_with_its_name", "samples_survive_json"),
    )
)
_PYTEST_SETTINGS = """[pytest]
addopts = --import-mode=importlib -p no:cacheprovider -q --durations=12
markers =
    slow: takes more than ten seconds
    alone: nothing else runs beside it
"""
_FEW_EXAMPLES = """from hypothesis import HealthCheck, settings

settings.register_profile(
    "board", deadline=None, max_examples=10, suppress_health_check=list(HealthCheck)
)
settings.load_profile("board")
"""
_building = threading.Lock()
Say = Callable[[str], None]


def show(board: Board, plant: Plant, say: Say) -> Line:
    """Everything of one board; what goes wrong is in the line, and the rest goes on without it."""
    folder = STORE / "runs" / board.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    line = Line(board.name, board.what, board.architecture, board.python, board.cpu)
    try:
        with _building:
            bundle = make_bundle(board, folder)
            root = prepared_root(board, bundle.debian_packages)
        machine = Machine(board, root, folder)
    except LegacyError as error:
        line.cells["install"] = Cell.failed(str(error))
        return line
    line.cells["install"] = _timed(lambda: _install(machine, bundle))
    say(f"{board.name}: install {line.cells['install'].short}")
    if line.cells["install"].is_green:
        line.cells["tests"] = _timed(lambda: _own_tests(machine))
        say(f"{board.name}: own tests {line.cells['tests'].short}")
        _work(machine, bundle, plant, line, say)
    return line


def _timed(step: Callable[[], str]) -> Cell:
    began = time.monotonic()
    try:
        note = step()
    except LegacyError as error:
        return Cell.failed(str(error), time.monotonic() - began)
    except subprocess.TimeoutExpired as error:
        return Cell.failed(f"not done after {error.timeout:.0f} s", time.monotonic() - began)
    return Cell.green(time.monotonic() - began, note)


def _install(machine: Machine, bundle: Bundle) -> str:
    with tarfile.open(bundle.archive) as archive:
        archive.extractall(machine.outside("/w"), filter="data")
    done = machine.run(
        ["/bin/sh", f"/w/{bundle.folder}/install.sh"], timeout_seconds=_INSTALL_SECONDS
    )
    if done.returncode != 0:
        raise LegacyError(f"install.sh: {_last(done)}")
    return f"{bundle.archive.stat().st_size / 1e6:.0f} MB without a network"


def _own_tests(machine: Machine) -> str:
    (machine.outside("/w") / "tests/device_agent").mkdir(parents=True)
    (machine.outside("/w") / "pytest").mkdir()
    (machine.outside("/w") / "pytest.ini").write_text(_PYTEST_SETTINGS, encoding="ascii")
    (machine.outside("/w") / "tests/conftest.py").write_text(_FEW_EXAMPLES, encoding="ascii")
    machine.binds["/w/tests/device_agent"] = str(REPOSITORY / "tests/device_agent")
    machine.binds["/w/pytest"] = str(test_tools())
    files = [f"/w/tests/device_agent/test_{name}.py" for name in OWN_TESTS]
    options = ["-c", "/w/pytest.ini", "--rootdir=/w", "-k", _NOT]
    done = machine.run(
        [python_of(machine), "-m", "pytest", *options, *files],
        {"PYTHONPATH": "/w/pytest", "PYTHONDONTWRITEBYTECODE": "1"},
        timeout_seconds=_TESTS_SECONDS,
    )
    (machine.folder / "tests.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode != 0:
        raise LegacyError(f"{_last(done)} ({machine.folder / 'tests.log'})")
    return _last(done).strip("= ")


def python_of(machine: Machine) -> str:
    """The interpreter that the agent was installed with, as the board names it."""
    return str(machine.outside(AGENT).readlink().with_name("python"))


def _work(machine: Machine, bundle: Bundle, plant: Plant, line: Line, say: Say) -> None:
    name = machine.board.name
    line.cells["enrol"] = _timed(lambda: _enrol(machine, plant.token(name)))
    say(f"{name}: enrol {line.cells['enrol'].short}")
    if not line.cells["enrol"].is_green:
        return
    with (machine.folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            machine.command([AGENT, "run", "--home", HOME], network=True),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            for runtime in RUNTIMES:
                line.cells[runtime] = (
                    _timed(lambda runtime=runtime: _measure(plant, name, runtime))  # type: ignore[misc]
                    if runtime in bundle.runtimes
                    else Cell.absent(bundle.missing.get(runtime, "it is not in the bundle"))
                )
                say(f"{name}: {runtime} {line.cells[runtime].short}")
            if bundle.runtimes:
                last = bundle.runtimes[-1]
                line.cells["crash"] = _timed(lambda: _crash(plant, name, last, agent))
                say(f"{name}: crash {line.cells['crash'].short}")
                line.cells["marked"] = _timed(lambda: _refused(plant, name))
        finally:
            end(agent)


def _enrol(machine: Machine, token: str) -> str:
    done = machine.run(
        [AGENT, "enroll", "--home", HOME, "--token", token],
        network=True,
        timeout_seconds=_START_SECONDS,
    )
    if done.returncode != 0:
        raise LegacyError(_last(done))
    return ""


def _measure(plant: Plant, device: str, runtime: str) -> str:
    told, record = plant.measure(device, MODELS[runtime])
    if told.status != 0 or record is None or record["kind"] != "measurement":
        raise LegacyError(told.last)
    codes = [reason["code"] for reason in record["verdict"]["reasons"]]
    if record["verdict"]["level"] != "REJECT" or "EMULATED" not in codes:
        raise LegacyError(f"the figure is not marked as emulated, but {record['verdict']}")
    return f"{record['runtime_library']} {record['runtime_version']}"


def _crash(plant: Plant, device: str, runtime: str, agent: subprocess.Popen[bytes]) -> str:
    """Kill a worker as a CPU does that lacks an instruction: a result comes of it, and the next
    job is done by the same agent.
    """
    measuring = plant.start(*plant.measuring(device, MODELS[runtime], _LONG_PRESET))
    try:
        os.kill(_worker_of(agent.pid, measuring), signal.SIGILL)
        output, error = measuring.communicate(timeout=_START_SECONDS)
    finally:
        end(measuring)
    lines = [json.loads(text) for text in output.splitlines() if text.startswith("{")]
    kinds = [record["failure"]["kind"] for record in lines if record["kind"] == "failure"]
    if kinds != ["worker_crashed"]:
        raise LegacyError(f"a killed worker came back as {kinds or error.strip()[-200:]}")
    if agent.poll() is not None:
        raise LegacyError(f"the agent died with its worker (status {agent.returncode})")
    return _measure(plant, device, runtime)


def _worker_of(agent: int, measuring: subprocess.Popen[str]) -> int:
    """The pid of the process that runs the model, once there is one."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and measuring.poll() is None:
        for pid in children_of(agent):
            if b"measure" in _words_of(pid):
                _require_emulated(pid)
                # Past its start, into the work.
                time.sleep(2.0)
                return pid
        time.sleep(_LOOK_SECONDS)
    raise LegacyError("no worker was started for the job")


def _require_emulated(pid: int) -> None:
    program = Path(f"/proc/{pid}/exe").readlink().name
    if not program.startswith("qemu-"):
        raise LegacyError(f"the worker runs on the CPU of this machine ({program}), not emulated")


def children_of(pid: int) -> list[int]:
    """The processes that a process started and that are still there."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in listed.split()]


def _words_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _refused(plant: Plant, device: str) -> str:
    """Nothing may be fitted on figures of an emulated device."""
    told = plant.genba("device", "calibrate", device)
    if told.status != 2 or "is emulated" not in told.error:
        raise LegacyError(f"an emulated device was not refused: {told.last}")
    return ""


def _last(done: subprocess.CompletedProcess[Any]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"it ended with status {done.returncode}"
