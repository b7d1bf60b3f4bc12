"""The pure parts of the benchmark on networks that are not of our spaces."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.arbitrary_onnx import corpus, measurements, published_tflite
from benchmarks.arbitrary_onnx.calibrating import Calibrated
from benchmarks.arbitrary_onnx.corpus import CorpusError, Entry
from benchmarks.arbitrary_onnx.judging import Unseen, figures, judge
from benchmarks.arbitrary_onnx.measurements import Job, Measured, Measurements
from benchmarks.arbitrary_onnx.runner import Look, NotMeasuredError, look
from cost_models.kernels import NETWORK_INPUT, Kernel, KernelGraph
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.tflite_graph import kernels_from_tflite
from device_agent.reference import REFERENCE_FOLDER
from host.network.tflite_model import tflite_bytes
from host.network.weights import random_weights


def job(name: str = "net", threads: int = 1) -> Job:
    return Job(name, Path("net.onnx"), {}, threads)


def looking(monkeypatch: pytest.MonkeyPatch, *answers: Look | NotMeasuredError) -> list[Path]:
    """Let `look` answer these, one after the other; what it was asked for."""
    asked: list[Path] = []

    def answer(path: Path, *_: object) -> Look:
        found = answers[len(asked)]
        asked.append(path)
        if isinstance(found, NotMeasuredError):
            raise found
        return found

    monkeypatch.setattr(measurements, "look", answer)
    return asked


def a_look(seconds: float, reference: float | None = 1.0, *, quiet: bool = True) -> Look:
    return Look(seconds, 100, reference, quiet)


def silent(_: str) -> None:
    pass


def test_every_network_is_named_once_and_can_be_made() -> None:
    names = [entry.name for entry in corpus.entries()]

    assert len(names) == len(set(names))
    assert len(names) >= 100
    assert {n.removesuffix("-tflite") for n in names} >= set(published_tflite.PUBLISHED)


def test_a_network_that_cannot_be_had_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise CorpusError("no such package")

    def write(path: Path) -> None:
        path.write_bytes(b"model")

    entries = [Entry("gone", "gone.onnx", refuse), Entry("there", "there.tflite", write)]
    monkeypatch.setattr(corpus, "entries", lambda: entries)
    said: list[str] = []

    (found,) = corpus.build(tmp_path / "models", lambda _: True, said.append)

    assert (found.name, found.runtime) == ("there", "litert")
    assert said == ["left out: gone: no such package"]
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["there.tflite"]


def test_an_interrupted_export_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "entries", lambda: [Entry("net", "net.onnx", stop)])
    with pytest.raises(KeyboardInterrupt):
        corpus.build(tmp_path, lambda _: True, silent)

    assert not (tmp_path / "net.onnx").exists()


def test_what_was_measured_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = looking(monkeypatch, a_look(2.0), a_look(3.0))
    kept = tmp_path / "kept.json"
    Measurements(kept).take([job("a"), job("b")], 1, silent)

    again = Measurements(kept)
    again.take([job("a"), job("b")], 1, silent)

    assert len(asked) == 2
    assert again.measured(job("a").key) == Measured(2.0, 100, quiet=True)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"looks": 3}))

    with pytest.raises(ValueError, match="no measurements of this benchmark"):
        Measurements(tmp_path / "other.json")


def test_a_disturbed_look_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = looking(monkeypatch, a_look(9.0, quiet=False), a_look(2.0))
    found = Measurements(None)

    found.take([job()], 1, silent)

    assert len(asked) == 2
    assert found.measured(job().key) == Measured(2.0, 100, quiet=True)


def test_a_model_that_the_runtime_refuses_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = looking(monkeypatch, NotMeasuredError("no such operator"))
    found = Measurements(None)

    found.take([job()], 3, silent)

    assert len(asked) == 1
    assert found.measured(job().key) is None
    assert found.failed == {job().key: "no such operator"}


def test_the_median_look_counts_and_the_range_tells_the_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking(monkeypatch, a_look(2.2), a_look(2.0), a_look(3.0))
    found = Measurements(None)

    found.take([job()], 3, silent)

    assert found.measured(job().key) == Measured(2.2, 100, quiet=True)
    assert found.spread() == pytest.approx(0.5)


def test_a_look_at_a_machine_that_ran_slower_does_not_count_and_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick, slow = a_look(2.0), a_look(3.0, 2.0)
    asked = looking(monkeypatch, slow, quick, slow, quick)
    found = Measurements(None)

    found.take([job()], 1, silent)
    found.take([job()], 2, silent)

    assert len(asked) == 4
    assert found.measured(job().key) == Measured(2.0, 100, quiet=True)


def test_a_worker_of_the_agent_is_asked_for_time_and_memory() -> None:
    found = look(REFERENCE_FOLDER / "reference.onnx", 1, {})

    assert 0 < found.latency_seconds < 1
    assert found.peak_rss_bytes > 10_000_000


def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")

    with pytest.raises(NotMeasuredError, match=r"bad\.onnx"):
        look(tmp_path / "bad.onnx", 1, {})


@pytest.mark.parametrize("name", ["mobilenet-v1-0.25-96", "efficientnet-b0-160", "resnet8-32"])
def test_a_written_network_runs_and_has_the_macs_that_it_should(name: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    network = published_tflite.PUBLISHED[name]()
    file = tflite_bytes(network, random_weights(network, seed=0))

    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    interpreter.invoke()
    (output,) = interpreter.get_output_details()

    assert output["shape"].tolist() == [1, *network.output_shape]
    assert kernels_from_tflite(file).macs == network.macs


def graph(macs: int) -> KernelGraph:
    kernel = Kernel("conv", ("Conv",), macs, 64, 64, 64, (NETWORK_INPUT,), (1,))
    return KernelGraph((kernel,), 64)


def test_predictions_that_are_right_have_no_error() -> None:
    graphs = [graph(macs) for macs in range(1_000_000, 12_000_000, 1_000_000)]
    measured = [Measured(g.macs * 1e-9, 50_000_000, quiet=True) for g in graphs]
    seconds = np.array([each.latency_seconds for each in measured])
    peaks = np.array([float(each.peak_rss_bytes) for each in measured])
    fitted = Calibrated(
        LatencyModel().fit(graphs, seconds),
        PeakMemoryModel().fit(graphs, peaks),
        tuple(graphs),
        tuple(measured),
        tuple("abcdefghijk"),
    )
    tested = [Unseen("x", g, m) for g, m in zip(graphs, measured, strict=True)]

    found = judge("onnx", 1, fitted, tested)

    assert found.latency.median_error < 0.01
    assert found.memory.median_error < 0.01
    assert found.latency.spearman == pytest.approx(1.0)
    assert found.flops.median_error < 0.01
    assert found.parameters.median_error > 0.1  # all have the same weights
    assert found.loud == 0


def test_errors_are_relative_to_what_was_measured() -> None:
    found = figures(np.array([1.1, 3.0, 2.0]), np.array([1.0, 2.0, 4.0]))

    assert found.median_error == pytest.approx(0.5)
    assert found.within_25_percent == pytest.approx(1 / 3)
