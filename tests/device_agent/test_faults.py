"""The fault table: what a bad model or a bad day does to one job, and never to the agent.

Every case runs a real worker process to its end, and after each the next job is measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent.jobs import Bench, run_job
from device_agent.processes import Cancellation, default_worker_command
from device_agent.work import (
    PROTOCOL,
    Failure,
    FailureKind,
    InputShape,
    MeasuredSamples,
    MeasureSpec,
    ModelRun,
    Outcome,
    VerifySpec,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MIB = 1 << 20
FLOAT = onnx.TensorProto.FLOAT
INT64 = onnx.TensorProto.INT64

# The real worker, with a model class whose every inference ends like this.
_CURSED = """
import ctypes, os, signal, sys, time
from device_agent.runtimes import onnx
from device_agent.worker import main
def curse(self):
    {curse}
load = onnx.OnnxRuntime.load
def cursed_load(self, path, run):
    model = load(self, path, run)
    type(model).run = curse
    return model
onnx.OnnxRuntime.load = cursed_load
sys.exit(main())
"""


def cursed(curse: str) -> list[str]:
    return [sys.executable, "-c", _CURSED.format(curse=curse)]


class Device:
    """An agent's bench, on which jobs are run with a deadline that counts."""

    def __init__(self, folder: Path, spec: MeasureSpec) -> None:
        self._folder = folder
        self.spec = spec
        self.spool = folder / "spool"
        self.spool.mkdir()

    def run(
        self,
        model: bytes,
        command: Sequence[str] = (),
        *,
        address_space_bytes: int = 4096 * MIB,
        timeout_seconds: float = 60.0,
        other: Any = None,
        inputs: bytes = b"",
        **run_changes: Any,
    ) -> Outcome:
        """The outcome; within the deadline and the time that a kill takes."""
        blobs = {}
        for data in (model, inputs):
            sha256 = hashlib.sha256(data).hexdigest()
            blobs[sha256] = self._folder / sha256
            blobs[sha256].write_bytes(data)
        run = dataclasses.replace(
            self.spec.run,
            model_sha256=hashlib.sha256(model).hexdigest(),
            model_size_bytes=len(model),
            **run_changes,
        )
        spec = dataclasses.replace(other or self.spec, run=run, timeout_seconds=timeout_seconds)
        bench = Bench(command or default_worker_command(), address_space_bytes, self.spool)
        started = time.monotonic()
        outcome = run_job(spec, blobs, bench, Cancellation())
        assert time.monotonic() - started < timeout_seconds + 5.0
        return outcome


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def device(tmp_path: Path, spec: MeasureSpec, conv_model: bytes) -> Iterator[Device]:
    """A device that, after every fault, is as it was: the next job runs."""
    made = Device(tmp_path, spec)
    files_before = open_files()
    yield made
    assert isinstance(made.run(conv_model), MeasuredSamples)
    assert list(made.spool.iterdir()) == []
    assert open_files() == files_before


def model_of(
    nodes: list[Any],
    *,
    x: Sequence[Any] = (1, 1),
    y: Sequence[Any] | None = None,
    constants: Sequence[Any] = (),
) -> bytes:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "fault",
        [helper.make_tensor_value_info("x", FLOAT, x)],
        [helper.make_tensor_value_info("y", FLOAT, y)],
        list(constants),
    )
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return onnx.helper.make_node(operator, inputs, outputs, **attributes)


def expanded(rows: int, columns: int) -> Any:
    """The constant shape for an Expand of the input, so that nothing is known before the run."""
    return onnx.helper.make_tensor("shape", INT64, [2], [rows, columns])


