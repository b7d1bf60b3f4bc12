"""The synthetic networks: valid, small, the same each time, and every kind of work among them."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cost_models.features import FEATURE_NAMES, feature_rows
from cost_models.kernels import KERNEL_CLASSES
from cost_models.onnx_graph import kernels_from_onnx
from device_agent.model_scan import scan_file
from device_agent.scan_limits import ScanLimits
from host.calibration.micrographs import MicroGraph, micrographs, small_networks

EVERY = (*micrographs(), *small_networks())
ONE_OF_EACH = tuple({tuple(graph.name.split()[:2]): graph for graph in small_networks()}.values())
ONE_OF_EACH += tuple({graph.name.split()[0]: graph for graph in micrographs()}.values())


def of_name(graph: MicroGraph) -> str:
    return graph.name


def test_names_are_unique_and_there_is_enough_to_choose_from():
    names = [graph.name for graph in EVERY]

    assert len(names) == len(set(names))
    assert len(names) >= 200


def test_every_kind_of_work_is_in_some_of_them():
    present = (feature_rows([graph.kernels for graph in micrographs()]) > 0).sum(axis=0)
    kinds = {kernel.kind for graph in micrographs() for kernel in graph.kernels.kernels}

    counts = dict(zip(FEATURE_NAMES, present, strict=True))
    assert [name for name, count in counts.items() if count < 2 and "unknown" not in name] == []
    assert set(KERNEL_CLASSES) - kinds <= {"unknown"}


def test_nothing_in_them_is_unknown_to_the_cost_models():
    unknown = {
        kernel.ops
        for graph in EVERY
        for kernel in graph.kernels.kernels
        if kernel.kind == "unknown"
    }

    assert unknown == set()


@pytest.mark.parametrize("graph", ONE_OF_EACH, ids=of_name)
def test_an_old_runtime_can_load_them(graph, tmp_path):
    data = graph.onnx()
    model = onnx.load_from_string(data)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)

    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import] == [17]
    assert model.ir_version == 8
    assert len(data) <= 10_500_000
    scan_file(path, ScanLimits())


@pytest.mark.parametrize("graph", ONE_OF_EACH, ids=of_name)
def test_they_run_and_stay_finite(graph):
    session = ort.InferenceSession(graph.onnx(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    x = np.random.default_rng(0).standard_normal(entry.shape, dtype=np.float32)

    (output,) = session.run(None, {entry.name: x})

    assert np.isfinite(output).all()


@pytest.mark.parametrize("graph", ONE_OF_EACH, ids=of_name)
def test_the_bytes_are_the_same_each_time_and_kernels_need_no_weights(graph):
    data = graph.onnx()

    assert graph.onnx() == data
    assert graph.kernels == kernels_from_onnx(data)
