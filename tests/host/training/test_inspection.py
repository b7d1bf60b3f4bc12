"""Two-class inspection against brute force: thresholds, recall, costs."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from host.errors import UsageError
from host.training.inspection import (
    Costs,
    Scored,
    cheapest_threshold,
    confusion_at,
    cost_per_sample,
    inspect_defects,
    score_defects,
    threshold_within_rate,
)
from host.training.metrics import wilson_interval

SAMPLES = st.lists(st.tuples(st.booleans(), st.integers(-6, 6)), min_size=2, max_size=40)
COST = st.floats(0.01, 100.0)
RATE = st.floats(0.0, 1.0)


def scored(samples: list[tuple[bool, int]]) -> Scored:
    found = Scored(
        np.array([defect for defect, _ in samples], np.bool_),
        np.array([score for _, score in samples], np.float64),
    )
    assume(found.usable)
    return found


def brute_thresholds(part: Scored) -> list[float]:
    values = sorted(set(part.scores.tolist()))
    return [*values, values[-1] + 1]


@settings(max_examples=150, deadline=None)
@given(SAMPLES, COST, COST)
def test_no_threshold_is_cheaper_than_the_cheapest(
    samples: list[tuple[bool, int]], miss: float, false_alarm: float
) -> None:
    part, costs = scored(samples), Costs(miss, false_alarm)

    threshold = cheapest_threshold(part, costs)

    least = min(
        cost_per_sample(confusion_at(part, other), costs) for other in brute_thresholds(part)
    )
    assert cost_per_sample(confusion_at(part, threshold), costs) == pytest.approx(least)
    assert math.isfinite(threshold)
    assert least <= min(miss * np.mean(part.defects), false_alarm * np.mean(~part.defects)) + 1e-12


@settings(max_examples=150, deadline=None)
@given(SAMPLES, RATE)
def test_no_threshold_within_the_rate_finds_more(
    samples: list[tuple[bool, int]], limit: float
) -> None:
    part = scored(samples)

    (good, false_alarms), (_, found) = confusion_at(part, threshold_within_rate(part, limit))

    assert false_alarms <= limit * (good + false_alarms) + 1e-6
    for other in brute_thresholds(part):
        (good, alarms), (_, other_found) = confusion_at(part, other)
        if alarms <= limit * (good + alarms):
            assert other_found <= found


def test_all_figures_of_a_case_by_hand() -> None:
    validation = Scored(
        np.array([False, False, False, False, True, True]),
        np.array([-3.0, -2.0, -1.0, 1.0, 0.0, 2.0]),
    )
    test = Scored(
        np.array([False, False, False, False, False, True, True, True, True]),
        np.array([-3.0, -1.0, 0.0, 0.6, 3.0, -2.0, 0.7, 2.0, 4.0]),
    )

    found = inspect_defects(
        validation, test, costs=Costs(miss=10.0, false_alarm=1.0), false_alarm_rate_limit=0.0
    )

    assert found is not None
    # Without a miss on validation there is one false alarm (1.0); one miss costs ten times that.
    assert found.threshold == -0.5
    assert found.confusion == ((2, 3), (1, 3))
    assert found.cost_per_sample == pytest.approx((10 + 3) / 9)
    # No false alarm on validation needs a threshold above 1.
    assert found.rate_threshold == 1.5
    assert (found.recall.value, found.recall.n) == (2 / 4, 4)
    assert (found.recall.low, found.recall.high) == wilson_interval(2, 4)
    assert (found.false_alarm_rate.value, found.false_alarm_rate.n) == (1 / 5, 5)


def test_a_dearer_miss_lowers_the_threshold() -> None:
    rng = np.random.default_rng(0)
    defects = rng.random(400) < 0.3
    part = Scored(defects, rng.normal(defects * 2.0, 1.0))

    thresholds = [cheapest_threshold(part, Costs(miss, 1.0)) for miss in (0.1, 1.0, 10.0, 100.0)]

    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] > thresholds[-1]


@pytest.mark.parametrize("defect", [0, 1])
def test_either_class_may_be_the_defect(defect: int) -> None:
    labels = np.array([0, 1, 1], np.int64)
    logits = [[2.0, 0.0], [0.0, 1.0], [3.0, 0.5]]

    part = score_defects(labels, logits, defect=defect)

    sign = 1 if defect == 1 else -1
    assert part.scores.tolist() == [sign * value for value in (-2.0, 1.0, -2.5)]
    assert part.defects.tolist() == [label == defect for label in (0, 1, 1)]


def test_neighbouring_numbers_are_told_apart() -> None:
    high = np.nextafter(1.0, 2.0)
    part = Scored(np.array([False, True]), np.array([1.0, high]))

    threshold = cheapest_threshold(part, Costs())

    assert confusion_at(part, threshold) == ((1, 0), (0, 1))


def test_huge_scores_have_a_threshold_beyond_them() -> None:
    part = Scored(np.array([True, False]), np.array([-1e17, 1e17]))

    assert confusion_at(part, threshold_within_rate(part, 0.0)) == ((1, 0), (1, 0))


@pytest.mark.parametrize(
    ("defects", "scores"),
    [([True, True], [0.0, 1.0]), ([False, False], [0.0, 1.0]), ([True, False], [0.0, math.nan])],
)
def test_a_part_without_both_classes_or_with_no_numbers_has_no_figures(
    defects: list[bool], scores: list[float]
) -> None:
    whole = Scored(np.array([True, False]), np.array([1.0, 0.0]))
    lacking = Scored(np.array(defects), np.array(scores))

    for validation, test in ((whole, lacking), (lacking, whole)):
        assert inspect_defects(validation, test, costs=Costs(), false_alarm_rate_limit=0.1) is None


@pytest.mark.parametrize("limit", [-0.1, 1.1, math.nan])
def test_a_limit_that_is_no_share_is_refused(limit: float) -> None:
    part = Scored(np.array([True, False]), np.array([1.0, 0.0]))

    with pytest.raises(UsageError, match="a limit of false alarms is a share"):
        inspect_defects(part, part, costs=Costs(), false_alarm_rate_limit=limit)


@pytest.mark.parametrize("costs", [(0.0, 1.0), (1.0, -1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_costs_that_cannot_be_are_refused(costs: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="need costs above 0"):
        Costs(*costs)


@pytest.mark.parametrize(("logits", "defect"), [([[0.0, 1.0, 2.0]], 1), ([[0.0, 1.0]], 2)])
def test_other_than_two_classes_are_an_error_of_the_caller(
    logits: list[list[float]], defect: int
) -> None:
    with pytest.raises(ValueError, match="inspection needs logits of"):
        score_defects(np.array([0], np.int64), logits, defect=defect)
