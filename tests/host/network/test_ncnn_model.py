"""Networks as ncnn models: real ncnn answers as the torch module does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.export.ncnn import NcnnProgram
from host.network.graph import (
    Activation,
    Conv,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
    Scale,
)
from host.network.ncnn_file import NcnnLayer, layers_of, read_ncnn_file
from host.network.ncnn_layers import check_weights, unknown_layers
from host.network.ncnn_model import ncnn_bytes
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

pytest.importorskip("ncnn")


def layers_in(network: Network) -> tuple[NcnnLayer, ...]:
    return layers_of(read_ncnn_file(ncnn_bytes(network, random_weights(network, seed=0))).param)


def check_answers(network: Network, seed: int) -> None:
    module = settled(network, seed)
    x, wanted = answer_of(module, seed)

    found = NcnnProgram(ncnn_bytes(network, folded_weights(module))).run({"input": x[0]})["logits"]

    assert found.shape == wanted.shape[1:]
    assert np.abs(found - wanted[0]).max() <= 1e-4 * np.abs(wanted).max()


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


@pytest.mark.parametrize("side", [4, 8])
def test_a_gate_scales_channels_where_a_map_has_as_many_columns(side):
    b = NetworkBuilder((side, side, side))
    gate = b.conv(b.add(GlobalPool(), 0), Conv(side, 1), "sigmoid")

    check_answers(b.build(b.add(Scale(), 0, gate)), seed=2)


def test_a_mean_over_the_map_may_be_convolved_and_pooled_again():
    b = NetworkBuilder((4, 6, 6))
    mean = b.add(GlobalPool(), 0)
    deep = b.add(Conv(4, 3, groups=4), mean)
    joined = b.add(Pool("average", 3, 1, 1), b.sum([mean, deep]))

    check_answers(b.build(b.add(Linear(3), joined)), seed=3)


def test_an_activation_that_ends_the_network_is_its_output():
    b = NetworkBuilder((4, 6, 6))
    conv = b.add(Conv(4, 3), 0)
    network = b.build(b.add(Activation("relu6"), conv))

    check_answers(network, seed=4)
    assert [layer.type for layer in layers_in(network)] == ["Input", "Convolution"]


def test_a_convolution_that_others_read_too_keeps_its_activation_apart():
    b = NetworkBuilder((8, 4, 4))
    conv = b.add(Conv(8, 3), 0)
    network = b.build(b.sum([conv, b.add(Activation("relu"), conv)]))

    kinds = [layer.type for layer in layers_in(network)]

    assert kinds == ["Input", "Convolution", "Split", "ReLU", "BinaryOp"]


def test_a_file_says_the_names_that_the_onnx_file_has_and_the_shape_of_its_input():
    network = mobile(MOBILE_TEXTS[0])

    program = NcnnProgram(ncnn_bytes(network, random_weights(network, seed=0)))

    assert program.inputs == {"input": (1, 32, 32)}
    assert program.outputs == ("logits",)


@pytest.mark.parametrize("name", SPACES)
def test_the_weights_are_exactly_those_that_the_layers_read(name):
    (network,) = candidates(name, 1)
    model = read_ncnn_file(ncnn_bytes(network, random_weights(network, seed=0)))
    layers = layers_of(model.param)

    assert not unknown_layers(layers)
    check_weights(model, layers)
