"""What the agent does about a worker that is too slow, too large, or flees, whatever it says."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.cage.stragglers import boot_seconds, kill_stragglers
from device_agent.errors import ResourceError, WorkerCrashedError
from device_agent.jobs import Bench, default_rss_bytes, run_job, stage_seconds
from device_agent.processes import Cancellation, Ended, _Answer, default_worker_command, run_worker
from device_agent.stages import PAUSE, Mark, Stage, StageTimeoutError, read_mark
from device_agent.vigil import Watch
from device_agent.work import (
    Failure,
    FailureKind,
    MeasuredSamples,
    MeasureSpec,
    ProbeSpec,
    Readiness,
)

PRELUDE = (
    "import json, os, signal, sys, time\n"
    f"sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})\n"
    "from device_agent.stages import Line, Stage\n"
    "line = Line(1, 0)\n"
)
# The limits of the cage without its filter, as on a kernel that has none.
LIMITS = (
    "from device_agent.cage.limits import limit_resources\n"
    "from device_agent.requests import Confinement\n"
    "limit_resources(Confinement(2 << 30, 0, ()))\n"
)


class Listener:
    """An agent that notes when it was called."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.alive_at: list[float] = []
        self.paused_at: list[float] = []
        self._seconds = seconds

    def alive(self) -> None:
        self.alive_at.append(time.monotonic())

    def between_blocks(self) -> None:
        self.paused_at.append(time.monotonic())
        time.sleep(self._seconds)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + code]


def watched(code: str, *, seconds: float = 20.0, **watch: Any) -> Ended:
    return run_worker(
        python(code),
        timeout_seconds=seconds,
        cancellation=Cancellation(),
        watch=Watch(**watch),
    )


def is_running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    limit = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < limit, "it lives on"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "stage", "words"),
    [
        ("time.sleep(60)", Stage.START, "starting the worker took longer than 1 s"),
        ("line.begin(Stage.LOAD); time.sleep(60)", Stage.LOAD, "loading the model took longer"),
        ("line.begin(Stage.SCAN)\nwhile True: pass", Stage.SCAN, "scanning the model took"),
    ],
)
def test_a_stage_that_lasts_too_long_ends_the_worker_and_is_named(
    code: str, stage: Stage, words: str
) -> None:
    started = time.monotonic()

    ended = watched(code, stage_seconds={stage: 0.6})

    assert isinstance(ended.reason, StageTimeoutError)
    assert words in str(ended.reason)
    assert not ended.timed_out
    assert ended.status == -signal.SIGKILL
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "lie",
    [
        "line.begin(Stage.LOAD)",
        "line.begin(Stage.START); line.begin(Stage.LOAD)",
        'os.write(1, b\'{"stage": "eternity"}\\n\')',
        "os.write(2, b'x' * 100)",
    ],
)
def test_a_worker_gains_no_time_by_what_it_says(lie: str) -> None:
    code = f"line.begin(Stage.LOAD)\nwhile True:\n    {lie}\n    time.sleep(0.05)"

    ended = watched(code, stage_seconds={Stage.LOAD: 0.6})

    assert isinstance(ended.reason, StageTimeoutError)


def test_a_worker_that_skips_to_the_last_stage_still_meets_the_end_of_the_job() -> None:
    code = "line.begin(Stage.RUN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass"

    ended = watched(code, seconds=0.6, stage_seconds={Stage.LOAD: 0.1})

    assert ended.timed_out
    assert ended.status == -signal.SIGKILL


def test_at_a_pause_the_worker_stands_still_until_the_agent_is_done() -> None:
    listener = Listener(seconds=0.7)
    code = (
        "line.begin(Stage.MEASURE); began = time.monotonic(); line.pause(); line.pause()\n"
        "print(time.monotonic() - began)"
    )

    ended = watched(code, attention=listener, stage_seconds={Stage.MEASURE: 1.2})

    assert ended.reason is None
    assert len(listener.paused_at) == 2
    assert float(ended.stdout) >= 1.4


