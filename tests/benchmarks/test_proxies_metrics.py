"""Figures of how merits order cells."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from scipy.stats import kendalltau, spearmanr

from benchmarks.proxies.metrics import (
    best_first,
    best_of_picks,
    kendall,
    ndcg,
    oriented,
    partial_spearman,
    rank_mean,
    ranks,
    spearman,
    within_top,
)

FINITE = st.floats(-1e6, 1e6, allow_nan=False)
COLUMNS = st.integers(3, 30).flatmap(
    lambda n: st.tuples(
        stnp.arrays(np.float64, n, elements=st.one_of(FINITE, st.just(math.nan))),
        stnp.arrays(np.float64, n, elements=st.floats(0, 100)),
    )
)


@given(COLUMNS)
def test_correlations_are_those_of_scipy_with_nan_below_everything(columns) -> None:
    merits, accuracy = columns
    low = np.where(np.isnan(merits), -1e9, merits)
    assume(np.ptp(low) > 0 and np.ptp(accuracy) > 0)

    assert kendall(merits, accuracy) == pytest.approx(kendalltau(low, accuracy)[0], abs=1e-9)
    assert spearman(merits, accuracy) == pytest.approx(spearmanr(low, accuracy)[0], abs=1e-9)


@given(COLUMNS)
def test_ranks_are_those_of_any_growing_function_of_the_merits(columns) -> None:
    merits, _ = columns

    assert ranks(merits).tolist() == ranks(2.0 * merits).tolist()
    assert ranks(merits).sum() == pytest.approx(len(merits) * (len(merits) + 1) / 2)


@given(COLUMNS)
def test_a_lower_is_better_score_correlates_as_its_negative(columns) -> None:
    scores, accuracy = columns

    assert kendall(oriented(scores, higher_is_better=False), accuracy) == kendall(-scores, accuracy)


def test_a_constant_has_no_correlation() -> None:
    accuracy = np.array([10.0, 50.0, 90.0])

    assert kendall(np.ones(3), accuracy) is None
    assert spearman(np.full(3, np.nan), accuracy) is None
    assert kendall(accuracy, np.ones(3)) is None
    assert kendall(np.ones(1), np.ones(1)) is None


def test_within_the_top_only_the_best_cells_count() -> None:
    accuracy = np.arange(100, dtype=np.float64)
    merits = np.where(accuracy < 80, -accuracy, accuracy)

    assert within_top(kendall, merits, accuracy, 0.2) == pytest.approx(1.0)
    assert (kendall(merits, accuracy) or 0.0) < 0.0


def test_within_a_top_of_few_cells_there_is_no_correlation() -> None:
    accuracy = np.arange(100, dtype=np.float64)

    assert within_top(kendall, accuracy, accuracy, 0.05) is None


@given(COLUMNS)
def test_ndcg_is_at_most_that_of_the_accuracies_themselves(columns) -> None:
    merits, accuracy = columns
    names = np.array([f"{place:03}" for place in range(len(merits))])
    assume(accuracy.max() > 1e-3)

    assert ndcg(accuracy, accuracy, names) == pytest.approx(1.0)
    found = ndcg(merits, accuracy, names)
    assert found is not None
    assert 0.0 <= found <= 1.0 + 1e-12


def test_ndcg_of_three_cells_is_that_computed_by_hand() -> None:
    accuracy = np.array([1.0, 2.0, 3.0])
    names = np.array(["a", "b", "c"])

    found = ndcg(np.array([3.0, 2.0, 1.0]), accuracy, names)

    gained = 1 / math.log2(2) + 3 / math.log2(3) + 7 / math.log2(4)
    ideal = 7 / math.log2(2) + 3 / math.log2(3) + 1 / math.log2(4)
    assert found == pytest.approx(gained / ideal)


def test_what_merits_only_share_with_a_third_quantity_is_not_theirs() -> None:
    generator = np.random.default_rng(0)
    size = generator.normal(size=4000)
    merits, accuracy = (size + generator.normal(size=4000) for _ in range(2))

    partial = partial_spearman(merits, accuracy, size)

    assert (spearman(merits, accuracy) or 0.0) > 0.4
    assert partial is not None
    assert abs(partial) < 0.05
    assert partial_spearman(size, accuracy, size) is None


def test_partial_correlation_is_that_of_the_residuals_of_the_ranks() -> None:
    generator = np.random.default_rng(1)
    given_ranks, merits = (ranks(generator.normal(size=50)) for _ in range(2))
    accuracy = ranks(given_ranks + merits + generator.normal(size=50))

    def residual(values):
        slope, level = np.polyfit(given_ranks, values, 1)
        return values - slope * given_ranks - level

    expected = np.corrcoef(residual(merits), residual(accuracy))[0, 1]
    assert partial_spearman(merits, accuracy, given_ranks) == pytest.approx(expected)


def test_equal_merits_are_ordered_by_name_and_nan_comes_last() -> None:
    merits = np.array([1.0, math.nan, 2.0, 1.0])

    order = best_first(merits, np.array(["d", "c", "b", "a"]))

    assert order.tolist() == [2, 3, 0, 1]


def test_a_pick_is_a_graph_with_the_mean_accuracy_of_its_cells() -> None:
    graphs = np.array(["a", "a", "b", "c"])
    merits = np.array([3.0, 3.0, 2.0, 1.0])
    accuracy = np.array([80.0, 90.0, 70.0, 99.0])

    assert best_of_picks(merits, accuracy, graphs, (1, 2, 3, 10)) == [85.0, 85.0, 99.0, 99.0]


def test_several_runs_count_by_their_ranks() -> None:
    first, second = np.array([1.0, 2.0, 1e9]), np.array([3.0, 2.0, 1.0])

    assert rank_mean([first, second]).tolist() == [2.0, 2.0, 2.0]
    assert rank_mean([first]) is first


def test_only_what_no_run_scored_stays_without_a_score() -> None:
    found = rank_mean([np.array([1.0, math.nan, math.nan]), np.array([1.0, 2.0, math.nan])])

    assert np.isnan(found).tolist() == [False, False, True]
