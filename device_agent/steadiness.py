"""Whether a model has warmed up: two neighbouring windows of its samples that look alike.

The criteria are those by which pyperf calibrates the number of warm-ups (psf/pyperf,
pyperf/_worker.py), except that the median absolute deviation may move by a tenth of the median:
by a tenth of itself it moves by chance alone in windows as short as these.
"""

from __future__ import annotations

from collections.abc import Sequence

_QUARTILE_SHIFT = 0.05
_DEVIATION_SHIFT = 0.10
_MEAN_RISE, _MEAN_FALL = 0.50, 0.10
_OUTLIER_RANGES = 1.5


def is_steady(earlier: Sequence[float], later: Sequence[float]) -> bool:
    """Whether the later window shows no trend against the earlier one, of the same length.

    The first sample may not be slower than all others by far, the quartiles may shift by 5 % and
    the median absolute deviation by 10 % of the median, and the mean of the earlier window may
    exceed that of the later one by 10 % at most and be half of it at least. Samples are positive.
    """
    first, second = _Summary(earlier), _Summary(later)
    return (
        not _starts_with_an_outlier(earlier, later)
        and abs(first.lower / second.lower - 1) <= _QUARTILE_SHIFT
        and abs(first.upper / second.upper - 1) <= _QUARTILE_SHIFT
        and abs(first.deviation - second.deviation) <= _DEVIATION_SHIFT * second.median
        and -_MEAN_RISE <= first.mean / second.mean - 1 <= _MEAN_FALL
    )


def _starts_with_an_outlier(earlier: Sequence[float], later: Sequence[float]) -> bool:
    others = sorted([*earlier[1:], *later])
    lower, upper = _quantile(others, 0.25), _quantile(others, 0.75)
    return earlier[0] > upper + _OUTLIER_RANGES * (upper - lower)


class _Summary:
    def __init__(self, values: Sequence[float]) -> None:
        ordered = sorted(values)
        self.lower, self.median, self.upper = (_quantile(ordered, q) for q in (0.25, 0.5, 0.75))
        self.deviation = _quantile(sorted(abs(v - self.median) for v in ordered), 0.5)
        self.mean = sum(ordered) / len(ordered)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
