"""Networks as TFLite: real LiteRT answers as the torch module does."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.tflite_graph import kernels_from_tflite
from device_agent.scan_limits import ScanLimits
from device_agent.tflite_scan import scan_bytes
from host.network.graph import (
    Activation,
    Conv,
    GlobalPool,
    Network,
    NetworkBuilder,
    Pool,
)
from host.network.kernels import kernels_of
from host.network.tflite_model import tflite_bytes
from host.network.weights import folded_weights, random_weights
from tests.host.network.networks import (
    MOBILE_TEXTS,
    SPACES,
    answer_of,
    candidates,
    mobile,
    settled,
    windows,
    with_every_layer,
    with_window,
)


def run(data: bytes, x):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    (found,) = interpreter.get_output_details()
    return interpreter.get_tensor(found["index"])


def check_answers(network: Network, seed: int) -> None:
    module = settled(network, seed)
    x, wanted = answer_of(module, seed)

    found = run(tflite_bytes(network, folded_weights(module)), x)

    if wanted.ndim == 4:
        wanted = wanted.transpose(0, 2, 3, 1)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", SPACES)
def test_candidates_of_every_space_answer_as_their_torch_module(name):
    for seed, network in enumerate(candidates(name, 6)):
        check_answers(network, seed)


@pytest.mark.parametrize("text", MOBILE_TEXTS)
def test_gates_hard_swish_and_large_windows_answer_alike(text):
    check_answers(mobile(text), seed=1)


@settings(max_examples=60, deadline=None)
@given(
    windows(),
    st.integers(5, 11),
    st.integers(5, 11),
    st.sampled_from([None, "relu", "hard_swish", "sigmoid"]),
    st.integers(0, 2**31),
)
def test_any_window_on_any_map_answers_as_torch(layer, height, width, activation, seed):
    check_answers(with_window(layer, height, width, activation), seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.booleans(), st.integers(1, 5), st.integers(0, 2**31))
def test_every_layer_in_one_network_answers_as_torch(channels, gated, classes, seed):
    check_answers(with_every_layer(channels, classes, gated=gated), seed)


def strided(kind, activation="relu") -> Network:
    b = NetworkBuilder((3, 8, 8))
    index = b.conv(0, Conv(4, 1), activation)
    layer = Conv(4, 3, 2) if kind == "conv" else Pool(kind, 3, 2, 1)
    return b.build(b.add(GlobalPool(), b.add(layer, index)))


@pytest.mark.parametrize(
    ("kind", "activation", "ops"),
    [
        ("conv", "relu", ["PAD", "CONV_2D"]),
        ("maximum", "relu", ["PAD", "MAX_POOL_2D"]),
        ("maximum", "hard_swish", ["HARD_SWISH", "PADV2", "MAX_POOL_2D"]),
        ("average", "relu", ["PAD", "AVERAGE_POOL_2D", "MUL"]),
    ],
)
def test_a_border_is_an_operator_that_is_charged(kind, activation, ops):
    graph = kernels_from_tflite(tflite_bytes(strided(kind, activation), None))

    kernels = graph.kernels
    assert [kernel.ops[0] for kernel in kernels] == ["CONV_2D", *ops, "MEAN"]
    border = next(kernel for kernel in kernels if kernel.ops[0].startswith("PAD"))
    assert (border.kind, border.macs) == ("move", 0)
    assert border.input_bytes == 4 * 8 * 8 * 4
    assert border.output_bytes == 4 * 9 * 9 * 4


def test_windows_without_a_stride_need_no_border():
    b = NetworkBuilder((3, 8, 8))
    network = b.build(b.add(GlobalPool(), b.conv(0, Conv(4, 5), "relu")))

    graph = kernels_from_tflite(tflite_bytes(network, None))

    assert [kernel.ops[0] for kernel in graph.kernels] == ["CONV_2D", "MEAN"]


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


def test_a_file_says_the_names_that_the_onnx_file_has():
    network = strided("conv")

    interpreter = Interpreter(model_content=tflite_bytes(network, random_weights(network, seed=0)))

    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["input"], "outputs": ["logits"]}
    }
    names = {entry["name"] for entry in interpreter.get_tensor_details()}
    assert {"input", "n1", "n3", "logits"} <= names


@pytest.mark.parametrize("kind", ["conv", "average", "maximum"])
def test_the_agent_takes_a_file_with_borders_and_metadata(kind):
    network = strided(kind, "hard_swish")
    data = tflite_bytes(network, random_weights(network, seed=0), {"classes": "good\n傷"})

    scan = scan_bytes(data, ScanLimits())

    assert scan.operators == len(kernels_from_tflite(data).kernels)
