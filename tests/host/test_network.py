"""One network, three renderings: torch, ONNX and kernels must tell the same story."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from host.network.graph import (
    Activation,
    Add,
    Conv,
    DeadNetworkError,
    GlobalPool,
    InvalidNetworkError,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
    ShapeError,
)
from host.network.onnx_model import IR_VERSION, OPSET, onnx_bytes
from host.network.torch_module import build_module
from host.network.weights import folded_weights, random_weights
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from host.spaces.nasbench201 import NasBench201
from host.spaces.resnet_lite import ResNetLite

SMALL_MOBILE = Mobile({"resolution": (32, 64), "width": (0.25, 0.5, 1.0)})
SPACES = [
    NasBench201(),
    SMALL_MOBILE,
    ResNetLite({"resolution": (32, 48), "width": (16, 32)}),
    Conv1d({"width": (4, 8, 16)}),
]


def run_onnx(model: bytes, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images})
    return np.asarray(logits)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_torch_and_onnx_agree_to_one_in_ten_thousand(random_networks, space):
    for network in random_networks(space, 8):
        module = build_module(network, seed=3)
        images = torch.randn(4, *network.input_shape)
        module.train()
        module(images)  # moves the running statistics away from their start
        module.eval()

        exported = onnx_bytes(network, folded_weights(module))

        with torch.no_grad():
            expected = module(images[:1]).numpy()
        difference = np.abs(run_onnx(exported, images[:1].numpy()) - expected).max()
        assert difference <= 1e-4 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_parameters_counted_are_those_of_the_torch_module(random_networks, space):
    for network in random_networks(space, 5):
        module = build_module(network, seed=0)

        assert network.parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_exported_file_is_valid_and_loads_on_runtimes_of_2022(random_networks, space):
    network = random_networks(space, 1)[0]

    model = onnx.load_from_string(
        onnx_bytes(network, random_weights(network, seed=1), {"classes": "a\nb"})
    )

    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET)
    assert [(p.key, p.value) for p in model.metadata_props] == [("classes", "a\nb")]


def test_untrained_weights_keep_activations_in_a_normal_range(random_networks):
    for network in random_networks(SMALL_MOBILE, 4):
        model = onnx_bytes(network, random_weights(network, seed=5))
        images = np.random.default_rng(0).standard_normal((1, *network.input_shape), np.float32)

        logits = run_onnx(model, images)

        assert np.isfinite(logits).all()
        assert 1e-6 < np.abs(logits).max() < 1e6


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(random_networks):
    network = random_networks(SMALL_MOBILE, 1)[0]

    first = onnx_bytes(network, random_weights(network, seed=1))

    assert first == onnx_bytes(network, random_weights(network, seed=1))
    assert first != onnx_bytes(network, random_weights(network, seed=2))


def test_building_a_module_leaves_the_global_random_state_alone(random_networks):
    network = random_networks(SMALL_MOBILE, 1)[0]
    torch.manual_seed(0)
    before = torch.get_rng_state()

    first, second = build_module(network, seed=4), build_module(network, seed=4)

    assert torch.equal(before, torch.get_rng_state())
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)


def test_nodes_that_do_not_reach_the_output_are_left_out():
    builder = NetworkBuilder((3, 8, 8))
    live = builder.conv(0, Conv(8, kernel=3), "relu")
    builder.conv(live, Conv(16, kernel=3))  # nobody reads this one
    end = builder.add(Linear(2), builder.add(GlobalPool(), live))

    network = builder.build(end)

    assert len(network.nodes) == 5
    assert network.parameters == 3 * 8 * 9 + 16 + 8 * 2 + 2


def diamond(*, swapped: bool) -> Network:
    builder = NetworkBuilder((4, 8, 8))
    kernels = (1, 3) if swapped else (3, 1)
    branches = {kernel: builder.conv(0, Conv(4, kernel)) for kernel in kernels}
    return builder.build(builder.add(Add(), branches[3], branches[1]))


def test_the_key_does_not_depend_on_the_order_of_branches():
    assert diamond(swapped=False).key == diamond(swapped=True).key


def test_the_key_tells_a_shared_node_from_a_copy_of_it():
    shared = NetworkBuilder((4, 8, 8))
    once = shared.conv(0, Conv(4, kernel=3))
    copied = NetworkBuilder((4, 8, 8))
    twins = [copied.conv(0, Conv(4, kernel=3)) for _ in range(2)]

    one = shared.build(shared.add(Add(), once, once))
    two = copied.build(copied.add(Add(), *twins))

    assert one.key != two.key


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (Add(), [(4, 8, 8), (8, 8, 8)]),
        (Conv(6, kernel=3, groups=4), [(4, 8, 8)]),
        (Pool("maximum", kernel=9, stride=1), [(4, 8, 8)]),
    ],
    ids=["addition of two shapes", "groups that do not divide", "window larger than the map"],
)
def test_a_layer_that_does_not_fit_is_refused(layer, shapes):
    builder = NetworkBuilder((4, 8, 8))
    inputs = [builder.conv(0, Conv(shape[0], kernel=1)) for shape in shapes]

    with pytest.raises(ShapeError):
        builder.add(layer, *inputs)


@pytest.mark.parametrize("kind", ["relu", "relu6", "hard_swish", "sigmoid", "hard_sigmoid"])
def test_every_activation_means_the_same_in_torch_and_onnx(kind):
    builder = NetworkBuilder((2, 4, 4))
    network = builder.build(builder.add(Activation(kind), 0))
    images = np.linspace(-8, 8, 32, dtype=np.float32).reshape(1, 2, 4, 4)

    logits = run_onnx(onnx_bytes(network, {}), images)

    expected = build_module(network, seed=0)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-6)


UNEVEN = [
    Conv(6, kernel=(1, 7)),
    Conv(6, kernel=(5, 1), stride=(2, 1)),
    Conv(6, kernel=(1, 31), stride=(1, 4), groups=2),
    Conv(4, kernel=(3, 5), stride=(1, 2), groups=4),
    Conv(6, kernel=(1, 3), norm=False, bias=True),
    Conv(6, kernel=(1, 4), stride=(1, 2)),
    Pool("maximum", kernel=(1, 2), stride=(1, 2)),
    Pool("maximum", kernel=(1, 3), stride=(1, 2), padding=(0, 1)),
    Pool("average", kernel=(3, 5), stride=(2, 1), padding=(1, 2)),
]


@pytest.mark.parametrize("layer", UNEVEN, ids=str)
def test_a_window_with_two_lengths_means_the_same_in_torch_onnx_and_here(layer):
    builder = NetworkBuilder((4, 9, 40))
    index = builder.add(layer, 0)
    network = builder.build(index)
    module = build_module(network, seed=2).eval()
    images = torch.randn(1, 4, 9, 40, generator=torch.Generator().manual_seed(1))

    logits = run_onnx(onnx_bytes(network, folded_weights(module)), images.numpy())

    with torch.no_grad():
        expected = module(images).numpy()
    assert logits.shape[1:] == expected.shape[1:] == network.output_shape
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert network.parameters == sum(p.numel() for p in module.parameters())


def test_random_weights_have_the_shape_of_windows_with_two_lengths():
    builder = NetworkBuilder((4, 1, 64))
    network = builder.build(builder.conv(0, Conv(6, kernel=(1, 31), groups=2)))

    assert random_weights(network, seed=0)[1].weight.shape == (6, 2, 1, 31)


def test_a_window_of_equal_lengths_is_the_same_however_it_is_written():
    assert Conv(8, kernel=(3, 3), stride=(2, 2)) == Conv(8, kernel=3, stride=2)
    assert Pool("average", (2, 2), (2, 2), (0, 0)) == Pool("average", 2, 2, 0)
    assert repr(Conv(8, kernel=(3, 3))) == repr(Conv(8, kernel=3))


def test_the_key_tells_windows_along_height_from_windows_along_width():
    keys = set()
    for kernel in ((1, 3), (3, 1), 3):
        builder = NetworkBuilder((4, 8, 8))
        keys.add(builder.build(builder.conv(0, Conv(4, kernel))).key)

    assert len(keys) == 3


def test_a_signal_shorter_than_a_window_is_refused():
    builder = NetworkBuilder((4, 1, 8))

    with pytest.raises(ShapeError, match="1x9 does not fit into 1x8"):
        builder.add(Pool("maximum", kernel=(1, 9), stride=(1, 1)), 0)


def marked(*, blocks: bool) -> Network:
    builder = NetworkBuilder((3, 8, 8))
    builder.block(builder.conv(0, Conv(16, kernel=3)))  # nobody reads this one
    stem = builder.conv(0, Conv(8, kernel=3), "relu")
    body = builder.conv(stem, Conv(8, kernel=3), "relu")
    if blocks:
        builder.block(builder.block(stem))
        builder.block(body)
    return builder.build(builder.add(Linear(2), builder.add(GlobalPool(), body)))


def test_blocks_point_to_the_nodes_that_were_marked_though_dead_ones_are_gone():
    network = marked(blocks=True)

    assert network.blocks == (2, 4)
    assert all(isinstance(network.nodes[index].layer, Activation) for index in network.blocks)


def test_marks_change_neither_equality_nor_hash_nor_key():
    with_marks, without = marked(blocks=True), marked(blocks=False)

    assert without.blocks == ()
    assert with_marks == without
    assert hash(with_marks) == hash(without)
    assert with_marks.key == without.key


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_every_space_marks_blocks_of_feature_maps_from_stem_to_end(random_networks, space):
    for network in random_networks(space, 5):
        shapes = [network.nodes[index].shape for index in network.blocks]

        assert len(shapes) >= 3
        assert list(network.blocks) == sorted(set(network.blocks))
        assert all(len(shape) == 3 for shape in shapes)


def test_what_is_no_network_is_one_family_of_errors():
    assert issubclass(ShapeError, InvalidNetworkError)
    assert issubclass(DeadNetworkError, InvalidNetworkError)
