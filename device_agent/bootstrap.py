"""How well the median of samples is known that were taken in blocks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

_DRAWS = 200
_LEVEL = 0.95
# They bound the work that does not grow with the samples: 20 ms on a PC, some tenths of a second
# on a Raspberry Pi 3. It falls between blocks.
_MOST_BLOCKS = 100
_STEPS = 512


def relative_half_width(blocks: Sequence[Sequence[float]], seed: int = 1) -> float | None:
    """Half of the 95 % interval of the median, over the median; None with fewer than two blocks.

    Block bootstrap: neighbouring samples are not independent, so whole blocks are drawn with
    replacement (Kuensch, "The jackknife and the bootstrap for general stationary observations",
    1989); more than a hundred of them are joined with their neighbours. Samples are positive;
    empty blocks do not count.
    """
    filled = _joined([block for block in blocks if block])
    if len(filled) < 2:
        return None
    distribution = _Distribution.of(filled)
    random = _Lehmer(seed)
    medians = sorted(distribution.median(_weights(len(filled), random)) for _ in range(_DRAWS))
    tail = round(_DRAWS * (1 - _LEVEL) / 2)
    low, high = medians[tail - 1], medians[_DRAWS - tail]
    return (high - low) / 2 / distribution.median([1] * len(filled))


def _joined(blocks: list[Sequence[float]]) -> list[Sequence[float]]:
    together = -(-len(blocks) // _MOST_BLOCKS)
    if together <= 1:
        return blocks
    starts = range(0, len(blocks), together)
    return [list(itertools.chain(*blocks[start : start + together])) for start in starts]


def _weights(blocks: int, random: _Lehmer) -> list[int]:
    """How often each block comes up in as many draws as there are blocks."""
    weights = [0] * blocks
    for _ in range(blocks):
        weights[random.below(blocks)] += 1
    return weights


@dataclass(frozen=True)
class _Distribution:
    """How many samples of each block lie at or below some of the values, in ascending order."""

    values: list[float]
    counts: list[list[int]]

    @staticmethod
    def of(blocks: Sequence[Sequence[float]]) -> _Distribution:
        pairs = sorted((value, index) for index, block in enumerate(blocks) for value in block)
        step = -(-len(pairs) // _STEPS)
        seen = [0] * len(blocks)
        distribution = _Distribution([], [])
        for start in range(0, len(pairs), step):
            for _, index in pairs[start : start + step]:
                seen[index] += 1
            distribution.values.append(pairs[min(start + step, len(pairs)) - 1][0])
            distribution.counts.append(seen.copy())
        return distribution

    def median(self, weights: Sequence[int]) -> float:
        """The median where each block counts as often as its weight says."""
        half = self._count(weights, -1) / 2
        low, high = -1, len(self.values) - 1
        below, above = 0, int(2 * half)
        while high - low > 1:
            middle = (low + high) // 2
            count = self._count(weights, middle)
            if count < half:
                low, below = middle, count
            else:
                high, above = middle, count
        if low < 0:
            return self.values[high]
        share = (half - below) / (above - below)
        return self.values[low] + share * (self.values[high] - self.values[low])

    def _count(self, weights: Sequence[int], step: int) -> int:
        count: int = sum(map(mul, weights, self.counts[step]))
        return count


class _Lehmer:
    """Park and Miller's generator (CACM 31(10), 1988): the module random costs memory, and what
    this process holds is measured.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, bound: int) -> int:
        self._state = self._state * 48_271 % 0x7FFFFFFF
        return self._state * bound // 0x7FFFFFFF
