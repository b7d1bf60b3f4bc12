"""Hostile files on the whole road: a job, a real worker, the scan, the real libraries."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from device_agent import model_scan, ncnn_scan, tflite_scan
from device_agent.errors import ModelRejectedError, NoRuntimeError
from device_agent.runtimes.catalogue import open_runtime
from device_agent.scan_limits import ScanLimits
from device_agent.work import Failure, FailureKind, MeasuredSamples, VerifiedOutputs

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FIRST_THAT_READS_NO_FOREIGN_FILE = (1, 24)


SCANS = {"onnx": model_scan, "tflite": tflite_scan, "ncnn": ncnn_scan}


def usable(runtime: str) -> None:
    """Skip where this machine has no library for it."""
    try:
        open_runtime(runtime)
    except NoRuntimeError as error:
        pytest.skip(str(error))


def test_a_hostile_file_is_refused_with_its_reason_in_one_line(
    hostile: Any, tmp_path: Path
) -> None:
    runtime, make, words = hostile
    scan = SCANS[runtime]
    (tmp_path / "model").write_bytes(make())

    with pytest.raises(ModelRejectedError, match=words) as refusal:
        scan.scan_file(tmp_path / "model", limits_for(words))

    assert str(refusal.value).isprintable()


def limits_for(words: str) -> ScanLimits:
    """With control flow allowed, so that it does not hide the other reasons."""
    return ScanLimits(control_flow=words != "control flow")


def test_no_hostile_file_comes_through_the_road(hostile_on_the_road: Any, road: Any) -> None:
    runtime, make, words = hostile_on_the_road
    usable(runtime)

    outcome = road.allowing(limits_for(words)).run(make(), runtime)

    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is FailureKind.MODEL_REJECTED
    assert re.search(words, outcome.message), outcome.message
    assert list(road.bench.spool.iterdir()) == []


@pytest.mark.parametrize(
    "location",
    [
        "../canary",
        "link",
        "ABSOLUTE",
        "../../../../../../../../../../../../ABSOLUTE",
    ],
)
def test_no_job_returns_what_stands_in_another_file(
    road: Any, make_leaking: Any, location: str
) -> None:
    path = location.replace("ABSOLUTE", str(road.canary)).replace("//", "/")

    outcome = road.run(make_leaking(path), "onnx", verify=True)

    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.MODEL_REJECTED
    assert "external data" in outcome.message


def test_an_onnxruntime_before_1_24_would_hand_the_file_out(road: Any, make_leaking: Any) -> None:
    """The control: without the scan the same model leaks, so the test above shows something."""
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version >= FIRST_THAT_READS_NO_FOREIGN_FILE:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} refuses such files by itself")
    model = road.folder / "cache" / "leaking.onnx"
    model.write_bytes(make_leaking("../canary"))
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    (output,) = session.run(None, {"x": [[1.0, 2.0, 3.0, 4.0]]})

    assert output.tobytes() == road.canary.read_bytes()


# ---- the cage alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_an_endless_loop_that_a_device_allows_ends_with_the_clock(
    road: Any, make_file: Any, runtime: str
) -> None:
    usable(runtime)
    device = road.allowing(ScanLimits(control_flow=True))
    began = time.monotonic()

    outcome = device.run(make_file(runtime, "an endless loop"), runtime, timeout_seconds=5.0)

    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TIMEOUT, outcome
    assert 5.0 <= time.monotonic() - began < 15.0
    # The same device measures the next model.
    assert isinstance(device.good_model(runtime), MeasuredSamples)


@pytest.mark.parametrize(
    ("runtime", "name", "kind"),
    [
        ("onnx", "a ConstantOfShape of 10^11", FailureKind.RESOURCE),
        ("onnx", "an Expand to 10^11", FailureKind.RESOURCE),
        # The library does not say why it could not make the tensor.
        ("tflite", "a Fill of 2^32", FailureKind.MODEL_REJECTED),
        ("ncnn", "a Padding to 10^11", FailureKind.RESOURCE),
        ("ncnn", "a huge input", FailureKind.RESOURCE),
    ],
)
def test_without_the_scan_a_bomb_of_memory_dies_of_the_limit_of_its_process(
    road: Any, make_file: Any, runtime: str, name: str, kind: FailureKind
) -> None:
    usable(runtime)

    outcome = road.without_scan().run(make_file(runtime, name), runtime)

    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is kind, outcome


@pytest.mark.parametrize(
    ("runtime", "name"),
    [
        ("onnx", "a function that calls itself"),
        ("onnx", "functions that multiply"),
        ("onnx", "half a file"),
        ("tflite", "a Reshape past its output"),
        ("tflite", "a graph that calls itself"),
        ("ncnn", "more blobs than it says"),
        ("ncnn", "a blob of nobody"),
        ("ncnn", "a layer that reads itself"),
        ("ncnn", "a window of nothing"),
        ("ncnn", "a chain of 6,000 layers"),
    ],
)
def test_without_the_scan_whatever_a_file_does_ends_with_its_worker(
    road: Any, make_file: Any, runtime: str, name: str
) -> None:
    usable(runtime)

    outcome = road.without_scan().run(make_file(runtime, name), runtime, timeout_seconds=5.0)

    assert isinstance(outcome, (Failure, MeasuredSamples))


def test_without_the_scan_a_runtime_of_today_still_hands_nothing_out(
    road: Any, make_leaking: Any
) -> None:
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < FIRST_THAT_READS_NO_FOREIGN_FILE:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} reads such files: the scan stops them")

    outcome = road.without_scan().run(make_leaking("../canary"), "onnx", verify=True)

    assert not isinstance(outcome, VerifiedOutputs)


def test_a_model_that_ncnn_loads_and_that_kills_it_at_its_first_run_is_a_result(
    road: Any, make_file: Any
) -> None:
    usable("ncnn")
    device = road.without_scan()

    outcome = device.run(make_file("ncnn", "weights for other channels"), "ncnn")

    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is FailureKind.WORKER_CRASHED, outcome
    assert re.search("SIG(SEGV|FPE|BUS|ABRT)", outcome.message), outcome.message
    assert isinstance(road.good_model("ncnn"), MeasuredSamples)
