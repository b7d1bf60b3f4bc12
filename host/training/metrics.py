"""How good a trained network is on images that it was not trained on, with intervals."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A value between 0 and 1 from n images, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Evaluation:
    """A network's answers against the truth on one part of the images.

    `majority_accuracy` is what always answering the most frequent training class would get.
    `auroc` is for two classes only. `confusion[t][p]` counts images of class t answered as p.
    """

    accuracy: Estimate
    balanced_accuracy: float
    auroc: Estimate | None
    majority_accuracy: float
    confusion: tuple[tuple[int, ...], ...]


def evaluate(labels: Ints, logits: npt.ArrayLike, *, majority_class: int) -> Evaluation:
    """All figures of logits (N, classes) against labels (N,).

    Raises ValueError without images or for arrays that do not fit.
    """
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2 or len(labels) != len(scores) or len(labels) == 0:
        raise ValueError(f"{len(labels)} labels do not fit logits of shape {scores.shape}")
    answers = scores.argmax(axis=1)
    confusion = confusion_matrix(labels, answers, classes=scores.shape[1])
    two = scores.shape[1] == 2
    return Evaluation(
        accuracy=accuracy(labels, answers),
        balanced_accuracy=balanced_accuracy(confusion),
        auroc=auroc(labels, scores[:, 1] - scores[:, 0]) if two else None,
        majority_accuracy=float(np.mean(labels == majority_class)),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )


def accuracy(labels: Ints, answers: Ints) -> Estimate:
    """The share of right answers with the score interval of Wilson (1927).

    Raises ValueError without images.
    """
    right = int(np.count_nonzero(labels == answers))
    return Estimate(right / len(labels), *wilson_interval(right, len(labels)), len(labels))


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927, JASA 22:209).

    Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError("an interval needs at least one observation")
    share = successes / n
    centre = share + Z_95**2 / (2 * n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    scale = 1 + Z_95**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def confusion_matrix(labels: Ints, answers: Ints, *, classes: int) -> Ints:
    """Counts of shape (classes, classes): row = true class, column = answer."""
    flat = np.bincount(labels * classes + answers, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def balanced_accuracy(confusion: Ints) -> float:
    """The mean over the classes that occur of the share of their images answered right."""
    totals = confusion.sum(axis=1)
    occurs = totals > 0
    return float(np.mean(np.diag(confusion)[occurs] / totals[occurs]))


def auroc(labels: Ints, scores: npt.ArrayLike) -> Estimate | None:
    """The chance that an image of class 1 scores above one of class 0, ties counting half.

    From mid-ranks (Mann and Whitney 1947). None where one class does not occur or a score is nan.
    The 95 % interval solves |A - theta| = z sqrt(V(theta)) for theta with the variance of Hanley
    and McNeil (1982): method 5 of Newcombe (2006, Statistics in Medicine 25:559), which stays
    inside [0, 1] and does not shrink to a point at A = 1.
    """
    values = np.asarray(scores, np.float64)
    positive = labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0 or bool(np.isnan(values).any()):
        return None
    rank_sum = float(rankdata(values)[positive].sum())
    area = (rank_sum - m * (m + 1) / 2) / (m * n)
    low = _limit(area, m, n, towards=0.0)
    high = _limit(area, m, n, towards=1.0)
    return Estimate(area, low, high, m + n)


def _limit(area: float, m: int, n: int, *, towards: float) -> float:
    """The theta between `area` and `towards` at which `area` lies z standard errors away."""
    inside, outside = area, towards
    for _ in range(60):
        theta = (inside + outside) / 2
        if abs(area - theta) <= Z_95 * math.sqrt(_variance(theta, m, n)):
            inside = theta
        else:
            outside = theta
    return (inside + outside) / 2


def _variance(theta: float, m: int, n: int) -> float:
    """Of an AUROC of theta from m and n images; both sample sizes replaced by their mean."""
    mean = (m + n) / 2 - 1
    spread = 1 + mean * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    return theta * (1 - theta) * spread / (m * n)
