"""Intervals by resampling distinct graphs."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from benchmarks.proxies.bootstrap import RepeatedRanks, draws, intervals, repeated_correlation

REPEATED = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 4)), min_size=2, max_size=20
)


@given(REPEATED)
def test_ranks_of_repeated_values_are_those_of_the_written_out_sample(rows) -> None:
    values, _, counts = (np.array(column) for column in zip(*rows, strict=True))

    found = RepeatedRanks(values.astype(float))(counts)

    written_out = rankdata(np.repeat(values, counts))
    assert np.repeat(found, counts).tolist() == pytest.approx(written_out.tolist())


@given(REPEATED)
def test_the_correlation_of_repeated_pairs_is_that_of_the_written_out_sample(rows) -> None:
    left, right, counts = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    counts = counts.astype(int)
    whole = [np.repeat(values, counts) for values in (left, right)]
    assume(all(len(values) > 1 and np.ptp(values) > 0 for values in whole))

    found = repeated_correlation(RepeatedRanks(left)(counts), RepeatedRanks(right)(counts), counts)

    assert found == pytest.approx(spearmanr(*whole)[0], abs=1e-9)


def test_a_constant_sample_has_no_correlation() -> None:
    ones = np.ones(3)

    assert math.isnan(
        repeated_correlation(ones, np.arange(3, dtype=np.float64), np.array([1, 1, 1]))
    )


def test_cells_of_one_graph_are_drawn_together() -> None:
    graphs = np.array(["a", "b", "a", "c", "b", "a"])

    for counts in draws(graphs, 20, seed=0):
        assert counts[0] == counts[2] == counts[5]
        assert counts[1] == counts[4]
        assert counts[0] + counts[1] + counts[3] == 3


def test_intervals_hold_the_correlation_and_shrink_with_the_number_of_graphs() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for size in (100, 1000):
        accuracy = generator.normal(size=size)
        merits = {"good": accuracy + generator.normal(size=size)}
        names = np.arange(size).astype(str)

        found = intervals(merits, accuracy, names, resamples=200, seed=0)["good"]

        assert found.spearman is not None
        assert found.kendall is not None
        assert found.spearman.low < spearmanr(merits["good"], accuracy)[0] < found.spearman.high
        assert found.kendall.low < 0.5 < found.kendall.high
        widths.append(found.spearman.high - found.spearman.low)
    assert widths[1] < 0.5 * widths[0]


def test_cells_of_the_same_graph_add_no_certainty() -> None:
    generator = np.random.default_rng(0)
    accuracy = generator.normal(size=200)
    merits, names = accuracy + generator.normal(size=200), np.arange(200).astype(str)

    once = intervals({"x": merits}, accuracy, names, resamples=100, seed=1)["x"]
    five = intervals(
        {"x": np.tile(merits, 5)}, np.tile(accuracy, 5), np.tile(names, 5), resamples=100, seed=1
    )["x"]

    assert once.spearman is not None
    assert five.spearman is not None
    assert five.spearman.low == pytest.approx(once.spearman.low, abs=1e-3)
    assert five.spearman.high == pytest.approx(once.spearman.high, abs=1e-3)


def test_a_constant_score_has_no_interval() -> None:
    found = intervals(
        {"none": np.zeros(20)},
        np.arange(20, dtype=np.float64),
        np.arange(20).astype(str),
        resamples=10,
        seed=0,
    )

    assert found["none"].kendall is None
    assert found["none"].spearman is None
