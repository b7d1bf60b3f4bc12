"""Spaces by name."""

import numpy as np
import pytest

from host.errors import UsageError
from host.spaces.base import SpaceChoiceError, Task, is_valid, sample, size
from host.spaces.catalogue import SPACES, space_by_name


def test_every_space_is_known_by_its_own_name():
    assert list(SPACES) == ["nasbench201", "mobile", "resnet-lite", "conv1d"]
    assert all(space_by_name(name).name == kind.name == name for name, kind in SPACES.items())


def test_a_name_that_is_none_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="no space 'darts'; choose from nasbench201, mobile"):
        space_by_name("darts")


@pytest.mark.parametrize("name", SPACES)
def test_a_restriction_reaches_the_space(name):
    space = space_by_name(name)
    item = "operation" if name == "nasbench201" else space.decisions[0].name
    kept = space.decisions[0].choices[:1]

    assert size(space_by_name(name, restrict={item: kept})) < size(space)


@pytest.mark.parametrize("name", SPACES)
def test_a_restriction_of_no_decision_is_refused(name):
    with pytest.raises(SpaceChoiceError, match="no decision 'colour'"):
        space_by_name(name, restrict={"colour": (1,)})


def test_the_resolution_is_that_of_nasbench201():
    space = space_by_name("nasbench201", resolution=64)
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"

    assert space.build(space.parse(text), Task(1, 2)).input_shape == (1, 64, 64)


@pytest.mark.parametrize("name", ["mobile", "resnet-lite", "conv1d"])
def test_a_space_that_decides_its_resolution_takes_none(name):
    with pytest.raises(UsageError, match="restrict that instead"):
        space_by_name(name, resolution=64)


@pytest.mark.parametrize("name", ["mobile", "resnet-lite", "conv1d"])
def test_where_no_stand_in_is_known_proxies_look_at_the_candidate_itself(name):
    space, task = space_by_name(name), Task(channels=2, classes=2)
    rng = np.random.default_rng(1)
    drawn = (sample(space, rng) for _ in range(100))
    candidate = next(each for each in drawn if is_valid(space, each, task))

    assert space.scoring_network(candidate, task) == space.build(candidate, task)
