"""Label-free choice of what to measure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.design import d_optimal
from cost_models.nnls import FloatArray


def pool(seed: int, count: int = 200, columns: int = 6) -> FloatArray:
    return np.random.default_rng(seed).lognormal(size=(count, columns))


def information(rows: FloatArray, chosen: list[int]) -> float:
    """Logarithm of the determinant that the design enlarges."""
    scaled = np.hstack([np.ones((len(rows), 1)), rows / rows.std(axis=0)])[chosen]
    matrix = 0.01 * np.eye(scaled.shape[1]) + scaled.T @ scaled
    return float(np.linalg.slogdet(matrix)[1])


@given(st.integers(0, 1000), st.integers(5, 20))
def test_the_chosen_rows_say_more_than_random_ones(seed: int, count: int) -> None:
    rows = pool(seed)
    chosen = d_optimal(rows, count)

    for trial in range(10):
        random = np.random.default_rng(trial).choice(len(rows), count, replace=False).tolist()
        assert information(rows, chosen) > information(rows, random)


@given(st.integers(0, 1000))
def test_the_choice_is_greedy_so_a_longer_one_begins_with_a_shorter_one(seed: int) -> None:
    rows = pool(seed)

    assert d_optimal(rows, 20)[:8] == d_optimal(rows, 8)


@given(st.integers(0, 1000), st.integers(1, 10))
def test_measured_rows_count_as_chosen(seed: int, first: int) -> None:
    rows = pool(seed, count=40)
    taken = d_optimal(rows, first)
    rest = [index for index in range(len(rows)) if index not in taken]

    added = d_optimal(rows[rest], 5, chosen_rows=rows[taken])

    assert [rest[index] for index in added] == d_optimal(rows, first + 5)[first:]


@given(st.integers(0, 1000), st.sampled_from([1e-9, 1e9]))
def test_the_unit_of_a_column_does_not_matter(seed: int, unit: float) -> None:
    rows = pool(seed)

    assert d_optimal(rows * [unit, 1, 1, 1, 1, 1], 12) == d_optimal(rows, 12)


def test_each_row_is_chosen_once_even_if_all_are_asked_for() -> None:
    assert sorted(d_optimal(pool(0, count=30), 30)) == list(range(30))


def test_of_equal_rows_the_first_is_chosen() -> None:
    rows = np.tile([[1.0, 2.0], [4.0, 1.0]], (40, 1))

    assert sorted(d_optimal(rows, 2)) == [0, 1]


def test_columns_that_do_not_vary_do_no_harm() -> None:
    rows = pool(0)
    wider = np.hstack([rows, np.full((len(rows), 1), 0.1), np.zeros((len(rows), 1))])

    assert d_optimal(wider, 12) == d_optimal(rows, 12)


def test_nothing_chosen_from_nothing_is_nothing() -> None:
    assert d_optimal(np.zeros((0, 3)), 0) == []


@pytest.mark.parametrize("count", [-1, 6])
def test_more_than_there_is_cannot_be_chosen(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot choose {count} of 5 rows"):
        d_optimal(pool(0, count=5), count)


def test_measured_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in their columns"):
        d_optimal(pool(0), 2, chosen_rows=np.ones((3, 2)))
