"""The search: finds a known front, respects constraints, repeats itself."""

import numpy as np
import pytest

from host.search.evolution import Evolution, non_dominated

CARDINALITIES = [4] * 8


def evaluate(archive):
    """Two opposed counts, and a limit on the first: at least two choices must be zero."""
    choices = np.array(archive)
    zeros = (choices == 0).sum(axis=1).astype(float)
    threes = (choices == 3).sum(axis=1).astype(float)
    return np.stack([-zeros, -threes], axis=1), (2.0 - zeros)[:, None]


def run(seed, generations=30):
    search = Evolution(CARDINALITIES, objectives=2, constraints=1, population=20, seed=seed)
    archive = []
    for _ in range(generations):
        archive += search.ask()
        search.tell(archive, *evaluate(archive))
    return archive


def test_the_same_seed_proposes_the_same_candidates():
    assert run(3, generations=5) == run(3, generations=5)
    assert run(3, generations=5) != run(4, generations=5)


def test_no_candidate_is_proposed_twice():
    archive = run(1, generations=10)

    assert len(set(archive)) == len(archive)


def test_every_choice_is_inside_its_decision():
    search = Evolution([1, 2, 7], objectives=1, constraints=0, population=8, seed=0)

    asked = search.ask()

    assert all(c[0] == 0 and c[1] < 2 and c[2] < 7 and min(c) >= 0 for c in asked)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_front_found_is_close_to_the_true_one(seed):
    archive = run(seed)
    objectives, constraints = evaluate(archive)
    feasible = objectives[(constraints <= 0).all(axis=1)]

    front = {tuple(row) for row in feasible[non_dominated(feasible)]}

    # True front: zeros + threes = 8 with at least two zeros, seven points.
    assert max(-a - b for a, b in front) == 8
    assert sum(-a - b >= 7 for a, b in front) >= 5


def test_a_space_that_is_used_up_proposes_nothing_more():
    search = Evolution([2, 2], objectives=1, constraints=0, population=8, seed=0)
    archive = []

    for _ in range(6):
        archive += search.ask()
        search.tell(
            archive, np.arange(len(archive), dtype=float)[:, None], np.empty((len(archive), 0))
        )

    assert len(archive) <= 4
    assert search.ask() == []


def test_non_dominated_keeps_ties_and_drops_the_dominated():
    objectives = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]])

    assert non_dominated(objectives) == [0, 1, 3]
    assert non_dominated(np.empty((0, 2))) == []