def test_a_pause_costs_less_than_a_millisecond() -> None:
    code = (
        "lasted = []\n"
        "for _ in range(101):\n"
        "    began = time.perf_counter(); line.pause()\n"
        "    lasted.append(time.perf_counter() - began)\n"
        "print(sorted(lasted)[50])"
    )

    assert float(watched(code, attention=Listener()).stdout) < 1e-3


def test_without_an_agent_nobody_is_waited_for() -> None:
    done = subprocess.run(
        python("line.pause(); print('went on')"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )

    assert done.stdout.splitlines()[-1] == "went on"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "mark = b'{\"pause\": true}\\n' * 1000\nwhile True: os.write(1, mark)",
            "pauses, and does",
        ),
        ('mark = b\'{"stage": "load"}\\n\' * 1000\nwhile True: os.write(1, mark)', "does not end"),
        ("while True: os.write(1, b'x' * 65536)", "does not end"),
        (
            "os.write(1, b'{\"stage\": \"load\"}\\n')\nwhile True: os.write(1, b'\\n' * 65536)",
            "not end",
        ),
    ],
    ids=["pauses", "stages", "a line", "empty lines"],
)
def test_a_worker_that_never_stops_talking_is_stopped(code: str, words: str) -> None:
    ended = watched(code)

    assert isinstance(ended.reason, WorkerCrashedError)
    assert words in str(ended.reason)
    assert len(ended.stdout) < 1 << 27


def test_while_it_waits_the_agent_shows_about_once_a_second_that_it_lives() -> None:
    listener = Listener()

    watched("time.sleep(2.5)", attention=listener)

    assert 2 <= len(listener.alive_at) <= 3


@pytest.mark.parametrize(
    "code",
    [
        "hoard = bytearray(os.urandom(1 << 20)) * 300; time.sleep(60)",
        "if os.fork() == 0: hoard = bytearray(os.urandom(1 << 20)) * 300\ntime.sleep(60)",
    ],
    ids=["itself", "its child"],
)
def test_a_worker_that_holds_too_much_memory_is_killed_with_the_figures(code: str) -> None:
    ended = watched(code, rss_bytes=200 << 20)

    assert isinstance(ended.reason, ResourceError)
    assert re.search(r"held 3\d\d MiB of memory and may hold 200 MiB", str(ended.reason))


def test_a_bomb_of_processes_is_ended() -> None:
    code = (
        "for _ in range(1500):\n    if os.fork() == 0: time.sleep(60); os._exit(0)\ntime.sleep(60)"
    )

    ended = watched(code)

    assert isinstance(ended.reason, ResourceError)
    assert "threads and processes" in str(ended.reason)


def test_whoever_flees_from_the_group_is_found() -> None:
    code = LIMITS + (
        "resource = __import__('resource')\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.write(1, str(os.getpid()).encode()); os.closerange(0, 64)\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_CPU, (7, 7))\n"
        "        time.sleep(60)\n"
        "    os._exit(0)\n"
        "os.wait(); time.sleep(0.2)\n"
    )

    ended = watched(code)

    assert ended.status == 0, ended.stderr
    wait_until_gone(int(ended.stdout))


def test_whoever_fled_and_goes_on_talking_does_not_hold_up_the_agent() -> None:
    code = LIMITS + (
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while True: os.write(2, b'x' * 4096)\n"
        "print('answer')"
    )
    started = time.monotonic()

    ended = watched(code)

    assert ended.stdout == "answer\n"
    assert time.monotonic() - started < 10


def test_the_worker_of_another_agent_is_left_alone() -> None:
    began = boot_seconds()
    worker = PRELUDE + LIMITS + "print(os.getpid(), flush=True); time.sleep(60)"
    agent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", agent], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        pid = int(other.stdout.readline())

        killed = kill_stragglers(began)
        lives = is_running(pid)

        os.kill(pid, signal.SIGKILL)

    assert killed == 0
    assert lives


MARKS = st.sampled_from([PAUSE, *(Mark(stage) for stage in Stage)])


def said(mark: Mark) -> bytes:
    if mark.stage is None:
        return b'{"pause": true}\n'
    return b'{"stage": "' + mark.stage.value.encode() + b'"}\n'


