"""The space for int8 on x86 CPUs without VNNI."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.network.graph import Activation, Add, Conv, Pool
from host.spaces.base import Candidate, Task, sample
from host.spaces.resnet_lite import SCHEDULES, ResNetLite

TASK = Task(channels=1, classes=2)
SEEDS = st.integers(0, 2**32 - 1)


def built(text):
    space = ResNetLite()
    return space.build(space.parse(text), TASK)


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_channels_are_multiples_of_16_and_no_convolution_is_grouped(seed):
    space = ResNetLite()
    network = space.build(sample(space, np.random.default_rng(seed)), TASK)

    for node in network.nodes:
        if isinstance(node.layer, Conv):
            assert node.layer.out_channels % 16 == 0
            assert node.layer.groups == 1
            assert node.layer.kernel in {1, 3}


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_the_only_activation_is_relu(seed):
    space = ResNetLite()
    network = space.build(sample(space, np.random.default_rng(seed)), TASK)

    assert {n.layer.kind for n in network.nodes if isinstance(n.layer, Activation)} == {"relu"}


@pytest.mark.parametrize("resolution", [32, 48, 64, 96, 128, 160, 192, 224])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_last_map_has_a_side_of_5_to_8_whatever_comes_in(resolution, schedule):
    network = built(
        f"r{resolution} c16 g2 {schedule} | plain d1 | residual d1 | bottleneck d1 | plain d1"
    )

    channels, height, width = network.nodes[network.blocks[-1]].shape
    assert channels == 16 * 8
    assert 5 <= height == width <= 8


@pytest.mark.parametrize("resolution", [32, 64, 96, 224])
def test_the_earlier_the_map_is_halved_the_less_work_it_is(resolution):
    macs = [
        built(f"r{resolution} c32 g2 {s} | plain d2 | plain d2 | plain d2 | plain d2").macs
        for s in ("early", "middle", "late")
    ]

    assert macs == sorted(macs)
    assert len(set(macs)) > 1 or resolution == 224


def test_plain_blocks_have_no_sum_and_the_others_one_each():
    plain = built("r32 c16 g2 middle | plain d3 | plain d1 | plain d1 | plain d1")
    mixed = built("r32 c16 g2 middle | residual d3 | bottleneck d2 | plain d1 | residual d1")

    assert not [n for n in plain.nodes if isinstance(n.layer, Add)]
    assert len([n for n in mixed.nodes if isinstance(n.layer, Add)]) == 6


def test_a_shortcut_is_a_convolution_only_where_the_shape_changes():
    same = built("r32 c16 g2 middle | residual d2 | plain d1 | plain d1 | plain d1")
    other = built("r32 c16 g2 middle | plain d1 | residual d2 | plain d1 | plain d1")

    def projections(network):
        return [n for n in network.nodes if isinstance(n.layer, Conv) and n.layer.kernel == 1]

    assert len(projections(same)) == 0
    assert len(projections(other)) == 1


def test_a_bottleneck_is_a_quarter_as_wide_inside_but_never_below_16():
    wide = built("r32 c64 g2 middle | plain d1 | plain d1 | plain d1 | bottleneck d1")
    narrow = built("r32 c16 g1.5 middle | bottleneck d1 | plain d1 | plain d1 | plain d1")

    def inside(network):
        return {
            n.layer.out_channels
            for n in network.nodes
            if isinstance(n.layer, Conv)
            and n.layer.kernel == 3
            and network.nodes[n.inputs[0]].shape[0] == n.layer.out_channels
        }

    assert 512 // 4 in inside(wide)
    assert min(inside(narrow)) == 16


def test_only_schedules_that_need_it_pool_in_the_stem():
    def pools(text):
        return [n.layer for n in built(text).nodes if isinstance(n.layer, Pool)]

    stages = "plain d1 | plain d1 | plain d1 | plain d1"
    assert len(pools(f"r224 c16 g2 late | {stages}")) == 1
    assert len(pools(f"r64 c16 g2 early | {stages}")) == 1
    assert not pools(f"r64 c16 g2 late | {stages}")


def test_sizes_reach_from_tens_of_thousands_to_tens_of_millions_of_parameters():
    space = ResNetLite()
    smallest = Candidate((0,) * len(space.decisions))
    largest = space.parse(
        "r224 c64 g2 early | residual d4 | residual d4 | residual d4 | residual d4"
    )

    assert space.build(smallest, TASK).parameters < 50_000
    assert space.build(largest, TASK).parameters > 20_000_000
