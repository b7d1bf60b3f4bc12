"""int8 TFLite by the real quantiser, and answers by the real LiteRT."""

import sys

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from cost_models.tflite_graph import kernels_from_tflite
from device_agent.scan_limits import ScanLimits
from device_agent.tflite_scan import scan_bytes
from host.errors import UsageError
from host.export.check import compare_logits, logits_of_onnx, relative_difference
from host.export.errors import ExportError, NoGainError
from host.export.metadata import graph_sha256, metadata_of, with_metadata
from host.export.tflite import (
    TfliteQuantizer,
    feed_of_tflite,
    logits_of_tflite,
    quantize_tflite_int8,
)
from host.network.graph import Conv, GlobalPool, Linear, NetworkBuilder, Pool
from host.network.onnx_model import onnx_bytes
from host.network.tflite_model import tflite_bytes
from host.network.weights import folded_weights, random_weights
from host.spaces.base import Task
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from tests.host.export.trained_like import trained_like

CANDIDATE = "r32 w0.5 hard_swish stem2 head320 | k3e3d1 | k5e3d1se | k3e3d2 | k3e3d1se | k3e3d1"


def images(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def files():
    """The same trained-like network as TFLite and as ONNX."""
    space = Mobile()
    network = space.build(space.parse(CANDIDATE), Task(channels=1, classes=3))
    weights = folded_weights(trained_like(network).eval())
    return tflite_bytes(network, weights, {"study": "s1"}), onnx_bytes(network, weights)


@pytest.fixture(scope="module")
def int8(files):
    return quantize_tflite_int8(files[0], [images(16)])


def test_both_formats_give_the_same_logits(files):
    tflite, onnx = files
    batch = images(4)

    assert relative_difference(logits_of_tflite(tflite, batch), logits_of_onnx(onnx, batch)) < 1e-4


def test_int8_shrinks_and_answers_much_like_fp32(files, int8):
    batch = images(64, seed=2)

    wanted, found = (logits_of_tflite(model, batch) for model in (files[0], int8))

    assert len(int8) < 0.6 * len(files[0])
    assert compare_logits(wanted, found).same_answer_fraction > 0.8
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.85


def test_what_is_read_and_written_stays_float_and_all_that_multiplies_is_int8(int8):
    interpreter = Interpreter(model_content=int8)
    (read,), (written,) = interpreter.get_input_details(), interpreter.get_output_details()

    assert (read["name"], read["dtype"]) == ("input", np.float32)
    assert (written["name"], written["dtype"]) == ("logits", np.float32)
    assert interpreter.get_signature_list()["serving_default"]["outputs"] == ["logits"]
    multiply = [kernel for kernel in kernels_from_tflite(int8).kernels if kernel.macs]
    assert len(multiply) > 10
    assert all(kernel.integer for kernel in multiply)


def test_weights_have_a_scale_for_each_channel(int8):
    interpreter = Interpreter(model_content=int8)

    scales = [
        entry["quantization_parameters"]["scales"].size
        for entry in interpreter.get_tensor_details()
        if entry["dtype"] == np.int8 and len(entry["shape"]) == 4 and entry["shape"][0] > 1
    ]

    assert 8 in scales
    assert max(scales) > 100


def test_every_reader_finds_the_operators_that_the_quantiser_added(int8):
    ops = [kernel.ops[0] for kernel in kernels_from_tflite(int8).kernels]

    assert (ops[0], ops[-1]) == ("QUANTIZE", "DEQUANTIZE")
    assert scan_bytes(int8, ScanLimits()).operators >= len(ops)


def test_metadata_stay(int8):
    assert metadata_of(int8) == {"study": "s1"}
    told = with_metadata(int8, {"measured": "line-3: 1 ms"})
    assert metadata_of(told) == {"study": "s1", "measured": "line-3: 1 ms"}
    assert graph_sha256(told) == graph_sha256(int8)
    assert np.array_equal(logits_of_tflite(told, images(2)), logits_of_tflite(int8, images(2)))


def test_layers_can_stay_in_float(files, int8):
    quantizer = TfliteQuantizer(files[0], [images(16)])

    mixed = quantizer.int8(quantizer.layers[:3])

    multiply = [kernel.integer for kernel in kernels_from_tflite(mixed).kernels if kernel.macs]
    assert multiply == [False] * 3 + [True] * (len(quantizer.layers) - 3)
    assert quantizer.int8() == int8


def test_quantising_twice_gives_the_same_bytes_and_says_nothing(files, int8, capsys, caplog):
    assert quantize_tflite_int8(files[0], iter(images(16))) == int8
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []


def test_a_maximum_over_a_border_below_everything_survives_int8():
    b = NetworkBuilder((1, 32, 32))
    index = b.add(Pool("maximum", 3, 2, 1), b.conv(0, Conv(8, 3), "hard_swish"))
    network = b.build(b.add(Linear(3), b.add(GlobalPool(), b.conv(index, Conv(8, 3), "relu"))))
    fp32 = tflite_bytes(network, random_weights(network, seed=0))

    found = quantize_tflite_int8(fp32, [images(16)])

    wanted = logits_of_tflite(fp32, images(16, seed=2))
    assert relative_difference(logits_of_tflite(found, images(16, seed=2)), wanted) < 0.1


@pytest.mark.parametrize("shape", [(16, 2, 512), (16, 2, 1, 512)])
def test_signals_are_images_of_height_one(shape):
    space = Conv1d()
    text = "l512 c16 k63 s16 pool head128 | plain k3 d1 | plain k3 d1 | plain k3 d1 | plain k3 d1"
    network = space.build(space.parse(text), Task(channels=2, classes=3))
    weights = random_weights(network, seed=0)
    signals = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    fp32 = tflite_bytes(network, weights)

    wanted = logits_of_onnx(onnx_bytes(network, weights), signals)
    int8 = quantize_tflite_int8(fp32, [signals])

    assert feed_of_tflite(fp32, signals).inputs.shape == (16, 1, 512, 2)
    assert relative_difference(logits_of_tflite(fp32, signals), wanted) < 1e-4
    assert relative_difference(logits_of_tflite(int8, signals), wanted) < 0.2
    assert quantize_tflite_int8(fp32, list(signals)) == int8


def test_int8_without_images_is_a_sentence(files):
    with pytest.raises(ExportError, match="int8 needs calibration images"):
        quantize_tflite_int8(files[0], [])


def test_images_of_another_size_are_refused(files):
    with pytest.raises(ExportError, match=r"reads images of \[1, 32, 32\], it got"):
        quantize_tflite_int8(files[0], [np.zeros((2, 1, 16, 16), np.float32)])
    with pytest.raises(ExportError, match=r"reads images of \[1, 32, 32\], it got"):
        logits_of_tflite(files[0], np.zeros((0, 1, 32, 32), np.float32))


def test_weights_that_do_not_shrink_are_refused(files):
    quantizer = TfliteQuantizer(files[0], [images(2)])

    with pytest.raises(NoGainError, match="made the weights no smaller"):
        quantizer.int8(quantizer.layers)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00\x00\x00\x00TFL3" + bytes(8)])
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(ExportError):
        logits_of_tflite(content, images(1))
    with pytest.raises(ExportError):
        quantize_tflite_int8(content, [images(1)])


def file_of(graph, codes, buffers) -> bytes:
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], codes, buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def reads_beyond_its_input() -> bytes:
    """A file that loads; when it runs, it asks for a row that is not there."""
    graph, code, stored = schema.SubGraphT(), schema.OperatorCodeT(), schema.BufferT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.GATHER
    stored.data = np.array([9], np.int32).view(np.uint8)
    float32, int32 = schema.TensorType.FLOAT32, schema.TensorType.INT32
    sides = {"input": [1, 1, 1, 1], "rows": [1], "logits": [1, 1, 1, 1]}
    graph.tensors = [
        tensor_of(name, shape, int32 if name == "rows" else float32, int(name == "rows"))
        for name, shape in sides.items()
    ]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.GatherOptions
    operator.builtinOptions = schema.GatherOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    return file_of(graph, [code], [schema.BufferT(), stored])


