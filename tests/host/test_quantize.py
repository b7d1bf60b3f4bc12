"""Exported files: that they load, answer alike, shrink, and stay right on old CPUs."""

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch

from host.export.check import LogitComparison, compare_logits, logits_of_onnx
from host.export.errors import ExportError
from host.export.metadata import graph_sha256, metadata_of, onnx_metadata, parse, with_metadata
from host.export.quantize import quantize_int8
from host.network.onnx_model import onnx_bytes
from host.network.torch_module import build_module
from host.network.weights import folded_weights
from host.preprocessing import Preprocessing
from host.spaces.base import Task
from host.spaces.mobile import Mobile

CANDIDATES = (
    "r32 w0.5 relu stem2 head320 | k3e3d1 | k3e3d2 | k5e3d1 | k3e3d1 | k3e3d1",
    "r32 w0.5 hard_swish stem2 head320 | k3e3d1 | k5e3d1se | k3e3d2 | k3e3d1se | k3e3d1",
)


@pytest.fixture(scope="module", params=CANDIDATES, ids=["relu", "hard_swish"])
def exported(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, bytes]:
    space = Mobile()
    network = space.build(space.parse(request.param), Task(channels=1, classes=3))
    module = build_module(network, seed=0)
    generator = torch.Generator().manual_seed(0)
    # A few batches, averaged, give the normalisations their statistics.
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        for _ in range(6):
            module(torch.randn(16, 1, 32, 32, generator=generator))
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=0.3, generator=generator)
    module.eval()
    return module, onnx_bytes(network, folded_weights(module), {"study": "s1"})


def images(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def int8(exported: tuple[torch.nn.Module, bytes]) -> bytes:
    return quantize_int8(exported[1], [images(16)])


def test_the_onnx_file_answers_as_the_module(exported: tuple[torch.nn.Module, bytes]) -> None:
    module, fp32 = exported
    batch = images(4)

    comparison = compare_logits(
        module(torch.from_numpy(batch)).detach().numpy(), logits_of_onnx(fp32, batch)
    )

    assert comparison.max_abs_difference < 1e-4
    assert comparison.same_answer_fraction == 1.0
    assert comparison.n == 4


def test_int8_shrinks_loads_and_answers_much_like_fp32(
    exported: tuple[torch.nn.Module, bytes], int8: bytes
) -> None:
    batch = images(64, seed=2)

    fp32_logits, int8_logits = logits_of_onnx(exported[1], batch), logits_of_onnx(int8, batch)

    assert len(int8) < 0.6 * len(exported[1])
    assert compare_logits(fp32_logits, int8_logits).same_answer_fraction > 0.8
    assert np.corrcoef(fp32_logits.ravel(), int8_logits.ravel())[0, 1] > 0.85


def test_int8_weights_use_seven_bits_so_that_no_cpu_saturates(int8: bytes) -> None:
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in parse(int8).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]

    assert len(weights) > 5
    # Two products of a uint8 and a weight are added in int16 on AVX2 without VNNI.
    for weight in weights:
        assert 2 * 255 * int(np.abs(weight.astype(int)).max()) < 2**15


def test_int8_is_per_channel_with_uint8_activations(int8: bytes) -> None:
    graph = parse(int8).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    scales = {
        tuple(tensors[node.input[1]].dims)
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in tensors
        and tensors[node.input[0]].data_type == onnx.TensorProto.INT8
    }
    kinds = {
        tensors[node.input[2]].data_type for node in graph.node if node.op_type == "QuantizeLinear"
    }

    assert (8,) in scales
    assert kinds == {onnx.TensorProto.UINT8}


def test_int8_keeps_what_old_runtimes_need_and_the_properties(int8: bytes) -> None:
    model = parse(int8)

    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert metadata_of(int8) == {"study": "s1"}
    assert model.producer_name == "genba"


def test_quantising_twice_gives_the_same_bytes_and_says_nothing(
    exported: tuple[torch.nn.Module, bytes], int8: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one_by_one: Iterator[np.ndarray] = iter(images(16))

    again = quantize_int8(exported[1], one_by_one)

    assert again == int8
    assert caplog.records == []


def test_int8_without_images_is_a_sentence(exported: tuple[torch.nn.Module, bytes]) -> None:
    with pytest.raises(ExportError, match="int8 needs calibration images"):
        quantize_int8(exported[1], [])


def test_calibration_images_of_another_size_are_refused(
    exported: tuple[torch.nn.Module, bytes],
) -> None:
    with pytest.raises(ExportError, match=r"reads images of \[1, 32, 32\], it got"):
        quantize_int8(exported[1], [np.zeros((1, 16, 16), np.float32)])


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08"])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(ExportError):
        quantize_int8(content, [images(1)])
    with pytest.raises(ExportError, match="cannot load"):
        logits_of_onnx(content, images(1))
    with pytest.raises(ExportError):
        with_metadata(content, {})


def test_answers_that_are_not_finite_are_refused(exported: tuple[torch.nn.Module, bytes]) -> None:
    batch = images(1)
    batch[0, 0, 0, 0] = np.nan

    with pytest.raises(ExportError, match="not finite"):
        logits_of_onnx(exported[1], batch)


def test_logits_of_different_shapes_are_not_compared() -> None:
    with pytest.raises(ExportError, match="cannot be compared"):
        compare_logits(np.zeros((2, 2), np.float32), np.zeros((3, 2), np.float32))


def test_a_comparison_finds_the_largest_difference() -> None:
    left = np.array([[0.0, 1.0], [2.0, 1.0]], np.float32)
    right = np.array([[0.5, 0.25], [2.0, 1.0]], np.float32)

    assert compare_logits(left, right) == LogitComparison(0.75, 0.5, 2)


def test_properties_are_added_and_the_graph_stays_the_same(
    exported: tuple[torch.nn.Module, bytes],
) -> None:
    _, fp32 = exported

    named = with_metadata(fp32, {"classes": "a\nb", "study": "s2"})

    assert metadata_of(named) == {"classes": "a\nb", "study": "s2"}
    assert graph_sha256(named) == graph_sha256(fp32)
    assert np.array_equal(logits_of_onnx(named, images(2)), logits_of_onnx(fp32, images(2)))
    assert with_metadata(named, {"study": "s2"}) == named


def test_the_metadata_name_classes_and_input() -> None:
    preprocessing = Preprocessing(32, 48, 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))

    entries = onnx_metadata(
        classes=("good", "傷"),
        preprocessing=preprocessing,
        study="s1",
        candidate="r32",
        data_fingerprint="f" * 64,
    )

    assert entries["classes"] == "good\n傷"
    assert entries["input_layout"] == "NCHW"
    assert entries["input_size"] == "32x48"
    assert entries["colour_order"] == "RGB"
    assert entries["mean"] == "[0.5, 0.4, 0.3]"
