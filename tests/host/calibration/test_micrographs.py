"""The synthetic networks: valid, small, the same each time, and every kind of work among them."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter

from cost_models.features import FEATURE_NAMES, feature_rows
from cost_models.kernels import KERNEL_CLASSES
from cost_models.onnx_graph import kernels_from_onnx
from cost_models.tflite_graph import kernels_from_tflite
from device_agent import tflite_scan
from device_agent.model_scan import scan_file
from device_agent.scan_limits import ScanLimits
from host.calibration.micrographs import MicroGraph, micrographs, small_networks
from host.calibration.model_writer import NotInFormatError
from host.calibration.onnx_writer import OnnxWriter
from host.calibration.specimens import FORMS, Form, Specimen, mobile_candidates
from host.calibration.tflite_writer import TfliteWriter


def every(form: Form) -> tuple[MicroGraph, ...]:
    return (*micrographs(form), *small_networks(form))


def one_of_each(form: Form) -> tuple[MicroGraph, ...]:
    found = {tuple(graph.name.split()[:2]): graph for graph in small_networks(form)}
    found |= {(graph.name.split()[0],): graph for graph in micrographs(form)}
    return tuple(found.values())


def of_name(graph: object) -> str:
    return f"{graph.form} {graph.name}" if isinstance(graph, MicroGraph) else str(graph)


ONNX, TFLITE = one_of_each("onnx"), one_of_each("tflite")


@pytest.mark.parametrize("form", FORMS)
def test_names_are_unique_and_there_is_enough_to_choose_from(form: Form):
    names = [graph.name for graph in every(form)]

    assert len(names) == len(set(names))
    assert len(names) >= 200
    assert {graph.form for graph in every(form)} == {form}


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_work_is_in_some_of_them(form: Form):
    present = (feature_rows([graph.kernels for graph in micrographs(form)]) > 0).sum(axis=0)
    kinds = {kernel.kind for graph in micrographs(form) for kernel in graph.kernels.kernels}

    counts = dict(zip(FEATURE_NAMES, present, strict=True))
    assert [name for name, count in counts.items() if count < 2 and "unknown" not in name] == []
    assert set(KERNEL_CLASSES) - kinds <= {"unknown"}


@pytest.mark.parametrize("form", FORMS)
def test_nothing_in_them_is_unknown_to_the_cost_models(form: Form):
    unknown = {
        kernel.ops
        for graph in every(form)
        for kernel in graph.kernels.kernels
        if kernel.kind == "unknown"
    }

    assert unknown == set()


def test_a_network_multiplies_as_much_in_either_format_but_for_wide_windows():
    of_onnx = {graph.name: graph.kernels for graph in every("onnx")}
    different = {
        graph.name
        for graph in every("tflite")
        if graph.kernels.macs != of_onnx[graph.name].macs and not graph.name.startswith("recurrent")
    }

    assert {name for name in different if " wide " not in name} == set()
    assert different


def test_whole_networks_have_no_window_that_tflite_is_slow_with():
    whole: list[Specimen] = [*small_networks("tflite"), *mobile_candidates(20, 3, "tflite")]
    taps = {
        round(kernel.macs / (kernel.output_bytes / 4))
        for one in whole
        for kernel in one.kernels.kernels
        if kernel.kind == "depthwise"
    }

    assert taps <= {9, 25}


def test_the_formats_have_the_same_whole_networks_and_nearly_the_same_chains():
    def names(graphs: tuple[MicroGraph, ...]) -> list[str]:
        return [graph.name for graph in graphs]

    assert names(small_networks("onnx")) == names(small_networks("tflite"))
    missing = set(names(micrographs("onnx"))) - set(names(micrographs("tflite")))
    assert {name.split(" of ")[0] for name in missing} == {"recurrent GRU", "transcendental Erf"}


def test_what_tflite_cannot_compute_is_refused():
    writer = TfliteWriter()

    with pytest.raises(NotInFormatError, match="GRU"):
        writer.recurrent(writer.sequence(4, 8), "GRU", 8)
    with pytest.raises(NotInFormatError, match="erf"):
        writer.apply("erf", writer.rows(1, 8))


@pytest.mark.parametrize("graph", ONNX, ids=of_name)
def test_an_old_onnxruntime_can_load_them(graph: MicroGraph, tmp_path):
    data = graph.model_bytes()
    model = onnx.load_from_string(data)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)

    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import] == [17]
    assert model.ir_version == 8
    assert len(data) <= 10_500_000
    scan_file(path, ScanLimits())


@pytest.mark.parametrize("graph", TFLITE, ids=of_name)
def test_the_agent_lets_the_tflite_files_pass(graph: MicroGraph, tmp_path):
    data = graph.model_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(data)

    assert len(data) <= 10_500_000
    tflite_scan.scan_file(path, ScanLimits())


def answer(graph: MicroGraph):
    """What the network makes of random numbers."""
    rng = np.random.default_rng(0)
    if graph.form == "onnx":
        session = ort.InferenceSession(graph.model_bytes(), providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        (output,) = session.run(None, {entry.name: rng.standard_normal(entry.shape, np.float32)})
        return output
    interpreter = Interpreter(model_content=graph.model_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], rng.standard_normal(entry["shape"], np.float32))
    interpreter.invoke()
    (found,) = interpreter.get_output_details()
    return interpreter.get_tensor(found["index"])


@pytest.mark.parametrize("graph", [*ONNX, *TFLITE], ids=of_name)
def test_they_run_and_stay_finite(graph: MicroGraph):
    assert np.isfinite(answer(graph)).all()


@pytest.mark.parametrize("graph", [*ONNX, *TFLITE], ids=of_name)
def test_the_bytes_are_the_same_each_time_and_kernels_need_no_weights(graph: MicroGraph):
    read = kernels_from_onnx if graph.form == "onnx" else kernels_from_tflite
    data = graph.model_bytes()

    assert graph.model_bytes() == data
    assert graph.kernels == read(data)


@pytest.mark.parametrize("writer", [OnnxWriter, TfliteWriter])
def test_a_writer_of_another_seed_writes_other_weights(writer):
    def written(seed: int) -> bytes:
        w = writer(seed)
        data: bytes = w.finish(w.dense(w.rows(1, 16), 16))
        return data

    assert written(1) == written(1) != written(2)
    assert len(written(1)) == len(written(2))
