"""The child process itself: what it measures, and what it forbids itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import SensorUnavailableError
from device_agent.processes import Cancellation, default_worker_command, run_worker
from device_agent.sensors.base import EnergyReading
from device_agent.work import (
    Failure,
    FailureKind,
    MeasuredSamples,
    MeasureSpec,
    Request,
    outcome_from_json,
)
from device_agent.worker import Instruments, attempt, probe

GIB = 1 << 30


@pytest.fixture
def request_for(tmp_path: Path, spec: MeasureSpec) -> Any:
    def make(model: bytes, **changes: Any) -> Request:
        path = tmp_path / "model"
        path.write_bytes(model)
        limit = changes.pop("address_space_bytes", 4 * GIB)
        return Request(dataclasses.replace(spec, **changes), path, limit, os.getpid())

    return make


def measured_in_a_process(request: Request) -> Any:
    ended = run_worker(
        [*default_worker_command(), "measure", request.to_json()],
        timeout_seconds=60.0,
        cancellation=Cancellation(),
    )
    assert ended.status == 0, ended.stderr
    return outcome_from_json(ended.stdout)


def test_a_worker_measures_a_model(request_for: Any, conv_model: bytes) -> None:
    pytest.importorskip("onnxruntime")

    outcome = measured_in_a_process(request_for(conv_model, min_samples=12))

    assert isinstance(outcome, MeasuredSamples)
    assert len(outcome.latency_seconds) == 12
    assert 0 < outcome.base_rss_bytes <= outcome.load_rss_bytes <= outcome.peak_rss_bytes
    assert outcome.runtime_library == "onnxruntime"
    assert outcome.load_seconds > 0
    assert outcome.first_inference_seconds > 0
    assert outcome.cpu_seconds is not None
    assert outcome.cpu_seconds > 0
    assert (outcome.power is None) == bool(outcome.power_absent_because)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"runtime": "caffe"}, FailureKind.NO_RUNTIME, "caffe"),
        ({"protocol": "genba-measure/9"}, FailureKind.NO_RUNTIME, "update the agent"),
        ({"threads": 0}, FailureKind.RESOURCE, "thread"),
        ({"min_samples": 1_000_000}, FailureKind.RESOURCE, "samples"),
    ],
)
def test_a_spec_that_cannot_be_followed_is_a_failure_with_its_reason(
    request_for: Any, conv_model: bytes, changes: Any, kind: Any, words: str
) -> None:
    outcome: Any = attempt(request_for(conv_model, **changes), Instruments())

    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert words in outcome.message


def test_a_model_that_the_scan_refuses_never_reaches_the_runtime(request_for: Any) -> None:
    outcome: Any = attempt(request_for(b"garbage", runtime="none at all"), Instruments())

    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.MODEL_REJECTED


def test_a_model_beyond_the_memory_limit_is_a_matter_of_resources(request_for: Any) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    size = helper.make_tensor("size", onnx.TensorProto.INT64, [1], [3 << 30])
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["size"], ["y"])],
        "hog",
        [],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])],
        [size],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    outcome = measured_in_a_process(
        request_for(model.SerializeToString(), address_space_bytes=2 * GIB)
    )

    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.RESOURCE


class FixedClock:
    def __init__(self, step_ns: int) -> None:
        self.now_ns, self._step_ns = 0, step_ns

    def __call__(self) -> int:
        self.now_ns += self._step_ns
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class Meter:
    """20 W by the clock that it is given."""

    name, scope, kind, max_watts = "meter", "wall", "measured", 50.0

    def __init__(self, clock: FixedClock) -> None:
        self._clock = clock

    def read(self) -> EnergyReading:
        return EnergyReading((self._clock.now_ns,))

    def joules_between(self, earlier: Any, later: Any) -> float:
        return float(later.counters[0] - earlier.counters[0]) * 1e-9 * 20.0


@pytest.fixture
def instruments() -> Any:
    def make(step_ns: int = 5_000_000, power_sources: Any = None) -> Instruments:
        clock = FixedClock(step_ns)
        sources = power_sources(clock) if power_sources else {}
        return Instruments(clock=clock, cpu_clock=clock, power_sources=sources, sleep=clock.sleep)

    return make


def test_the_clock_that_is_given_is_the_only_one_read(
    request_for: Any, conv_model: bytes, instruments: Any
) -> None:
    pytest.importorskip("onnxruntime")

    outcome: Any = attempt(request_for(conv_model), instruments())

    assert outcome.latency_seconds == pytest.approx([0.005] * 5)
    assert outcome.load_seconds == pytest.approx(0.005)
    assert outcome.first_inference_seconds == pytest.approx(0.005)


def test_power_comes_from_a_window_of_its_own(
    request_for: Any, conv_model: bytes, instruments: Any
) -> None:
    pytest.importorskip("onnxruntime")

    outcome: Any = attempt(
        request_for(conv_model),
        instruments(power_sources=lambda clock: {"m": lambda: Meter(clock)}),
    )

    assert outcome.power.source == "meter"
    assert outcome.power.window_seconds >= 2.0
    assert outcome.power.energy_joules == pytest.approx(20 * outcome.power.window_seconds, rel=0.01)
    assert outcome.power_absent_because == ""


def test_power_that_has_no_time_left_says_so(
    request_for: Any, conv_model: bytes, instruments: Any
) -> None:
    pytest.importorskip("onnxruntime")

    outcome: Any = attempt(
        request_for(conv_model, timeout_seconds=2.0),
        instruments(power_sources=lambda clock: {"m": lambda: Meter(clock)}),
    )

    assert outcome.power is None
    assert "timeout" in outcome.power_absent_because


def test_power_without_a_source_says_why(
    request_for: Any, conv_model: bytes, instruments: Any
) -> None:
    pytest.importorskip("onnxruntime")

    def broken() -> None:
        raise SensorUnavailableError("unplugged")

    outcome: Any = attempt(
        request_for(conv_model), instruments(power_sources=lambda clock: {"plug": broken})
    )

    assert outcome.power is None
    assert outcome.power_absent_because == "plug: unplugged"


def run_confined(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    script = (
        "import os\nfrom device_agent.confine import confine\n"
        f"confine(address_space_bytes={GIB}, parent_pid=os.getppid())\n{code}"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )


def test_a_confined_process_can_fill_no_file(tmp_path: Path) -> None:
    done = run_confined("open('x', 'w').write('secret' * 10000)", tmp_path)

    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert not (tmp_path / "x").read_bytes()


def test_a_confined_process_gets_no_more_memory_than_allowed(tmp_path: Path) -> None:
    done = run_confined(f"bytearray({2 * GIB})", tmp_path)

    assert "MemoryError" in done.stderr


def test_a_confined_process_leaves_no_core_and_goes_first_when_memory_ends(tmp_path: Path) -> None:
    code = (
        "import resource; print(resource.getrlimit(resource.RLIMIT_CORE),"
        " open('/proc/self/oom_score_adj').read(), os.environ['OPENBLAS_NUM_THREADS'])"
    )

    done = run_confined(code, tmp_path)

    assert done.stdout.split() == ["(0,", "0)", "1000", "1"]


def test_a_worker_dies_with_the_agent_that_started_it(tmp_path: Path) -> None:
    worker = (
        "import os, time\nfrom device_agent.confine import confine\n"
        f"confine(address_space_bytes={GIB}, parent_pid=os.getppid())\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)\n"
    )
    agent = (
        "import subprocess, sys, os, signal\n"
        f"child = subprocess.Popen([sys.executable, '-c', {worker!r}], stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", agent], stdout=subprocess.PIPE, text=True, check=False, timeout=30
    )

    status = Path(f"/proc/{int(done.stdout)}/status")
    limit = time.monotonic() + 10
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < limit, "the worker lives on"
        time.sleep(0.01)


def test_a_worker_whose_agent_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    script = (
        "from device_agent.confine import confine\n"
        f"confine(address_space_bytes={GIB}, parent_pid=1)\nprint('began')"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert done.stdout == ""


def test_what_a_library_prints_never_reaches_the_answer(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom device_agent import worker\n"
        "def noisy(name):\n"
        "    print('hello from a library'); os.write(1, b'and from C\\n')\n"
        "    return real(name)\n"
        "real, worker.open_runtime = worker.open_runtime, noisy\n"
        "sys.exit(worker.main(['probe', 'onnx']))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout)["name"] == "onnx"
    assert "from C" in done.stderr


def test_a_probe_reports_library_and_version() -> None:
    pytest.importorskip("onnxruntime")

    facts = probe("onnx")

    assert facts.works
    assert facts.library == "onnxruntime"
    assert facts.version
    assert facts.why_not == ""


def test_a_probe_of_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    facts = probe("onnx")

    assert not facts.works
    assert "genba[onnx]" in facts.why_not


@pytest.mark.parametrize(
    "error",
    [
        ImportError("GLIBC_2.33 not found"),
        SystemError("initialization of _pywrap failed"),
        RuntimeError("NumPy was built with baseline optimizations: (X86_V2)"),
    ],
)
def test_a_library_that_clashes_says_why(monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "onnxruntime":
                raise error

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])

    facts = probe("onnx")

    assert not facts.works
    assert str(error) in facts.why_not


@pytest.mark.parametrize("argv", [[], ["measure"], ["dance", "x"]])
def test_a_wrong_command_line_is_usage(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "device_agent.worker", *argv],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "usage" in done.stderr


def test_a_request_that_cannot_be_read_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "device_agent.worker", "measure", "{}"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "not a request" in done.stderr
    assert "Traceback" not in done.stderr