@given(marks=st.lists(MARKS), rest=st.binary(max_size=200), cuts=st.lists(st.integers(1, 40)))
def test_marks_and_answer_are_told_apart_however_the_pipe_cuts_them(
    marks: list[Mark], rest: bytes, cuts: list[int]
) -> None:
    answer_text = b"{" + rest
    data = b"".join(said(mark) for mark in marks) + answer_text
    heard: list[Mark] = []
    answer = _Answer(heard.append)

    while data:
        size = cuts.pop() if cuts else len(data)
        assert answer.take(data[:size])
        data = data[size:]

    assert heard[: len(marks)] == marks
    if read_mark(answer_text.partition(b"\n")[0]) is None:
        assert heard == marks
        assert answer.text == answer_text.decode("utf-8", "replace")


@given(st.binary(max_size=100))
def test_no_line_of_a_worker_upsets_the_agent(line: bytes) -> None:
    assert read_mark(line) is None or len(line) <= 64


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[" * 64,
        b'{"stage": 1}',
        b'{"stage": ["load"]}',
        b'{"stage": {"a": 1}}',
        b'{"pause": 1, "x": 2}',
        b'{"stage": "load"}' + b" " * 64,
        b"\xff\xfe",
    ],
)
def test_what_is_no_mark_is_none(line: bytes) -> None:
    assert read_mark(line) is None


def test_bounds_of_stages_follow_from_the_job(
    spec: MeasureSpec, quick_readiness: Readiness
) -> None:
    plan = dataclasses.replace(spec.plan, processes=2, budget_seconds=100.0)
    long = dataclasses.replace(spec, plan=plan, timeout_seconds=4000.0)

    bounds = stage_seconds(long)

    assert bounds[Stage.LOAD] == bounds[Stage.FIRST_INFERENCE] == 1000.0
    assert bounds[Stage.MEASURE] == 1050.0
    assert Stage.MEASURE not in stage_seconds(ProbeSpec(long.protocol, quick_readiness, 10.0))


@pytest.fixture
def run(spec: MeasureSpec, tmp_path: Path) -> Any:
    """Run the measurement of a model with such workers."""

    def run_it(command: list[str], model: bytes = b"", attention: Any = None, **bench: Any) -> Any:
        (tmp_path / "model").write_bytes(model)
        return run_job(
            spec,
            {spec.run.model_sha256: tmp_path / "model"},
            Bench(command, 4 << 30, tmp_path, **bench),
            Cancellation(),
            attention,
        )

    return run_it


def test_a_job_whose_model_never_ends_loading_says_so(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.jobs._LEAST_STAGE_SECONDS", 0.5)
    monkeypatch.setattr("device_agent.jobs._LOAD_SHARE", 0.0)

    failure = run(python("line.begin(Stage.LOAD); time.sleep(60)"))

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TIMEOUT
    assert "loading the model took longer than" in failure.message


def test_a_job_that_needs_too_much_memory_says_how_much(run: Any) -> None:
    code = "hoard = bytearray(os.urandom(1 << 20)) * 300; time.sleep(60)"

    failure = run(python(code), rss_bytes=200 << 20)

    assert failure.kind is FailureKind.RESOURCE
    assert "may hold 200 MiB" in failure.message


def test_a_fifth_of_the_memory_is_left_to_others_unless_set() -> None:
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    assert default_rss_bytes() == pytest.approx(0.8 * ram, rel=0.02)


def test_the_agent_speaks_before_every_timed_block_and_during_none(
    run: Any, conv_model: bytes
) -> None:
    pytest.importorskip("onnxruntime")
    listener = Listener(seconds=0.02)

    outcome = run(default_worker_command(), conv_model, listener)

    assert isinstance(outcome, MeasuredSamples), outcome
    blocks = [block for process in outcome.processes for block in process.blocks]
    timed = [block for block in blocks if block.latency_seconds]
    assert len(listener.paused_at) == len(timed) >= 2
    for block in blocks:
        ends = block.started_monotonic_seconds + block.lasted_seconds
        assert not any(block.started_monotonic_seconds < t < ends for t in listener.paused_at)
