"""Kendall's tau-b with its interval, against scipy and against made-up truth."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from host.training.agreement import rank_agreement

PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=25)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_it_is_the_tau_b_of_scipy(pairs: list[tuple[int, int]]) -> None:
    scores, qualities = (list(map(float, column)) for column in zip(*pairs, strict=True))

    found = rank_agreement(scores, qualities)

    if len(set(scores)) == 1 or len(set(qualities)) == 1:
        assert found is None
        return
    assert found is not None
    assert found.n == len(pairs)
    assert found.kendall == pytest.approx(kendalltau(scores, qualities, variant="b").statistic)
    if found.n < 5:
        assert found.low is None
        assert found.high is None
    else:
        assert found.low is not None
        assert found.high is not None
        assert -1.0 - 1e-9 <= found.low <= found.kendall <= found.high <= 1.0 + 1e-9


@settings(max_examples=30, deadline=None)
@given(PAIRS, st.randoms())
def test_neither_order_nor_scale_of_the_candidates_matters(
    pairs: list[tuple[int, int]], shuffler: random.Random
) -> None:
    shuffled = shuffler.sample(pairs, len(pairs))

    found, other = (
        rank_agreement([math.exp(score) for score, _ in each], [5.0 * q - 3 for _, q in each])
        for each in (pairs, shuffled)
    )

    assert (found is None) == (other is None)
    if found is not None and other is not None:
        assert found.kendall == pytest.approx(other.kendall)


def test_full_agreement_and_full_disagreement_are_one_and_minus_one() -> None:
    rising = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

    same, opposite = rank_agreement(rising, rising), rank_agreement(rising, rising[::-1])

    assert same is not None
    assert opposite is not None
    assert (same.kendall, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))
    assert (opposite.kendall, opposite.low, opposite.high) == pytest.approx((-1.0, -1.0, -1.0))


def test_the_interval_is_a_function_of_the_seed_and_narrows_with_more_candidates() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=80)
    qualities = scores + rng.normal(size=80)

    few = rank_agreement(scores[:10].tolist(), qualities[:10].tolist(), seed=3)
    again = rank_agreement(scores[:10].tolist(), qualities[:10].tolist(), seed=3)
    many = rank_agreement(scores.tolist(), qualities.tolist(), seed=3)

    assert few == again
    assert few is not None
    assert many is not None
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    # For a bivariate normal, tau = 2 / pi * arcsin(rho) (Greiner 1909).
    rng = np.random.default_rng(1)
    truth = 2 / math.pi * math.asin(0.6)
    covered = 0

    for _ in range(300):
        first = rng.normal(size=20)
        second = 0.6 * first + 0.8 * rng.normal(size=20)
        found = rank_agreement(first.tolist(), second.tolist())
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high

    assert 0.88 <= covered / 300 <= 0.99


@pytest.mark.parametrize(
    ("scores", "qualities"), [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0])]
)
def test_without_an_order_there_is_no_agreement(
    scores: list[float], qualities: list[float]
) -> None:
    assert rank_agreement(scores, qualities) is None


@pytest.mark.parametrize(
    ("scores", "qualities", "message"),
    [
        ([1.0], [1.0, 2.0], "1 scores do not fit 2 qualities"),
        ([1.0, math.nan], [1.0, 2.0], "finite"),
        ([1.0, 2.0], [1.0, math.inf], "finite"),
    ],
)
def test_figures_that_do_not_fit_are_an_error_of_the_caller(
    scores: list[float], qualities: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_agreement(scores, qualities)
