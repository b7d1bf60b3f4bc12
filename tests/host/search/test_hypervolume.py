"""The hypervolume of fronts, by hand and by what must hold of any."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from host.search.hypervolume import course, hypervolume, is_converged

UNIT = st.floats(0.0, 1.2, allow_subnormal=False)
FRONTS = st.integers(2, 3).flatmap(
    lambda width: arrays(np.float64, st.tuples(st.integers(1, 8), st.just(width)), elements=UNIT)
)


def test_the_volume_of_two_steps_is_that_of_the_staircase():
    assert hypervolume(np.array([[0.2, 0.5], [0.5, 0.2]])) == pytest.approx(0.4 + 0.5 * 0.3)


def test_nothing_and_what_lies_outside_the_box_dominate_nothing():
    assert hypervolume(np.empty((0, 3))) == 0.0
    assert hypervolume(np.array([[1.0, 0.0], [0.3, 1.5]])) == 0.0


@settings(max_examples=60, deadline=None)
@given(FRONTS, st.integers(0, 2**32 - 1))
def test_it_is_the_share_of_random_points_that_are_dominated(front, seed):
    points = np.random.default_rng(seed).random((4000, front.shape[1]))
    dominated = (front[:, None, :] <= points[None]).all(axis=2).any(axis=0)

    assert hypervolume(front) == pytest.approx(dominated.mean(), abs=0.05)


@settings(max_examples=60, deadline=None)
@given(FRONTS)
def test_it_never_shrinks_when_candidates_are_added(front):
    volumes = course(front, range(len(front) + 1))

    assert volumes == sorted(volumes)
    assert all(0.0 <= volume <= 1.0 for volume in volumes)


@pytest.mark.parametrize(
    ("volumes", "converged"),
    [
        ([0.5, 0.5, 0.5], True),
        ([0.5, 0.5, 0.502], True),
        ([0.4, 0.5, 0.5], False),
        ([0.5, 0.5], False),
        ([0.0, 0.0, 0.0], False),
    ],
)
def test_a_front_has_converged_when_two_generations_gain_less_than_a_hundredth(volumes, converged):
    assert is_converged(volumes, patience=2, min_gain=0.01) is converged
