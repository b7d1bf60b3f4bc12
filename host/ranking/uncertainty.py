"""How sure a rank is: what becomes of it when weights and images are drawn anew."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

RESAMPLES = 1000
_DECIMALS = 9
_ELEMENTS_AT_A_TIME = 5_000_000
PERCENTILES = (10, 90)
"""A rank lies between them in 80 % of the resamples."""


def ranks(scores: Matrix, equals: Literal["min", "max"] = "min") -> Places:
    """The rank of each of (..., candidates) among them: 1 is the highest.

    Equals share the first of their places or (max) the last. Scores are sums of logarithms: what
    the order of adding them changes is no difference.
    """
    count = scores.shape[-1]
    if equals == "max":
        last: Places = count + 1 - ranks(-scores)
        return last
    order = np.argsort(-scores.round(_DECIMALS), axis=-1)
    ordered = np.take_along_axis(scores.round(_DECIMALS), order, axis=-1)
    begins = np.ones(scores.shape, dtype=bool)
    begins[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    places = np.maximum.accumulate(np.where(begins, np.arange(1, count + 1), 0), axis=-1)
    found = np.empty_like(places)
    np.put_along_axis(found, order, places, axis=-1)
    return found


def rank_intervals(scores: Matrix, *, seed: int) -> Places:
    """(2, candidates): between which ranks each candidate lies in 80 % of the resamples.

    `scores` (draws, candidates) holds a score for each draw of weights and images, two draws or
    more. A resample takes as many draws with replacement, for each candidate anew, and ranks their
    means; what is equal there may have any of the places that it shares. Deviations from a
    candidate's mean are widened by sqrt(K / (K - 1)): the spread of K draws underestimates that of
    their source by so much (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sec.
    5.3). Raises ValueError for fewer than two draws.
    """
    draws, candidates = scores.shape
    if draws < 2:
        raise ValueError(f"an interval needs two draws or more, got {draws}")
    means = scores.mean(axis=0)
    widened = means + (scores - means) * np.sqrt(draws / (draws - 1))
    rng = np.random.default_rng(seed)
    first, last = (np.empty((RESAMPLES, candidates), np.int64) for _ in range(2))
    block = max(1, _ELEMENTS_AT_A_TIME // (draws * candidates))
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        taken = rng.integers(draws, size=(rows, draws, candidates))
        resampled = np.take_along_axis(widened[np.newaxis], taken, axis=1).mean(axis=1)
        first[start : start + rows] = ranks(resampled)
        last[start : start + rows] = ranks(resampled, "max")
    low, high = PERCENTILES
    limits = [
        np.percentile(places, percentile, axis=0, method="inverted_cdf")
        for places, percentile in ((first, low), (last, high))
    ]
    return np.stack(limits).astype(np.int64)
