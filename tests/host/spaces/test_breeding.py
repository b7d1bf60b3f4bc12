"""Sampling, mutation and crossover of candidates, in every space alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.network.graph import InvalidNetworkError
from host.spaces.base import (
    Candidate,
    CandidateTextError,
    Task,
    crossover,
    is_valid,
    mutate,
    sample,
    size,
)
from host.spaces.catalogue import SPACES, space_by_name

TASK = Task(channels=3, classes=4)
EVERY_SPACE = pytest.mark.parametrize("space", [space_by_name(name) for name in SPACES],
                                      ids=lambda space: space.name)  # fmt: skip
SEEDS = st.integers(0, 2**32 - 1)


def belongs(space, candidate):
    return len(candidate.choices) == len(space.decisions) and all(
        0 <= choice < len(decision.choices)
        for choice, decision in zip(candidate.choices, space.decisions, strict=True)
    )


@EVERY_SPACE
@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_text_is_read_back_as_the_candidate_that_it_was_written_of(space, seed):
    candidate = sample(space, np.random.default_rng(seed))

    assert space.parse(space.text(candidate)) == candidate


@EVERY_SPACE
@given(first=SEEDS, second=SEEDS)
@settings(max_examples=60, deadline=None)
def test_candidates_have_one_text_only_where_they_are_one(space, first, second):
    one, other = (sample(space, np.random.default_rng(seed)) for seed in (first, second))

    assert (space.text(one) == space.text(other)) == (one == other)


@EVERY_SPACE
@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_mutant_belongs_to_the_space_and_is_another_candidate(space, seed):
    rng = np.random.default_rng(seed)
    candidate = sample(space, rng)

    mutant = mutate(space, candidate, rng)

    assert belongs(space, mutant)
    assert mutant != candidate


@EVERY_SPACE
def test_mutation_changes_one_decision_or_two_on_average(space):
    rng = np.random.default_rng(3)
    changed = []

    for _ in range(400):
        candidate = sample(space, rng)
        mutant = mutate(space, candidate, rng)
        pairs = zip(candidate.choices, mutant.choices, strict=True)
        changed.append(sum(one != other for one, other in pairs))

    assert 1 < np.mean(changed) < 2
    assert max(changed) < len(space.decisions)


def test_mutation_reaches_every_other_choice_of_a_decision_alike():
    space = space_by_name(
        "mobile", restrict=dict.fromkeys(("width", "expansion"), (1,)) | {"stem": (2,)}
    )
    rng = np.random.default_rng(0)
    place = [decision.name for decision in space.decisions].index("resolution")
    start = Candidate((0,) * len(space.decisions))

    seen = [mutate(space, start, rng).choices[place] for _ in range(6000)]

    counts = np.bincount([choice for choice in seen if choice])[1:]
    assert len(counts) == 7
    assert counts.min() > 0.6 * counts.mean()


def test_decisions_without_a_choice_are_left_as_they_are():
    only = {"operation": ("nor_conv_3x3",)}
    space = space_by_name("nasbench201", restrict=only)
    candidate = sample(space, np.random.default_rng(0))

    assert size(space) == 1
    assert mutate(space, candidate, np.random.default_rng(1)) == candidate


@EVERY_SPACE
@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_child_takes_every_decision_from_one_of_its_parents(space, seed):
    rng = np.random.default_rng(seed)
    first, second = sample(space, rng), sample(space, rng)

    child = crossover(space, first, second, rng)

    triples = zip(child.choices, first.choices, second.choices, strict=True)
    assert all(choice in {one, other} for choice, one, other in triples)


@EVERY_SPACE
def test_a_child_takes_about_half_of_what_differs_from_each_parent(space):
    rng = np.random.default_rng(5)
    from_first = []

    for _ in range(300):
        first, second = sample(space, rng), sample(space, rng)
        child = crossover(space, first, second, rng)
        triples = zip(child.choices, first.choices, second.choices, strict=True)
        from_first += [own == one for own, one, other in triples if one != other]

    assert np.mean(from_first) == pytest.approx(0.5, abs=0.06)


@EVERY_SPACE
def test_the_same_generator_state_breeds_the_same_candidates(space):
    def bred():
        rng = np.random.default_rng(11)
        parents = sample(space, rng), sample(space, rng)
        return mutate(space, crossover(space, *parents, rng), rng)

    assert bred() == bred()


@EVERY_SPACE
@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_candidate_is_valid_where_it_builds(space, seed):
    candidate = sample(space, np.random.default_rng(seed))

    try:
        network = space.build(candidate, TASK)
    except InvalidNetworkError:
        assert not is_valid(space, candidate, TASK)
    else:
        assert is_valid(space, candidate, TASK)
        assert network.output_shape == (4,)
        assert network.input_shape[0] == 3


@EVERY_SPACE
def test_most_of_a_space_is_valid(space):
    rng = np.random.default_rng(2)

    valid = sum(is_valid(space, sample(space, rng), TASK) for _ in range(200))

    assert valid >= 150


@EVERY_SPACE
@pytest.mark.parametrize("choices", [(), (0,), (99,) * 40])
def test_what_does_not_belong_to_the_space_is_not_valid(space, choices):
    assert not is_valid(space, Candidate(choices), TASK)


@EVERY_SPACE
def test_a_choice_out_of_range_is_not_valid(space):
    choices = [0] * len(space.decisions)

    for wrong in (-1, 1000):
        assert not is_valid(space, Candidate((wrong, *choices[1:])), TASK)


@EVERY_SPACE
@given(text=st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_other_text_is_refused_with_one_error(space, text):
    with pytest.raises(CandidateTextError):
        space.parse(text)
