"""Two-class inspection: what is found, what is missed, and what both kinds of error cost.

A sample raises an alarm where its score, the logit of the defect less that of the other class, is
at or above a threshold. Thresholds are chosen on the validation part and applied to the test part.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from host.errors import UsageError
from host.training.metrics import Estimate, Floats, Ints, wilson_interval

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Costs:
    """What a missed defect and what a false alarm costs, in any one currency.

    Raises UsageError where one is not above 0.
    """

    miss: float = 1.0
    false_alarm: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 < self.miss < math.inf and 0.0 < self.false_alarm < math.inf):
            raise UsageError(
                "a miss and a false alarm need costs above 0, "
                f"got {self.miss} and {self.false_alarm}"
            )


@dataclass(frozen=True)
class Scored:
    """The scores (N,) of one part of the data, and which samples are defects (N,)."""

    defects: npt.NDArray[np.bool_]
    scores: Floats

    @property
    def usable(self) -> bool:
        """Whether both classes occur and every score is a number."""
        both = bool(self.defects.any()) and not bool(self.defects.all())
        return both and bool(np.isfinite(self.scores).all())


@dataclass(frozen=True)
class InspectionFigures:
    """How inspection does on the test part.

    `confusion` is ((true good, false alarm), (miss, found)) at `threshold`, the one that costs the
    least on the validation part; `cost_per_sample` is what that makes on average over the test
    samples, with as many defects as there are among them. `recall` is the share of defects found at
    `rate_threshold`, which keeps false alarms within the limit on the validation part, and
    `false_alarm_rate` what they really are on the test part there.
    """

    threshold: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    cost_per_sample: float
    rate_threshold: float
    recall: Estimate
    false_alarm_rate: Estimate


def score_defects(labels: Ints, logits: npt.ArrayLike, *, defect: int) -> Scored:
    """The scores of logits (N, 2), where class `defect`, 0 or 1, is the defect.

    Raises ValueError for other shapes and classes.
    """
    answers = np.asarray(logits, np.float64)
    if answers.shape != (len(labels), 2) or defect not in (0, 1):
        raise ValueError(
            f"inspection needs logits of ({len(labels)}, 2) and a defect of 0 or 1, "
            f"got {answers.shape} and {defect}"
        )
    return Scored(labels == defect, answers[:, defect] - answers[:, 1 - defect])


def inspect_defects(
    validation: Scored, test: Scored, *, costs: Costs, false_alarm_rate_limit: float
) -> InspectionFigures | None:
    """All figures; None where a part lacks a class or a score is no number.

    Intervals are those of Wilson for a threshold that is given: that it was itself chosen from few
    samples is not in them. Raises UsageError for a limit that is not from 0 to 1.
    """
    if not 0.0 <= false_alarm_rate_limit <= 1.0:
        raise UsageError(
            f"a limit of false alarms is a share from 0 to 1, got {false_alarm_rate_limit}"
        )
    if not (validation.usable and test.usable):
        return None
    threshold = cheapest_threshold(validation, costs)
    rate_threshold = threshold_within_rate(validation, false_alarm_rate_limit)
    confusion = confusion_at(test, threshold)
    (good, false_alarms), (missed, found) = confusion_at(test, rate_threshold)
    return InspectionFigures(
        threshold=threshold,
        confusion=confusion,
        cost_per_sample=cost_per_sample(confusion, costs),
        rate_threshold=rate_threshold,
        recall=_share(found, missed + found),
        false_alarm_rate=_share(false_alarms, good + false_alarms),
    )


def confusion_at(scored: Scored, threshold: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """((true good, false alarm), (miss, found)) at that threshold."""
    alarm = scored.scores >= threshold
    false_alarms = int(np.count_nonzero(alarm & ~scored.defects))
    found = int(np.count_nonzero(alarm & scored.defects))
    defects = int(scored.defects.sum())
    goods = len(scored.defects) - defects
    return (goods - false_alarms, false_alarms), (defects - found, found)


def cost_per_sample(confusion: tuple[tuple[int, int], tuple[int, int]], costs: Costs) -> float:
    """The mean cost over the samples that a confusion counts."""
    (good, false_alarms), (missed, found) = confusion
    total = good + false_alarms + missed + found
    return (costs.miss * missed + costs.false_alarm * false_alarms) / total


def cheapest_threshold(scored: Scored, costs: Costs) -> float:
    """The threshold whose errors cost the least; of equally cheap ones the one that misses least.

    It lies half-way between two scores, or a logit beyond all of them.
    """
    thresholds, false_alarms, found = _cuts(scored)
    missed = scored.defects.sum() - found
    cost = costs.miss * missed + costs.false_alarm * false_alarms
    cheapest = cost <= cost.min() * (1.0 + _ROUNDING)
    return float(thresholds[cheapest].min())


def threshold_within_rate(scored: Scored, limit: float) -> float:
    """The lowest threshold at which at most that share of the good samples raises an alarm."""
    thresholds, false_alarms, _ = _cuts(scored)
    goods = np.count_nonzero(~scored.defects)
    return float(thresholds[false_alarms <= limit * goods + _ROUNDING].min())


def _cuts(scored: Scored) -> tuple[Floats, Floats, Floats]:
    """Thresholds from the lowest up, one between any two scores, and what each lets through.

    With the number of false alarms and of defects found at each.
    """
    values, places = np.unique(scored.scores, return_inverse=True)
    inside = values[:-1] + (values[1:] - values[:-1]) / 2
    # Half-way between neighbouring floats may be the lower one, which is not to raise an alarm.
    inside = np.where(inside > values[:-1], inside, values[1:])
    beyond = np.nextafter(values[-1] + 1.0, np.inf)
    thresholds = np.concatenate([[values[0] - 1.0], inside, [beyond]])

    def at_or_above(chosen: npt.NDArray[np.bool_]) -> Floats:
        counts = np.bincount(places[chosen], minlength=len(values)).astype(np.float64)
        return np.concatenate([np.cumsum(counts[::-1])[::-1], [0.0]])

    return thresholds, at_or_above(~scored.defects), at_or_above(scored.defects)


def _share(successes: int, n: int) -> Estimate:
    return Estimate(successes / n, *wilson_interval(successes, n), n)
