"""The scan stops no model that people really have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device_agent import model_scan, ncnn_scan
from device_agent.errors import ModelRejectedError
from device_agent.scan_limits import ScanLimits

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")
pytest.importorskip("torch")  # the host is installed

EXAMPLES = Path(onnx.__file__).parent / "backend" / "test" / "data"
# Operators that no runtime has yet.
EXPERIMENTAL = "ai.onnx.preview"


@pytest.mark.parametrize("name", ["nasbench201", "mobile"])
def test_networks_of_the_search_spaces_pass_in_float_and_int8(name: str) -> None:
    from host.export.quantize import quantize_int8
    from host.network.onnx_model import onnx_bytes
    from host.network.weights import random_weights
    from host.spaces.base import Task, sample
    from host.spaces.mobile import Mobile
    from host.spaces.nasbench201 import NasBench201

    space: Any = {"nasbench201": NasBench201(), "mobile": Mobile()}[name]
    random = np.random.default_rng(5)
    network = space.build(sample(space, random), Task(channels=3, classes=10))
    float_model = onnx_bytes(network, random_weights(network, seed=0))
    images = random.standard_normal((4, *network.input_shape[-3:])).astype(np.float32)

    for model in (float_model, quantize_int8(float_model, [images])):
        scan = model_scan.scan_bytes(model, ScanLimits())

        assert scan.domains == ("",)
        assert scan.control_flow == ()
        assert scan.nodes == len(onnx.load_model_from_string(model).graph.node)


@pytest.mark.parametrize("name", ["nasbench201", "mobile", "resnet-lite", "conv1d"])
def test_networks_of_the_search_spaces_pass_as_ncnn(name: str) -> None:
    from host.network.ncnn_model import ncnn_bytes
    from host.network.weights import random_weights
    from host.spaces.base import Task, is_valid, sample
    from host.spaces.catalogue import space_by_name

    space, task = space_by_name(name), Task(channels=3, classes=10)
    random = np.random.default_rng(5)
    drawn = [sample(space, random) for _ in range(40)]
    candidates = [each for each in drawn if is_valid(space, each, task)][:10]
    assert len(candidates) == 10
    for seed, candidate in enumerate(candidates):
        weights = random_weights(network := space.build(candidate, task), seed=seed)

        scan = ncnn_scan.scan_bytes(ncnn_bytes(network, weights, {"study": "s1"}), ScanLimits())

        assert list(scan.inputs) == ["input"]
        assert scan.outputs == {"logits": (10,)}


def examples() -> list[Path]:
    return sorted(EXAMPLES.rglob("model.onnx")) + sorted(EXAMPLES.rglob("light_*.onnx"))


def test_the_examples_of_the_package_onnx_pass_where_control_flow_is_allowed() -> None:
    """Every operator that ONNX has, the well-known networks, and functions."""
    refused = {}
    for path in examples():
        try:
            model_scan.scan_file(path, ScanLimits(control_flow=True))
        except ModelRejectedError as refusal:
            refused[path.parent.name] = str(refusal)

    assert len(examples()) > 1000
    assert [name for name, reason in refused.items() if EXPERIMENTAL not in reason] == []


def test_of_those_examples_only_control_flow_is_refused_where_nothing_is_allowed() -> None:
    refused = []
    for path in examples():
        try:
            model_scan.scan_file(path, ScanLimits(control_flow=False))
        except ModelRejectedError as refusal:
            refused.append(str(refusal))

    assert all("control flow" in reason or EXPERIMENTAL in reason for reason in refused)
    assert len(refused) < len(examples()) / 20