@pytest.mark.parametrize(
    ("curse", "words"),
    [
        ("ctypes.string_at(0)", "SIGSEGV (invalid memory access)"),
        ("os.abort()", "SIGABRT (the runtime gave up)"),
        (
            "os.kill(os.getpid(), signal.SIGILL)",
            "SIGILL (illegal instruction: this build needs a newer CPU)",
        ),
        ("os.kill(os.getpid(), signal.SIGBUS)", "SIGBUS (invalid memory access)"),
        ("os._exit(7)", "status 7"),
    ],
    ids=["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "exit"],
)
def test_a_model_that_crashes_the_runtime_is_a_crash_of_the_worker(
    device: Device, conv_model: bytes, curse: str, words: str
) -> None:
    failure = device.run(conv_model, cursed(curse))

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.WORKER_CRASHED
    assert words in failure.message
    assert not list(Path.cwd().glob("core*"))


def test_a_worker_that_the_kernel_kills_ran_out_of_memory(
    device: Device, conv_model: bytes
) -> None:
    failure = device.run(conv_model, cursed("os.kill(os.getpid(), signal.SIGKILL)"))

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.RESOURCE
    assert "memory" in failure.message


def test_a_worker_that_hangs_ends_at_its_deadline(device: Device, conv_model: bytes) -> None:
    failure = device.run(conv_model, cursed("time.sleep(600)"), timeout_seconds=3.0)

    assert failure == Failure(FailureKind.TIMEOUT, "the job did not end within 3 s")


def test_a_worker_that_ignores_every_polite_signal_ends_at_its_deadline(
    device: Device, conv_model: bytes
) -> None:
    deaf = "[signal.signal(s, signal.SIG_IGN) for s in (2, 15, 1)]; time.sleep(600)"

    failure = device.run(conv_model, cursed(deaf), timeout_seconds=3.0)

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TIMEOUT


def test_an_inference_that_takes_hours_ends_at_its_deadline(
    device: Device, hours_model: bytes
) -> None:
    failure = device.run(hours_model, timeout_seconds=4.0)

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TIMEOUT


def test_a_loop_without_end_is_refused_or_ends_at_its_deadline(device: Device) -> None:
    helper = onnx.helper
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Neg", ["state"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("trip", INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [1, 1]),
        ],
        [
            helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [1, 1]),
        ],
    )
    trips = helper.make_tensor("trips", INT64, [], [1 << 62])
    on = helper.make_tensor("on", onnx.TensorProto.BOOL, [], [True])
    loop = model_of([node("Loop", ["trips", "on", "x"], ["y"], body=body)], constants=[trips, on])

    failure = device.run(loop, timeout_seconds=4.0)

    assert isinstance(failure, Failure)
    assert failure.kind in (FailureKind.MODEL_REJECTED, FailureKind.TIMEOUT)


def test_a_model_that_needs_more_memory_than_it_may_have_is_a_matter_of_resources(
    device: Device,
) -> None:
    model = model_of(
        [node("Expand", ["x", "shape"], ["y"])],
        y=(16_000, 16_000),
        constants=[expanded(16_000, 16_000)],
    )

    failure = device.run(model, address_space_bytes=1024 * MIB)

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.RESOURCE, failure.message


def test_a_limit_that_leaves_no_room_for_the_runtime_is_named(
    device: Device, conv_model: bytes
) -> None:
    failure = device.run(conv_model, address_space_bytes=60 * MIB)

    assert isinstance(failure, Failure)
    assert failure.kind in (FailureKind.RESOURCE, FailureKind.NO_RUNTIME), failure.message
    assert failure.kind is FailureKind.RESOURCE or "may map 60 MiB" in failure.message


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: model_of([node("Frobnicate", ["x"], ["y"])]), id="unknown operator"),
        pytest.param(
            lambda: model_of([node("Relu", ["x"], ["y"], domain="com.nobody")]), id="unknown domain"
        ),
        pytest.param(lambda: model_of([node("Relu", ["nowhere"], ["y"])]), id="broken graph"),
        pytest.param(lambda: b"", id="no bytes"),
        pytest.param(lambda: b"\x08\x08 this is no model", id="no model"),
    ],
)
def test_a_model_that_the_runtime_does_not_know_is_rejected(
    device: Device, model: Callable[[], bytes]
) -> None:
    failure = device.run(model())

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.MODEL_REJECTED, failure.message


