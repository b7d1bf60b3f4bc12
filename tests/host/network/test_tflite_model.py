"""Networks as TFLite: real LiteRT answers as the torch module does."""

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.tflite_graph import kernels_from_tflite
from device_agent.scan_limits import ScanLimits
from device_agent.tflite_scan import scan_bytes
from host.network.graph import (
    Activation,
    BatchNorm,
    Conv,
    GlobalPool,
    InvalidNetworkError,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
    Scale,
)
from host.network.kernels import kernels_of
from host.network.tflite_model import tflite_bytes
from host.network.torch_module import build_module
from host.network.weights import folded_weights, random_weights
from host.spaces.base import Choices, Task, sample
from host.spaces.catalogue import space_by_name


def run(data: bytes, x):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    (found,) = interpreter.get_output_details()
    return interpreter.get_tensor(found["index"])


def settled(network: Network, seed: int):
    """A module whose normalisations, biases and classifier are no longer the identity or zero."""
    module = build_module(network, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.3, generator=generator)
                layer.running_var.uniform_(0.5, 2.0, generator=generator)
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.3, generator=generator)
            elif isinstance(layer, torch.nn.Linear):
                layer.weight.normal_(0, 0.2, generator=generator)
    return module.eval()


def check_answers(network: Network, seed: int) -> None:
    module = settled(network, seed)
    shape = (1, *network.input_shape)
    x = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()

    found = run(tflite_bytes(network, folded_weights(module)), x)

    if wanted.ndim == 4:
        wanted = wanted.transpose(0, 2, 3, 1)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


SPACES: dict[str, dict[str, Choices]] = {
    "nasbench201": {},
    "mobile": {"resolution": (32, 48), "width": (0.25, 0.5), "depth": (1, 2)},
    "resnet-lite": {"resolution": (32, 48), "width": (16,), "growth": (1.5,)},
    "conv1d": {},
}


@pytest.mark.parametrize("name", SPACES)
def test_candidates_of_every_space_answer_as_their_torch_module(name):
    restrict = SPACES[name]
    space = space_by_name(name, restrict=restrict, resolution=16 if name == "nasbench201" else None)
    rng = np.random.default_rng(5)
    checked = 0
    while checked < 6:
        try:
            network = space.build(sample(space, rng), Task(channels=3, classes=4))
        except InvalidNetworkError:
            continue
        check_answers(network, seed=checked)
        checked += 1


@pytest.mark.parametrize(
    "text",
    [
        "r32 w0.5 hard_swish stem2 head320 | k5e3d1se | k7e3d2 | k3e4d1se | k5e3d1 | k3e3d1se",
        "r48 w0.25 relu6 stem4 head0 | k7e1d1 | k5e3d1se | k3e3d1 | k3e3d2 | k5e6d1",
    ],
)
def test_gates_hard_swish_and_large_windows_answer_alike(text):
    space = space_by_name("mobile")

    check_answers(space.build(space.parse(text), Task(channels=1, classes=3)), seed=1)


@st.composite
def layers(draw):
    window = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    kind = draw(st.sampled_from(["conv", "depthwise", "grouped", "average", "maximum"]))
    match kind:
        case "conv" | "depthwise" | "grouped":
            groups = {"conv": 1, "depthwise": 4, "grouped": 2}[kind]
            return Conv(4, window, stride, groups=groups)
        case _:
            padding = tuple(draw(st.integers(0, size // 2)) for size in window)
            return Pool(kind, window, stride, padding)


@settings(max_examples=60, deadline=None)
@given(
    layers(),
    st.integers(5, 11),
    st.integers(5, 11),
    st.sampled_from([None, "relu", "hard_swish", "sigmoid"]),
    st.integers(0, 2**31),
)
def test_any_window_on_any_map_answers_as_torch(layer, height, width, activation, seed):
    b = NetworkBuilder((2, height, width))
    index = b.conv(0, Conv(4, 1), activation)
    index = b.add(layer, index)

    check_answers(b.build(b.add(Activation("relu"), index)), seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.booleans(), st.integers(1, 5), st.integers(0, 2**31))
def test_every_layer_in_one_network_answers_as_torch(channels, gated, classes, seed):
    b = NetworkBuilder((3, 9, 8))
    stem = b.conv(0, Conv(channels, 5, 2), "relu")
    normed = b.add(Activation("relu6"), b.add(BatchNorm(), b.add(Conv(channels, 3), stem)))
    narrow = b.conv(normed, Conv(channels, 1, norm=False, bias=True), "hard_swish")
    if gated:
        gate = b.conv(b.add(GlobalPool(), narrow), Conv(channels, 1), "hard_sigmoid")
        narrow = b.add(Scale(), narrow, gate)
    joined = b.add(Activation("relu"), b.sum([stem, narrow]))
    pooled = b.add(Pool("average", 3, 1, 1), b.add(Pool("maximum", 3, 1, 1), joined))

    check_answers(b.build(b.add(Activation("sigmoid"), b.add(Linear(classes), pooled))), seed)


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
