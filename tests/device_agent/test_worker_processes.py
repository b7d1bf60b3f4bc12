"""What a worker leaves behind does not stay, and does not stop the agent."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from device_agent.codec import from_tagged_json, to_tagged_json
from device_agent.errors import WorkerCrashedError
from device_agent.files import remove_tree
from device_agent.jobs import _keep
from device_agent.processes import Cancellation, run_worker
from device_agent.spool import sweep
from device_agent.work import Failure, FailureKind


def is_alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return False


def test_a_child_does_not_outlive_a_worker_that_ended_well() -> None:
    script = "sleep 60 >/dev/null 2>&1 & echo $!"

    ended = run_worker(["sh", "-c", script], timeout_seconds=20, cancellation=Cancellation())

    assert ended.status == 0
    limit = time.monotonic() + 5
    while is_alive(int(ended.stdout)):
        assert time.monotonic() < limit, "the child lives on"
        time.sleep(0.01)


def test_a_pipe_in_place_of_outputs_does_not_hold_up_the_agent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "written")

    with pytest.raises(WorkerCrashedError, match="no file"):
        _keep(tmp_path / "written", tmp_path / "outputs", 1000)


def test_a_folder_deeper_than_the_interpreter_goes_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    at = os.open(deep, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)

    sweep(tmp_path, keep=())
    (tmp_path / "other" / "closed").mkdir(parents=True)
    (tmp_path / "other" / "closed").chmod(0)
    remove_tree(tmp_path / "other")

    assert not (tmp_path / "other").exists()
    assert not deep.exists()


def test_half_a_character_becomes_one_that_a_message_can_hold() -> None:
    text = to_tagged_json(Failure(FailureKind.TIMEOUT, "\ud800"))

    failure = from_tagged_json((Failure,), text)

    assert failure.message == "?"