def test_an_input_without_a_shape_is_rejected_and_runs_once_it_has_one(device: Device) -> None:
    model = model_of([node("Relu", ["x"], ["y"])], x=(1, "width"), y=(1, "width"))

    failure = device.run(model)
    measured = device.run(model, input_shapes=(InputShape("x", (1, 64)),))

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.MODEL_REJECTED
    assert "x" in failure.message
    assert isinstance(measured, MeasuredSamples), measured


@pytest.fixture
def verify_spec(quick_run: ModelRun) -> Any:
    return VerifySpec(PROTOCOL, quick_run, "", 0, 100_000, timeout_seconds=60.0)


def inputs_of(**arrays: Any) -> bytes:
    numpy = pytest.importorskip("numpy")
    file = io.BytesIO()
    numpy.savez(file, **arrays)
    return file.getvalue()


def verify(device: Device, spec: VerifySpec, model: bytes, inputs: bytes) -> Outcome:
    sha256 = hashlib.sha256(inputs).hexdigest()
    other = dataclasses.replace(spec, inputs_sha256=sha256, inputs_size_bytes=len(inputs))
    return device.run(model, other=other, inputs=inputs)


def test_outputs_larger_than_allowed_are_a_matter_of_resources(
    device: Device, verify_spec: VerifySpec
) -> None:
    numpy = pytest.importorskip("numpy")
    model = model_of(
        [node("Expand", ["x", "shape"], ["y"])],
        y=(1, 1_000_000),
        constants=[expanded(1, 1_000_000)],
    )

    failure = verify(device, verify_spec, model, inputs_of(x=numpy.ones((1, 1), "float32")))

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.RESOURCE, failure.message


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(lambda: b"this is no .npz", id="no file of numpy"),
        pytest.param(lambda: inputs_of(z=[[1.0]]), id="another name"),
        pytest.param(lambda: inputs_of(x=[[[1.0, 2.0]]]), id="another shape"),
        pytest.param(lambda: inputs_of(x=[["text"]]), id="another type"),
    ],
)
def test_inputs_that_do_not_fit_are_a_clear_failure(
    device: Device, verify_spec: VerifySpec, inputs: Callable[[], bytes]
) -> None:
    model = model_of([node("Relu", ["x"], ["y"])], y=(1, 1))

    failure = verify(device, verify_spec, model, inputs())

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.MODEL_REJECTED, failure.message


def flipped(model: bytes, seed: int) -> bytes:
    """The model with some bits turned, as an old card turns them."""
    chance = random.Random(seed)
    data = bytearray(model)
    for _ in range(20):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_a_model_with_turned_bits_never_harms_the_agent(
    device: Device, runtime: str, seed: int
) -> None:
    if runtime == "tflite":
        pytest.importorskip("ai_edge_litert")
    reference = next((Path(__file__).parents[2] / "device_agent/reference").glob(f"*.{runtime}"))

    outcome = device.run(
        flipped(reference.read_bytes(), seed), runtime=runtime, timeout_seconds=20.0
    )

    assert isinstance(outcome, (Failure, MeasuredSamples))


@pytest.mark.parametrize(
    ("runtime", "words"), [("openvino", "no runtime 'openvino'"), ("", "no runtime ''")]
)
def test_a_runtime_that_nobody_knows_is_named(
    device: Device, conv_model: bytes, runtime: str, words: str
) -> None:
    failure = device.run(conv_model, runtime=runtime)

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.NO_RUNTIME
    assert words in failure.message


def test_a_worker_that_is_stopped_and_not_killed_ends_at_its_deadline(
    device: Device, conv_model: bytes
) -> None:
    failure = device.run(
        conv_model, cursed("os.kill(os.getpid(), signal.SIGSTOP)"), timeout_seconds=3.0
    )

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TIMEOUT
    assert signal.SIGSTOP.name not in failure.message
