"""Figures of accuracy against hand values and against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.training.metrics import (
    Z_95,
    Estimate,
    accuracy,
    auroc,
    balanced_accuracy,
    confusion_matrix,
    evaluate,
    wilson_interval,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_the_wilson_interval_has_its_published_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_limits_of_a_wilson_interval_solve_its_equation(case: tuple[int, int]) -> None:
    successes, n = case
    share = successes / n

    for limit in wilson_interval(successes, n):
        distance = abs(share - limit)
        assert distance == pytest.approx(Z_95 * math.sqrt(limit * (1 - limit) / n), abs=1e-6)


def test_no_image_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="0 labels do not fit"):
        evaluate(ints(), np.zeros((0, 2)), majority_class=0)


def test_all_figures_of_a_hand_computed_case() -> None:
    labels = ints(0, 0, 0, 1, 1, 0)
    logits = [[2, 0], [1, 0], [0, 3], [0, 1], [1, 0], [4, 0]]

    result = evaluate(labels, logits, majority_class=0)

    assert result.confusion == ((3, 1), (1, 1))
    assert result.accuracy == Estimate(4 / 6, *wilson_interval(4, 6), 6)
    assert result.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert result.majority_accuracy == pytest.approx(4 / 6)
    assert result.auroc is not None
    # Differences: class 0 has -2, -1, 3, -4; class 1 has 1 (beats three) and -1 (two and a tie).
    assert result.auroc.value == pytest.approx((3 + 2.5) / 8)


def test_three_classes_have_no_auroc() -> None:
    result = evaluate(ints(0, 1, 2), np.eye(3), majority_class=0)

    assert result.auroc is None
    assert result.accuracy.value == 1.0


def test_balanced_accuracy_leaves_out_classes_that_do_not_occur() -> None:
    confusion = confusion_matrix(ints(0, 0, 2), ints(0, 1, 2), classes=4)

    assert balanced_accuracy(confusion) == pytest.approx((1 / 2 + 1) / 2)


def test_an_auroc_needs_both_classes_and_numbers() -> None:
    assert auroc(ints(1, 1), [0.0, 1.0]) is None
    assert auroc(ints(0, 0), [0.0, 1.0]) is None
    assert auroc(ints(0, 1), [0.0, math.nan]) is None


CASES = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=40)


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_the_auroc_counts_pairs(cases: list[tuple[bool, int]]) -> None:
    labels = np.array([int(label) for label, _ in cases], np.int64)
    positive = [score for label, score in cases if label]
    negative = [score for label, score in cases if not label]

    found = auroc(labels, [score for _, score in cases])

    if not positive or not negative:
        assert found is None
        return
    assert found is not None
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_a_perfect_auroc_of_few_images_is_not_certain() -> None:
    few = auroc(ints(0, 0, 0, 1, 1, 1), [1, 2, 3, 4, 5, 6])
    many = auroc(np.repeat([0, 1], 500), np.arange(1000))

    assert few is not None
    assert many is not None
    assert few.value == few.high == 1.0
    assert few.low < 0.75
    assert many.low > 0.99


def test_swapping_the_classes_leaves_the_auroc_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = rng.normal(labels, 1.0)

    found, swapped = auroc(labels, scores), auroc(1 - labels, -scores)

    assert found is not None
    assert swapped is not None
    assert (found.value, found.low, found.high) == pytest.approx(
        (swapped.value, swapped.low, swapped.high)
    )


@pytest.mark.parametrize(("distance", "truth"), [(1.0, 0.76025), (2.0, 0.92135)])
def test_the_auroc_interval_holds_the_truth_about_as_often_as_it_says(
    distance: float, truth: float
) -> None:
    rng = np.random.default_rng(7)
    labels = np.repeat([0, 1], [50, 25])
    covered = 0

    for _ in range(600):
        found = auroc(labels, rng.normal(labels * distance, 1.0))
        covered += found is not None and found.low <= truth <= found.high

    assert 0.93 <= covered / 600 <= 0.99


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_the_confusion_matrix_counts_and_gives_the_accuracy(pairs: list[tuple[int, int]]) -> None:
    labels, answers = (np.array(column, np.int64) for column in zip(*pairs, strict=True))

    confusion = confusion_matrix(labels, answers, classes=4)

    for truth in range(4):
        for answer in range(4):
            assert confusion[truth, answer] == pairs.count((truth, answer))
    assert accuracy(labels, answers).value == pytest.approx(np.trace(confusion) / len(pairs))
