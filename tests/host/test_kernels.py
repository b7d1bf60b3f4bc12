"""Kernels of a network: those of its exported file, and those that onnxruntime executes."""

from collections import Counter

import onnx
import onnxruntime as ort
import pytest

from cost_models.onnx_graph import kernels_from_onnx
from host.network.graph import (
    Activation,
    Conv,
    GlobalPool,
    Linear,
    NetworkBuilder,
    Pool,
)
from host.network.kernels import kernels_of
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from host.spaces.nasbench201 import NasBench201
from host.spaces.resnet_lite import ResNetLite

SPACES = [
    NasBench201(),
    Mobile({"resolution": (32, 64), "width": (0.25, 0.5)}),
    ResNetLite({"resolution": (32, 48), "width": (16, 32)}),
    Conv1d({"width": (4, 8, 16)}),
]


def executed_operators(network, tmp_path):
    """The operators of the graph that onnxruntime runs, as it writes it out itself."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(
        onnx_bytes(network, random_weights(network, seed=1)),
        options,
        providers=["CPUExecutionProvider"],
    )
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    names = Counter(node.op_type.removeprefix("Fused") for node in nodes)
    del names["Flatten"]
    return names


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_kernels_of_a_network_are_those_read_from_its_onnx_file(random_networks, space):
    for network in random_networks(space, 25):
        exported = onnx_bytes(network, random_weights(network, seed=1))

        assert kernels_of(network) == kernels_from_onnx(exported)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_kernels_are_the_operators_that_onnxruntime_executes(random_networks, space, tmp_path):
    for network in random_networks(space, 5):
        leading = Counter(kernel.ops[0] for kernel in kernels_of(network).kernels)

        assert leading == executed_operators(network, tmp_path)


@pytest.mark.parametrize("kind", ["relu", "relu6", "hard_swish", "sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("with_norm", [True, False])
def test_every_activation_is_fused_where_onnxruntime_fuses_it(kind, with_norm, tmp_path):
    builder = NetworkBuilder((3, 8, 8))
    index = builder.conv(0, Conv(8, kernel=3, norm=with_norm), kind)
    index = builder.add(Pool("maximum", kernel=2, stride=2), index)
    index = builder.add(GlobalPool(), index)
    index = builder.add(Activation(kind), builder.add(Linear(4), index))
    network = builder.build(builder.add(Linear(2), index))

    kernels = kernels_of(network)

    assert kernels == kernels_from_onnx(onnx_bytes(network, random_weights(network, seed=0)))
    assert Counter(k.ops[0] for k in kernels.kernels) == executed_operators(network, tmp_path)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_costs_of_kernels_add_up_to_those_of_the_network(random_networks, space):
    for network in random_networks(space, 10):
        graph = kernels_of(network)

        assert graph.macs == network.macs
        assert graph.weight_bytes >= 4 * network.parameters * 0.9
        assert graph.peak_activation_bytes >= max(k.output_bytes for k in graph.kernels)


@pytest.mark.parametrize(
    "layer",
    [
        Conv(6, kernel=(1, 7)),
        Conv(6, kernel=(5, 1), stride=(2, 1)),
        Conv(6, kernel=(1, 31), stride=(1, 4), groups=2),
        Conv(4, kernel=(3, 5), stride=(1, 2), groups=4),
        Conv(6, kernel=1, stride=(1, 2)),
        Pool("maximum", kernel=(1, 2), stride=(1, 2)),
        Pool("average", kernel=(3, 5), stride=(2, 1), padding=(1, 2)),
    ],
    ids=str,
)
def test_kernels_of_windows_with_two_lengths_are_those_of_the_file(layer, tmp_path):
    builder = NetworkBuilder((4, 9, 40))
    index = builder.add(Activation("relu"), builder.add(layer, 0))
    network = builder.build(builder.add(Linear(3), builder.add(GlobalPool(), index)))

    kernels = kernels_of(network)

    assert kernels == kernels_from_onnx(onnx_bytes(network, random_weights(network, seed=0)))
    assert kernels.macs == network.macs
    assert Counter(k.ops[0] for k in kernels.kernels) == executed_operators(network, tmp_path)
