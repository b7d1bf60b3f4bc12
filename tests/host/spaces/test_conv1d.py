"""The space of networks for signals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.network.graph import Conv, GlobalPool, InvalidNetworkError, Pool, ShapeError, pair
from host.spaces.base import Candidate, SpaceChoiceError, Task, sample
from host.spaces.conv1d import STAGE_FACTORS, Conv1d

TWO_SENSORS = Task(channels=2, classes=4)
# WDCNN (Zhang et al. 2017, table 2) has four further stages of 32, 64, 64 and 64 channels.
LIKE_WDCNN = (
    "l2048 c16 k63 s16 pool head128 | plain k3 d1 | plain k3 d1 | plain k3 d1 | plain k3 d1"
)


def built(text, task=TWO_SENSORS):
    space = Conv1d()
    return space.build(space.parse(text), task)


def test_a_window_of_samples_from_every_sensor_comes_in_as_an_image_of_height_one():
    assert built(LIKE_WDCNN).input_shape == (2, 1, 2048)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_every_window_and_every_map_has_height_one(seed):
    space = Conv1d()
    try:
        network = space.build(sample(space, np.random.default_rng(seed)), TWO_SENSORS)
    except InvalidNetworkError:
        return

    for node in network.nodes:
        if isinstance(node.layer, Conv | Pool):
            assert pair(node.layer.kernel)[0] == 1
            assert pair(node.layer.stride)[0] == 1
        assert len(node.shape) == 1 or node.shape[1] == 1


def test_the_stages_have_the_channels_and_lengths_of_the_published_network():
    network = built(LIKE_WDCNN)

    shapes = [network.nodes[index].shape for index in network.blocks]

    assert [channels for channels, _, _ in shapes] == [16, 16, 32, 64, 64]
    assert [length for _, _, length in shapes] == [128, 64, 32, 16, 8]


@pytest.mark.parametrize("halving", ["stride", "pool"])
def test_every_stage_halves_the_signal_in_either_way(halving):
    network = built(LIKE_WDCNN.replace("pool", halving))

    pools = [node for node in network.nodes if isinstance(node.layer, Pool)]
    lengths = [network.nodes[index].shape[-1] for index in network.blocks]
    assert lengths == [128, 64, 32, 16, 8]
    assert len(pools) == (len(STAGE_FACTORS) if halving == "pool" else 0)


def test_a_head_is_a_hidden_layer_and_none_is_none():
    with_head, without = built(LIKE_WDCNN), built(LIKE_WDCNN.replace("head128", "head0"))

    assert with_head.parameters - without.parameters == (64 * 128 + 128 + 128 * 4 + 4) - (
        64 * 4 + 4
    )


def test_a_residual_block_adds_what_it_read():
    network = built(LIKE_WDCNN.replace("plain k3 d1", "residual k3 d2"))

    sums = [node for node in network.nodes if len(node.inputs) == 2]
    assert len(sums) == 8


def test_a_separable_block_has_one_filter_for_each_channel():
    network = built(LIKE_WDCNN.replace("plain k3 d1", "separable k3 d1"))

    groups = [n.layer.groups for n in network.nodes if isinstance(n.layer, Conv)]
    assert [g for g in groups if g > 1] == [16, 16, 32, 64]


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("l256 c8 k7 s16 stride head0 | plain k3 d1 | plain k3 d1 | plain k3 d1 | plain k3 d1", 4),
        ("l256 c8 k7 s8 pool head0 | plain k3 d1 | plain k3 d1 | plain k9 d1 | plain k3 d1", 3),
    ],
)
def test_kernels_that_would_only_read_padding_are_refused_with_the_stage(text, stage):
    with pytest.raises(ShapeError, match=f"stage {stage} is left with: take a longer window"):
        built(text)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_outer_weights_of_every_kernel_read_something(seed):
    space = Conv1d()
    try:
        network = space.build(sample(space, np.random.default_rng(seed)), TWO_SENSORS)
    except InvalidNetworkError:
        return

    for node in network.nodes:
        if isinstance(node.layer, Conv):
            before = network.input_shapes(node)[0][-1]
            assert pair(node.layer.kernel)[1] // 2 < before


def test_sizes_reach_from_two_thousand_to_millions_of_parameters():
    space = Conv1d()
    smallest = Candidate((0,) * len(space.decisions))
    largest = space.parse(
        "l4096 c64 k127 s2 stride head128 | residual k9 d3 | residual k9 d3 | residual k9 d3 | "
        "residual k9 d3"
    )

    assert space.build(smallest, Task(1, 2)).parameters < 2_000
    assert space.build(largest, Task(3, 10)).parameters > 5_000_000


def test_the_end_of_the_network_is_the_mean_over_the_signal():
    network = built(LIKE_WDCNN.replace("head128", "head0"))

    assert isinstance(network.nodes[-2].layer, GlobalPool)


def test_only_what_reads_no_more_than_a_window_is_left():
    space = Conv1d({"width": (4,)}).reading_at_most(600)

    assert next(d.choices for d in space.decisions if d.name == "length") == (256, 512)
    assert next(d.choices for d in space.decisions if d.name == "width") == (4,)


def test_windows_shorter_than_anything_reads_say_what_to_do():
    with pytest.raises(SpaceChoiceError, match=r"windows have 100 samples.*cut longer windows"):
        Conv1d().reading_at_most(100)
