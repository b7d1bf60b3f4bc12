"""TFLite files: what is written is read back, runs, and answers as the ONNX file does."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.tflite_graph import kernels_from_tflite
from host.calibration.specimens import mobile_candidates
from host.calibration.tflite_file import OMITTED, Quantisation, TfliteFile
from host.calibration.tflite_network import tflite_bytes
from host.network.graph import (
    Activation,
    BatchNorm,
    Conv,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
    Scale,
)
from host.network.kernels import kernels_of
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights


def run(data: bytes, x):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    (found,) = interpreter.get_output_details()
    return interpreter.get_tensor(found["index"])


def small_network(channels: int, kernel: int, side: int, *, gated: bool, classes: int) -> Network:
    """Every layer that is written, without a stride: windows then lie alike in both formats."""
    b = NetworkBuilder((3, side, side))
    stem = b.conv(0, Conv(channels, kernel), "relu")
    deep = b.conv(stem, Conv(channels, 3, groups=channels), "relu6")
    narrow = b.conv(deep, Conv(channels, 1, norm=False, bias=True), "hard_swish")
    if gated:
        gate = b.conv(b.add(GlobalPool(), narrow), Conv(channels, 1), "hard_sigmoid")
        narrow = b.add(Scale(), narrow, gate)
    joined = b.add(Activation("relu"), b.sum([stem, narrow]))
    pooled = b.add(Pool("average", 3, 1, 1), b.add(Pool("maximum", 3, 1, 1), joined))
    return b.build(b.add(Activation("sigmoid"), b.add(Linear(classes), pooled)))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 9),
    st.booleans(),
    st.integers(1, 5),
    st.integers(0, 2**31),
)
def test_a_network_answers_alike_in_either_format(channels, kernel, side, gated, classes, seed):
    network = small_network(channels, kernel, side, gated=gated, classes=classes)
    weights = random_weights(network, seed=seed)
    x = np.random.default_rng(seed).standard_normal((1, 3, side, side), dtype=np.float32)

    (wanted,) = ort.InferenceSession(onnx_bytes(network, weights)).run(None, {"input": x})
    found = run(tflite_bytes(network, weights), np.ascontiguousarray(x.transpose(0, 2, 3, 1)))

    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_candidate_does_the_same_work_in_either_format():
    for of_tflite in mobile_candidates(20, 3, "tflite"):
        of_onnx = replace(of_tflite, form="onnx")
        assert of_onnx.kernels.macs == of_tflite.kernels.macs
        assert of_tflite.kernels.weight_bytes == pytest.approx(
            of_onnx.kernels.weight_bytes, rel=0.01
        )


def test_kernels_of_a_candidate_are_those_of_the_file_that_is_sent():
    (candidate,) = mobile_candidates(1, 3, "tflite")

    data = candidate.model_bytes()

    assert data[4:8] == b"TFL3"
    assert candidate.kernels == kernels_from_tflite(data)
    assert candidate.model_bytes() == data
    assert np.isfinite(run(data, np.zeros((1, *shape_of(candidate.network)), np.float32))).all()


def shape_of(network: Network) -> tuple[int, ...]:
    channels, height, width = network.input_shape
    return height, width, channels


def test_a_relu_that_alone_reads_a_convolution_is_part_of_it():
    b = NetworkBuilder((8, 4, 4))
    network = b.build(b.add(GlobalPool(), b.conv(0, Conv(8, 3), "relu6")))
    shared = NetworkBuilder((8, 4, 4))
    conv = shared.add(Conv(8, 3), 0)
    both = shared.build(shared.sum([conv, shared.add(Activation("relu"), conv)]))

    fused, apart = (kernels_from_tflite(tflite_bytes(one, None)) for one in (network, both))

    assert fused.kernels[0].ops == ("CONV_2D", "RELU6")
    assert [kernel.ops for kernel in apart.kernels] == [("CONV_2D",), ("RELU",), ("ADD",)]
    assert fused.macs == kernels_of(network).macs


def test_grouped_convolutions_answer_alike():
    b = NetworkBuilder((6, 5, 5))
    network = b.build(b.add(GlobalPool(), b.add(Conv(4, 3, groups=2), 0)))
    weights = random_weights(network, seed=1)
    x = np.random.default_rng(1).standard_normal((1, 6, 5, 5), dtype=np.float32)

    (wanted,) = ort.InferenceSession(onnx_bytes(network, weights)).run(None, {"input": x})
    found = run(tflite_bytes(network, weights), np.ascontiguousarray(x.transpose(0, 2, 3, 1)))

    np.testing.assert_allclose(found.ravel(), wanted.ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "side"),
    [(BatchNorm(), 4), (Conv(8, 2), 4), (Pool("maximum", 2, 2), 5), (Pool("maximum", 3, 1), 4)],
)
def test_a_layer_that_cannot_be_written_is_refused(layer, side):
    b = NetworkBuilder((8, side, side))
    network = b.build(b.add(GlobalPool(), b.add(layer, 0)))

    with pytest.raises(ValueError, match="not written as TFLite"):
        tflite_bytes(network, None)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40))
def test_constants_come_back_as_they_were_written(values):
    file = TfliteFile()
    x = file.input(1, 4)
    constant = file.constant(np.array(values, np.int32))
    data = file.finish(file.operator("ABS", [x], (1, 4)))

    interpreter = Interpreter(model_content=data)

    assert interpreter.get_tensor(constant).tolist() == values
    assert file.shape(constant) == (len(values),)


def test_weights_lie_where_vectors_can_read_them():
    file = TfliteFile()
    x = file.input(1, 64)
    weights = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    made = file.connect(x, file.constant(weights), OMITTED)

    data = file.finish(made)

    assert data.find(weights.tobytes()) % 16 == 0


def test_integers_carry_their_scale():
    file = TfliteFile()
    x = file.operator("QUANTIZE", [file.input(1, 4)], (1, 4), Quantisation((0.5,)))
    data = file.finish(file.operator("DEQUANTIZE", [x], (1, 4)))

    found = run(data, np.array([[0.2, 0.3, -1.4, 900.0]], np.float32))

    assert found.tolist() == [[0.0, 0.5, -1.5, 63.5]]
