"""The child process itself: what it measures, and what it forbids itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_agent.codec import from_tagged_json, to_json
from device_agent.energy import Step
from device_agent.instruments import LIVE, Instruments
from device_agent.probing import probe_guards
from device_agent.processes import Cancellation, default_worker_command, run_worker
from device_agent.reference.generate import reference_ncnn, reference_onnx
from device_agent.requests import (
    Confinement,
    EnergyPhases,
    EnergyRequest,
    MeasuredProcess,
    MeasureRequest,
    ProfileRequest,
    ReferenceRequest,
    VerifiedFile,
    VerifyRequest,
)
from device_agent.scan_limits import ScanLimits
from device_agent.work import (
    Failure,
    FailureKind,
    ModelRun,
    PhaseKind,
    Plan,
    Profile,
    ReferenceRun,
)
from device_agent.worker import attempt, probe

GIB = 1 << 30
ANSWERS = (MeasuredProcess, EnergyPhases, VerifiedFile, Profile, ReferenceRun, Failure)
PLAN = Plan(
    processes=1,
    warmup_runs=2,
    warmup_seconds=0.0,
    min_blocks=2,
    block_runs=6,
    block_seconds=1.0,
    min_samples=12,
    half_width=1.0,
    budget_seconds=10.0,
    energy_windows=0,
    energy_window_seconds=1.0,
)


def confinement(**changes: Any) -> Confinement:
    return dataclasses.replace(Confinement(4 * GIB, os.getpid(), ()), **changes)


@pytest.fixture
def request_for(tmp_path: Path) -> Any:
    def make(model: bytes, *, runtime: str = "onnx", threads: int = 1, **changes: Any) -> Any:
        path = tmp_path / "model"
        path.write_bytes(model)
        limits = confinement(**changes.pop("limits", {}))
        run = ModelRun("a" * 64, len(model), runtime, threads, **changes.pop("run", {}))
        request = MeasureRequest(limits, path, run, PLAN, PLAN.min_samples, PLAN.budget_seconds)
        return dataclasses.replace(request, **changes)

    return make


def answer_of(task: str, request: Any) -> Any:
    ended = run_worker(
        [*default_worker_command(), task, to_json(request)],
        timeout_seconds=60.0,
        cancellation=Cancellation(),
    )
    assert ended.status == 0, ended.stderr
    return from_tagged_json(ANSWERS, ended.stdout)


def test_a_worker_measures_a_model(request_for: Any, conv_model: bytes) -> None:
    pytest.importorskip("onnxruntime")

    answer = answer_of("measure", request_for(conv_model))

    assert isinstance(answer, MeasuredProcess)
    assert sum(len(block.latency_seconds) for block in answer.run.blocks) >= 12
    memory = answer.run.memory
    assert 0 < memory.base_rss_bytes <= memory.load_rss_bytes <= memory.peak_rss_bytes
    assert answer.setup.library == "onnxruntime"
    assert answer.run.load_seconds > 0
    assert answer.run.first_inference_seconds > 0
    assert 0 < answer.run.call_overhead_seconds < 0.001
    for block in answer.run.blocks:
        assert min(block.reference_seconds) > 0
        assert len(block.cpu_seconds) == len(block.latency_seconds)
        assert block.canary_seconds > 0


def test_a_worker_in_its_cage_measures_an_ncnn_model_and_writes_nothing(request_for: Any) -> None:
    pytest.importorskip("ncnn")
    request = request_for(reference_ncnn(), runtime="ncnn", run={"options": ("fp16=0",)})

    answer = answer_of("measure", request)

    assert isinstance(answer, MeasuredProcess), answer
    assert sum(len(block.latency_seconds) for block in answer.run.blocks) >= 12
    memory = answer.run.memory
    assert 0 < memory.base_rss_bytes <= memory.load_rss_bytes <= memory.peak_rss_bytes
    assert answer.setup.library == "ncnn"
    assert "num_threads=1" in answer.setup.options
    assert 0 < answer.run.call_overhead_seconds < 0.001


def test_a_worker_stays_on_the_cores_that_it_was_given(request_for: Any, conv_model: bytes) -> None:
    pytest.importorskip("onnxruntime")
    core = max(os.sched_getaffinity(0))

    answer = answer_of("measure", request_for(conv_model, limits={"cpus": (core,)}))
    lost = answer_of("measure", request_for(conv_model, limits={"cpus": (4095,)}))

    assert isinstance(answer, MeasuredProcess)
    assert isinstance(lost, Failure)
    assert "4095" in lost.message


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"runtime": "caffe"}, FailureKind.NO_RUNTIME, "caffe"),
        ({"threads": 0}, FailureKind.RESOURCE, "thread"),
        ({"min_samples": 1_000_000}, FailureKind.RESOURCE, "samples"),
        ({"plan": dataclasses.replace(PLAN, processes=0)}, FailureKind.RESOURCE, "process"),
    ],
)
def test_a_request_that_cannot_be_followed_is_a_failure_with_its_reason(
    request_for: Any, conv_model: bytes, changes: Any, kind: Any, words: str
) -> None:
    outcome: Any = attempt(request_for(conv_model, **changes), LIVE)

    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert words in outcome.message


def test_a_model_that_the_scan_refuses_never_reaches_the_runtime(
    request_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from device_agent.runtimes.onnx import OnnxRuntime

    monkeypatch.setattr(OnnxRuntime, "load", lambda *_args: pytest.fail("it was loaded"))

    outcome: Any = attempt(request_for(b"garbage"), LIVE)

    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.MODEL_REJECTED


def test_a_reference_model_that_fails_is_no_fault_of_the_model(
    request_for: Any, conv_model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from device_agent.runtimes.onnx import OnnxRuntime

    (tmp_path / "reference.onnx").write_bytes(b"garbage")
    monkeypatch.setattr(OnnxRuntime, "reference_path", tmp_path / "reference.onnx")

    outcome: Any = attempt(request_for(conv_model), LIVE)

    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.NO_RUNTIME
    assert "reference.onnx" in outcome.message


def test_a_budget_that_is_too_short_still_gives_a_sample(
    request_for: Any, conv_model: bytes
) -> None:
    pytest.importorskip("onnxruntime")

    outcome: Any = attempt(request_for(conv_model, budget_seconds=1e-6), LIVE)

    assert outcome.run.warmup_runs >= 1
    assert [len(block.latency_seconds) for block in outcome.run.blocks] == [1, 0]
    assert not outcome.run.steady


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

    limits = {"address_space_bytes": 2 * GIB, "scan": ScanLimits(max_elements=1 << 40)}
    outcome = answer_of(
        "measure",
        request_for(model.SerializeToString(), limits=limits),
    )

    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.RESOURCE


class FixedClock:
    def __init__(self, step_ns: int) -> None:
        self.now_ns, self.busy_ns, self._step_ns = 0, 0, step_ns

    def __call__(self) -> int:
        self.now_ns += self._step_ns
        self.busy_ns += self._step_ns
        return self.now_ns

    def seconds(self) -> float:
        return self() * 1e-9

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def made_up(step_ns: int = 5_000_000) -> Instruments:
    """Every look at a clock takes the same time, and only they and sleeping take any."""
    clock = FixedClock(step_ns)
    return Instruments(
        clock=clock,
        cpu_clock=lambda: clock.now_ns,
        process_clock=lambda: clock.busy_ns,
        monotonic_seconds=clock.seconds,
        sleep=clock.sleep,
        canary=lambda _clock: 0.003,
        load=clock.sleep,
    )


def test_the_clock_that_is_given_is_the_only_one_read(request_for: Any, conv_model: bytes) -> None:
    pytest.importorskip("onnxruntime")

    outcome: Any = attempt(request_for(conv_model), made_up())

    assert outcome.run.blocks[0].latency_seconds == pytest.approx([0.005] * 6)
    assert outcome.run.load_seconds == pytest.approx(0.005)
    assert outcome.run.first_inference_seconds == pytest.approx(0.005)
    assert outcome.run.blocks[0].canary_seconds == 0.003


def test_an_energy_run_rests_loads_and_infers_in_turns(request_for: Any, conv_model: bytes) -> None:
    pytest.importorskip("onnxruntime")
    request = request_for(conv_model)
    energy = EnergyRequest(
        request.confinement,
        request.model_path,
        request.run,
        windows=2,
        window_seconds=1.0,
        paced_hertz=5.0,
    )

    answer: Any = attempt(energy, made_up())

    kinds = [phase.kind for phase in answer.phases]
    rest, step = PhaseKind.IDLE, PhaseKind.STEP
    assert kinds[:4] == [rest, step, rest, rest]
    assert kinds[4:] == [PhaseKind.BUSY, rest, PhaseKind.BUSY, rest, PhaseKind.PACED, rest]
    assert all(p.inferences > 0 for p in answer.phases if p.kind is PhaseKind.BUSY)
    assert 0 < answer.cpu_utilisation < 1
    assert answer.phases[1].ended_monotonic_seconds - answer.phases[
        1
    ].started_monotonic_seconds == pytest.approx(Step().load_seconds, rel=0.01)


def test_a_worker_answers_with_the_outputs_of_real_inputs(
    request_for: Any, conv_model: bytes, tmp_path: Path
) -> None:
    np = pytest.importorskip("numpy")
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(conv_model, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    examples = np.random.default_rng(0).random((3, *entry.shape[1:]), dtype=np.float32)
    np.savez(tmp_path / "inputs.npz", **{entry.name: examples})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    request = request_for(conv_model, limits={"max_file_bytes": 10_000_000, "scratch": scratch})
    verify = VerifyRequest(
        request.confinement,
        request.model_path,
        request.run,
        tmp_path / "inputs.npz",
        scratch / "outputs.npz",
    )

    answer = answer_of("verify", verify)

    assert isinstance(answer, VerifiedFile)
    assert answer.examples == 3
    expected = np.concatenate([session.run(None, {entry.name: e[None]})[0] for e in examples])
    (name,) = [output.name for output in session.get_outputs()]
    np.testing.assert_allclose(np.load(scratch / "outputs.npz")[name], expected, rtol=1e-4)


def test_a_worker_answers_with_the_outputs_of_an_ncnn_model(
    request_for: Any, tmp_path: Path
) -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("ncnn")
    ort = pytest.importorskip("onnxruntime")
    examples = np.random.default_rng(0).random((3, 3, 96, 96), dtype=np.float32)
    np.savez(tmp_path / "inputs.npz", x=examples)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    limits = {"max_file_bytes": 10_000_000, "scratch": scratch}
    request = request_for(reference_ncnn(), runtime="ncnn", limits=limits)
    verify = VerifyRequest(
        request.confinement,
        request.model_path,
        request.run,
        tmp_path / "inputs.npz",
        scratch / "outputs.npz",
    )

    answer = answer_of("verify", verify)

    assert isinstance(answer, VerifiedFile), answer
    session = ort.InferenceSession(reference_onnx(), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"x": each[None]})[0] for each in examples])
    found = np.load(scratch / "outputs.npz")["y"]
    np.testing.assert_allclose(found, expected.reshape(3, 16), rtol=1e-4, atol=1e-5)


def test_a_worker_profiles_a_model(request_for: Any, conv_model: bytes, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    request = request_for(conv_model, limits={"max_file_bytes": 100_000_000, "scratch": scratch})
    profile = ProfileRequest(request.confinement, request.model_path, request.run, runs=5)

    answer = answer_of("profile", profile)

    assert isinstance(answer, Profile)
    assert answer.operators
    assert sum(operator.seconds for operator in answer.operators) <= answer.run_seconds
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("runtime", "library"),
    [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert"), ("ncnn", "ncnn")],
)
def test_a_worker_times_the_reference_model(runtime: str, library: str) -> None:
    pytest.importorskip(library)

    answer = answer_of("reference", ReferenceRequest(confinement(), runtime))

    assert isinstance(answer, ReferenceRun)
    assert len(answer.latency_seconds) == len(answer.cpu_seconds) >= 10
    assert 1e-5 < min(answer.latency_seconds) < 0.1
    assert answer.failed_because == ""


def test_the_worker_of_the_end_to_end_tests_always_measures_the_same(
    request_for: Any, conv_model: bytes
) -> None:
    pytest.importorskip("onnxruntime")
    script = Path(__file__).parent.parent / "end_to_end" / "fixed_clock_worker.py"
    command = [sys.executable, "-B", str(script), "measure", to_json(request_for(conv_model))]

    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)
    )

    assert first == second
    answer = from_tagged_json(ANSWERS, first.splitlines()[-1])
    assert isinstance(answer, MeasuredProcess)
    block = answer.run.blocks[0]
    assert block.latency_seconds == block.cpu_seconds
    assert len({round(seconds, 9) for seconds in block.latency_seconds}) == 1


def test_what_a_library_prints_never_reaches_the_answer(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom device_agent import instruments, worker\n"
        "def noisy(name):\n"
        "    print('hello from a library'); os.write(1, b'and from C\\n')\n"
        "    return real(name)\n"
        "real = instruments.LIVE.open_runtime\n"
        "noisily = instruments.Instruments(open_runtime=noisy)\n"
        "sys.exit(worker.main(['probe', 'onnx'], noisily))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout)["name"] == "onnx"
    assert "from C" in done.stderr


def test_the_cage_stands_before_a_runtime_is_opened(request_for: Any, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("secret")
    script = (
        "import os, socket, sys\nfrom device_agent import errors, instruments, worker\n"
        "def hostile(name):\n"
        "    done = []\n"
        "    folder = sys.argv[1]\n"
        "    for attack in (socket.socket, os.fork, lambda: open(folder + '/key.pem'),\n"
        "                   lambda: open(folder + '/x', 'w'), lambda: os.kill(os.getppid(), 0)):\n"
        "        try:\n"
        "            attack(); done.append(attack)\n"
        "        except OSError:\n"
        "            pass\n"
        "    raise errors.NoRuntimeError(f'{len(done)} attacks')\n"
        "tools = instruments.Instruments(open_runtime=hostile)\n"
        "sys.exit(worker.main(['measure', sys.argv[2]], tools))\n"
    )
    request = request_for(b"", limits={"hidden": (tmp_path / "key.pem",)})

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), to_json(request)],
        capture_output=True,
        text=True,
        check=True,
    )

    answer = from_tagged_json(ANSWERS, done.stdout.splitlines()[-1])
    assert isinstance(answer, Failure)
    guards = probe_guards(default_worker_command())
    if all(guard.works for guard in guards):
        assert answer.message == "0 attacks"


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
    assert "missing or unknown fields" in done.stderr
    assert "Traceback" not in done.stderr