def tensor_of(name, shape, kind, buffer):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    return tensor


def test_a_file_that_loads_and_does_not_run_is_refused():
    with pytest.raises(ExportError, match=r"^LiteRT cannot run the model: .+$"):
        logits_of_tflite(reads_beyond_its_input(), np.zeros((1, 1, 1, 1), np.float32))
    with pytest.raises(ExportError, match=r"^LiteRT cannot run the model: .+$"):
        quantize_tflite_int8(reads_beyond_its_input(), [np.zeros((1, 1, 1, 1), np.float32)])


def test_a_file_that_reads_integers_is_refused():
    graph, code = schema.SubGraphT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ABS
    int32 = schema.TensorType.INT32
    graph.tensors = [tensor_of(name, [1, 1, 1, 1], int32, 0) for name in ("input", "logits")]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]

    with pytest.raises(ExportError, match="LiteRT cannot run the model: Cannot set tensor"):
        logits_of_tflite(
            file_of(graph, [code], [schema.BufferT()]), np.zeros((1, 1, 1, 1), np.float32)
        )


def test_answers_that_are_not_finite_are_refused(files):
    batch = images(1)
    batch[0, 0, 0, 0] = np.nan

    with pytest.raises(ExportError, match="not finite"):
        logits_of_tflite(files[0], batch)


@pytest.mark.parametrize("missing", ["ai_edge_litert.interpreter", "ai_edge_quantizer.calibrator"])
def test_a_missing_extra_is_named(files, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(UsageError, match=r"pip install 'genba\[tflite-export\]'"):
        quantize_tflite_int8(files[0], [images(2)])
