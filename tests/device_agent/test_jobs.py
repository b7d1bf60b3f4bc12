"""Every way in which a worker can end is an outcome."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from device_agent.jobs import default_address_space_bytes, describe_crash, run_job
from device_agent.probing import probe_runtimes
from device_agent.processes import Cancellation, Ended, default_worker_command, run_worker
from device_agent.work import FailureKind, MeasuredSamples, MeasureSpec, outcome_to_json

NO_CORE = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"


def python(code: str) -> list[str]:
    """A worker command that runs this instead of a worker."""
    return [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]


@pytest.fixture
def run(spec: MeasureSpec, tmp_path: Path) -> Any:
    model = tmp_path / "model"

    def run_it(
        command: Any, model_bytes: Any = b"", cancellation: Any = None, **changes: Any
    ) -> Any:
        model.write_bytes(model_bytes)
        return run_job(
            dataclasses.replace(spec, **changes),
            model,
            worker_command=command,
            address_space_bytes=4 << 30,
            cancellation=cancellation or Cancellation(),
        )

    return run_it


def test_an_answer_is_handed_on_as_it_is(run: Any, samples: MeasuredSamples) -> None:
    outcome = run(python(f"print({outcome_to_json(samples)!r})"))

    assert outcome == samples


def test_a_real_worker_measures_a_real_model(run: Any, conv_model: bytes) -> None:
    pytest.importorskip("onnxruntime")

    assert isinstance(run(default_worker_command(), conv_model), MeasuredSamples)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, "SIGILL (illegal instruction: this build needs a newer CPU)"),
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGABRT, "SIGABRT"),
        (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_a_crash_names_its_signal(run: Any, number: int, words: str) -> None:
    code = f"{NO_CORE}\nos.kill(os.getpid(), {int(number)})"

    failure = run(python(code))

    assert failure.kind is FailureKind.WORKER_CRASHED
    assert words in failure.message


@pytest.mark.parametrize(
    "code",
    [
        "raise MemoryError",
        "print('terminate called: std::bad_alloc', file=sys.stderr); os.abort()",
        "print('OpenBLAS blas_thread_init: pthread_create failed', file=sys.stderr); sys.exit(1)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    ],
    ids=["MemoryError", "bad_alloc", "OpenBLAS", "killed by the kernel"],
)
def test_running_out_of_memory_is_a_matter_of_resources(run: Any, code: str) -> None:
    failure = run(python(f"{NO_CORE}\n{code}"))

    assert failure.kind is FailureKind.RESOURCE
    assert "memory" in failure.message


def test_a_worker_that_never_ends_is_killed_with_its_children(run: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import subprocess; child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(60)"
    )
    started = time.monotonic()

    failure = run(python(code), timeout_seconds=1.0)

    assert failure.kind is FailureKind.TIMEOUT
    assert "1 s" in failure.message
    assert time.monotonic() - started < 10
    for pid in pids.read_text().split():
        assert not is_running(int(pid))


def is_running(pid: int) -> bool:
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            if stat.rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        time.sleep(0.01)
    return True


def test_a_job_is_cancelled_while_it_runs(run: Any) -> None:
    cancellation = Cancellation()
    timer = threading.Timer(0.3, cancellation.request)
    timer.start()
    started = time.monotonic()

    failure = run(python("time.sleep(60)"), cancellation=cancellation)

    assert failure.kind is FailureKind.CANCELLED
    assert time.monotonic() - started < 10


def test_a_job_that_was_cancelled_before_never_starts(run: Any, tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.request()

    failure = run(python(f"open({str(tmp_path / 'ran')!r}, 'w')"), cancellation=cancellation)

    assert failure.kind is FailureKind.CANCELLED
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('so what')", "unusable"),
        ("pass", "unusable"),
        ("print('the end is near', file=sys.stderr); sys.exit(3)", "status 3.*the end is near"),
    ],
)
def test_an_answer_that_is_none_is_a_crash(run: Any, code: str, words: str) -> None:
    failure = run(python(code))

    assert failure.kind is FailureKind.WORKER_CRASHED
    assert re.search(words, failure.message)


def test_a_worker_that_cannot_be_started_is_a_crash(run: Any) -> None:
    failure = run(["/no/such/program"])

    assert failure.kind is FailureKind.WORKER_CRASHED
    assert "cannot be started" in failure.message


def test_much_noise_on_standard_error_does_not_block_a_worker(
    run: Any, samples: MeasuredSamples
) -> None:
    code = f"sys.stderr.write('Schema error\\n' * 200000)\nprint({outcome_to_json(samples)!r})"

    assert run(python(code)) == samples


def test_the_worker_is_found_from_any_folder_and_without_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    ended = run_worker(
        [*default_worker_command(), "probe", "onnx"],
        timeout_seconds=60,
        cancellation=Cancellation(),
    )

    assert ended.status == 0, ended.stderr


def test_a_runtime_that_kills_its_probe_is_reported_with_the_reason() -> None:
    (facts,) = probe_runtimes(python("os.kill(os.getpid(), signal.SIGILL)"))

    assert (facts.name, facts.library) == ("onnx", "onnxruntime")
    assert not facts.works
    assert "newer CPU" in facts.why_not


@pytest.mark.parametrize("code", ["print('{}')", "print('[]')", "print('no')"])
def test_a_probe_that_answers_nonsense_is_reported(code: str) -> None:
    (facts,) = probe_runtimes(python(code))

    assert not facts.works
    assert "unusable" in facts.why_not


def test_a_probe_that_cannot_start_is_reported() -> None:
    (facts,) = probe_runtimes(["/no/such/program"])

    assert "cannot be started" in facts.why_not


def test_the_runtimes_of_this_machine_are_probed() -> None:
    (facts,) = probe_runtimes(default_worker_command())

    assert facts.name == "onnx"
    assert facts.works == (facts.why_not == "")


def test_a_small_board_gets_address_space_that_libraries_can_reserve() -> None:
    assert default_address_space_bytes(1 << 30) == 2 << 30
    assert default_address_space_bytes(8 << 30) == 8 << 30


def test_last_words_are_kept_short() -> None:
    failure = describe_crash(Ended(1, timed_out=False, stdout="", stderr="x" * 10_000))

    assert len(failure.message) < 600
    assert os.linesep not in failure.message


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, -1.0])
@pytest.mark.parametrize("name", ["timeout_seconds", "min_seconds", "warmup_seconds"])
def test_a_job_that_asks_for_an_impossible_time_is_a_failure_and_not_the_agents_end(
    run: Any, name: str, seconds: float
) -> None:
    outcome = run(python("raise SystemExit(3)"), **{name: seconds})

    assert outcome.kind is FailureKind.RESOURCE
    assert "86400" in outcome.message
