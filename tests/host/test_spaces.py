"""The search spaces: texts that read back, sizes as published, networks that build."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.network.graph import DeadNetworkError
from host.spaces.base import Candidate, CandidateTextError, SpaceChoiceError, Task, sample, size
from host.spaces.mobile import STAGE_CHANNELS, Mobile
from host.spaces.nasbench201 import NasBench201

CIFAR10 = Task(channels=3, classes=10)
PUBLISHED = (
    Path(os.environ.get("GENBA_DATA", "../shared/data")) / "nas" / "nasbench201_accuracy.csv"
)


def published_rows() -> list[dict[str, str]]:
    if not PUBLISHED.is_file():
        pytest.skip(f"the published table is not at {PUBLISHED}: set GENBA_DATA to its folder")
    with PUBLISHED.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("space", [NasBench201(), Mobile()], ids=lambda space: space.name)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_candidate_is_read_back_from_its_text(space, seed):
    candidate = sample(space, np.random.default_rng(seed))

    assert space.parse(space.text(candidate)) == candidate


def test_nasbench201_has_the_published_number_of_cells():
    assert size(NasBench201()) == 15_625


@pytest.mark.parametrize(
    ("cell", "parameters"),
    [
        (
            (
                "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|"
                "+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
            ),
            802_426,
        ),
        (
            (
                "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
                "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
            ),
            129_306,
        ),
        (
            (
                "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
                "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
            ),
            1_531_546,
        ),
    ],
)
def test_nasbench201_networks_have_the_published_parameters(cell, parameters):
    space = NasBench201()

    assert space.build(space.parse(cell), CIFAR10).parameters == parameters


def test_every_live_published_cell_has_its_published_parameters():
    space = NasBench201()
    checked = 0

    for row in published_rows()[::60]:
        candidate = space.parse(row["arch_str"])
        published = float(row["params_M_c10"]) * 1e6
        try:
            parameters = space.build(candidate, CIFAR10).parameters
        except DeadNetworkError:
            continue
        # The table averages over seeds, and some of its entries mix networks: not whole numbers.
        if abs(published - round(published)) < 1e-3:
            assert parameters <= round(published)
            checked += parameters == round(published)

    assert checked > 150


def test_isomorphic_cells_share_one_key_and_341_cells_have_no_path():
    space = NasBench201(cells=1)
    keys = set()
    dead = 0

    for row in published_rows():
        try:
            keys.add(space.build(space.parse(row["arch_str"]), CIFAR10).key)
        except DeadNetworkError:
            dead += 1

    assert dead == 341
    # The paper counts 6,466: it keeps apart edges that carry zeros, and equal poolings of one node.
    assert len(keys) == 5_747


def test_dead_edges_cost_nothing():
    space = NasBench201()
    plain = space.parse("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    dead_end = space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    fed_by_zeros = space.parse("|none~0|+|none~0|nor_conv_1x1~1|+|nor_conv_3x3~0|none~1|none~2|")

    networks = [space.build(candidate, CIFAR10) for candidate in (plain, dead_end, fed_by_zeros)]

    assert len({network.key for network in networks}) == 1


@pytest.mark.parametrize(
    "text", ["", "|none~0|", "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|"]
)
def test_a_text_that_is_no_cell_is_refused_with_a_sentence(text):
    with pytest.raises(CandidateTextError, match="six edges"):
        NasBench201().parse(text)


def test_mobile_reaches_from_tens_of_thousands_to_thirty_million_parameters():
    space = Mobile()
    smallest = Candidate((0,) * len(space.decisions))
    largest = Candidate(tuple(len(d.choices) - 1 for d in space.decisions))

    assert space.build(smallest, Task(1, 2)).parameters < 50_000
    assert space.build(largest, Task(3, 1000)).parameters > 30_000_000


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_every_mobile_candidate_builds_and_fits_the_task(seed):
    space = Mobile()
    candidate = sample(space, np.random.default_rng(seed))

    network = space.build(candidate, Task(channels=1, classes=7))

    assert network.input_shape[0] == 1
    assert network.output_shape == (7,)
    assert network.macs > 0


def test_proxies_look_at_a_shallower_network_of_the_same_cell():
    space = NasBench201(scoring_cells=2)
    candidate = space.parse(
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    )

    looked_at = space.scoring_network(candidate, CIFAR10)

    assert looked_at == NasBench201(cells=2).build(candidate, CIFAR10)
    assert looked_at.macs < space.build(candidate, CIFAR10).macs / 2


def test_a_stand_in_is_never_deeper_than_the_network():
    space = NasBench201(cells=1, scoring_cells=3)
    candidate = space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")

    assert space.scoring_network(candidate, CIFAR10) == space.build(candidate, CIFAR10)


def test_nasbench201_marks_the_stem_every_cell_and_every_reduction():
    space = NasBench201(cells=4)
    candidate = space.parse(
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    )

    network = space.build(candidate, CIFAR10)

    assert len(network.blocks) == 1 + 3 * 4 + 2
    assert [network.nodes[index].shape[0] for index in network.blocks] == (
        [16] * 5 + [32] * 5 + [64] * 5
    )


def test_restricting_the_operation_of_nasbench201_leaves_only_those_cells():
    space = NasBench201(restrict={"operation": ("none", "nor_conv_3x3")})

    texts = {space.text(sample(space, np.random.default_rng(seed))) for seed in range(30)}

    assert size(space) == 2**6
    assert all("skip" not in text and "1x1" not in text and "avg" not in text for text in texts)
    assert all(space.text(space.parse(text)) == text for text in texts)


def test_a_restriction_changes_indices_and_not_what_a_text_means():
    narrow, wide = NasBench201(restrict={"operation": ("none", "nor_conv_3x3")}), NasBench201()
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"

    networks = [space.build(space.parse(text), CIFAR10) for space in (narrow, wide)]

    assert networks[0] == networks[1]


def test_a_text_of_a_cell_that_was_ruled_out_is_refused():
    space = NasBench201(restrict={"operation": ("none", "nor_conv_3x3")})

    with pytest.raises(CandidateTextError, match="none, nor_conv_3x3"):
        space.parse("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|")


@pytest.mark.parametrize(
    "restrict", [{"edge": ("none",)}, {"operation": ("nor_conv_5x5",)}, {"operation": ()}]
)
def test_a_wrong_restriction_of_nasbench201_is_refused(restrict):
    with pytest.raises(SpaceChoiceError):
        NasBench201(restrict=restrict)


def test_mobile_marks_the_stem_every_block_and_the_head():
    space = Mobile()
    candidate = space.parse(
        "r64 w0.5 relu stem2 head320 | k3e3d2 | k5e6d1se | k3e3d1 | k3e3d3 | k3e1d1"
    )

    assert len(space.build(candidate, CIFAR10).blocks) == 1 + (2 + 1 + 1 + 3 + 1) + 1


def test_restricting_a_decision_leaves_only_what_was_named():
    space = Mobile({"resolution": (64,), "squeeze": (False,)})

    texts = {space.text(sample(space, np.random.default_rng(seed))) for seed in range(20)}

    assert all(text.startswith("r64 ") and "se" not in text for text in texts)


@pytest.mark.parametrize(
    ("restrict", "sentence"),
    [
        ({"colour": (1,)}, "no decision 'colour'"),
        ({"kernel": (4,)}, r"must name some of \[3, 5, 7\]"),
        ({"kernel": ()}, "must name some of"),
    ],
)
def test_a_wrong_restriction_is_refused_with_a_sentence(restrict, sentence):
    with pytest.raises(SpaceChoiceError, match=sentence):
        Mobile(restrict)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r64 w0.5 relu stem2 head320",
        "r64 w0.5 relu stem2 head320 | k3e3d2 | k4e6d1 | k3e3d1 | k3e3d1 | k3e3d1",
        "r65 w0.5 relu stem2 head320 | k3e3d2 | k3e6d1 | k3e3d1 | k3e3d1 | k3e3d1",
    ],
)
def test_a_text_that_is_no_mobile_candidate_is_refused(text):
    with pytest.raises(CandidateTextError):
        Mobile().parse(text)


def test_mobile_decides_kernel_expansion_depth_and_squeeze_in_every_stage():
    names = [decision.name for decision in Mobile().decisions]

    per_stage = ["kernel", "expansion", "depth", "squeeze"]
    assert [item.name for item in Mobile.per_stage] == per_stage
    assert len(names) == len(Mobile.once) + len(per_stage) * len(STAGE_CHANNELS)
    assert len(set(names)) == len(names)
