"""Ranks and how sure they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from host.ranking.uncertainty import rank_intervals, ranks

FINITE = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))
TABLES = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 6), st.integers(1, 12)), elements=FINITE
)


@given(arrays.arrays(np.float64, st.integers(1, 30), elements=FINITE))
def test_a_rank_is_one_more_than_there_are_better_ones(scores: np.ndarray) -> None:
    assert ranks(scores).tolist() == [1 + (scores > score).sum() for score in scores]


def test_equals_share_their_places() -> None:
    scores = np.array([1.0, 3.0, 1.0, 3.0])

    assert ranks(scores).tolist() == [3, 1, 3, 1]
    assert ranks(scores, "max").tolist() == [4, 2, 4, 2]


def test_the_order_of_adding_makes_no_rank() -> None:
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert ranks(np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1])).tolist() == [1, 1]


@given(TABLES)
def test_intervals_lie_within_the_ranking(scores: np.ndarray) -> None:
    low, high = rank_intervals(scores, seed=0)

    assert (low >= 1).all()
    assert (low <= high).all()
    assert (high <= scores.shape[1]).all()


@given(TABLES)
def test_draws_that_agree_leave_no_doubt(scores: np.ndarray) -> None:
    same = np.repeat(scores[:1], 3, axis=0)

    low, high = rank_intervals(same, seed=1)

    assert (low == ranks(same[0])).all()
    assert (high == ranks(same[0], "max")).all()


def test_what_the_draws_confuse_has_a_wide_interval_and_the_rest_a_narrow_one() -> None:
    rng = np.random.default_rng(0)
    confused = rng.normal(0.0, 1.0, (5, 8))
    scores = np.column_stack([np.full(5, 50.0), confused, np.full(5, -50.0)])

    low, high = rank_intervals(scores, seed=0)

    assert (low[0], high[0]) == (1, 1)
    assert (low[-1], high[-1]) == (10, 10)
    assert (high - low)[1:-1].mean() > 2


def test_intervals_hold_the_rank_of_the_truth_as_often_as_they_say() -> None:
    """The truth has ranks; five noisy draws of it are all that is seen."""
    rng = np.random.default_rng(3)
    held = []
    for seed in range(60):
        truth = rng.normal(0.0, 1.0, 15)
        seen = truth + rng.normal(0.0, 1.0, (5, 15))
        low, high = rank_intervals(seen, seed=seed)
        held.append(((low <= ranks(truth)) & (ranks(truth) <= high)).mean())

    assert 0.70 < np.mean(held) < 0.95


def test_the_intervals_are_a_function_of_the_seed() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 9))

    assert (rank_intervals(scores, seed=5) == rank_intervals(scores, seed=5)).all()


def test_one_draw_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two draws"):
        rank_intervals(np.zeros((1, 3)), seed=0)
