"""Block bootstrap: how sure a quantile or a mean is when neighbouring samples resemble each other.

Whole blocks are drawn with replacement (Künsch 1989), so that what disturbs a block for its whole
length counts once and not once for each of its samples. Draws are spread by t/z·√(K/(K−1)) about
the figure, without which the interval of a handful of K blocks is too narrow. Seeded: the same
samples have the same interval on every host.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

RESAMPLES = 1000
_MIN_BLOCKS = 5
_MOST_PIECES = 400
_PIECES = 10  # a measurement of fewer blocks is cut into about so many
_GRID = 4096  # values that a quantile is looked up in; its level is exact to 1/4096
_Z = 1.959964  # 97.5 % quantile of the normal distribution
_SMALL_T = {1: 12.706, 2: 4.303, 3: 3.182}
_TAILS = (0.025, 0.975)


def quantile_draws(blocks: "Sequence[FloatArray]", level: float, seed: int = 1) -> "FloatArray":
    """The quantile of `RESAMPLES` resampled measurements. Two measurements that are compared need
    two seeds, else the same blocks are drawn of both.

    Raises ValueError where no block has a sample.
    """
    import numpy as np

    pieces = _pieces(blocks)
    pooled = np.sort(np.concatenate(pieces))
    grid = pooled[np.linspace(0, len(pooled) - 1, min(len(pooled), _GRID)).round().astype(int)]
    # below[g, k]: how many samples of block k are at or below grid[g].
    block = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    cell = np.searchsorted(grid, np.concatenate(pieces)) * len(pieces) + block
    found = np.bincount(cell, minlength=len(grid) * len(pieces)).reshape(len(grid), len(pieces))
    below = found.cumsum(axis=0).astype(float)
    counts = _block_counts(len(pieces), seed)
    wanted = level * (counts @ below[-1])
    low, high = np.zeros(RESAMPLES, dtype=np.int64), np.full(RESAMPLES, len(grid) - 1)
    for _ in range(len(grid).bit_length()):
        middle = (low + high) // 2
        enough = np.einsum("rk,rk->r", counts, below.take(middle, axis=0)) >= wanted
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        low = np.minimum(low, high)
    return _spread(grid[high], quantile(pooled, level), len(pieces))


def quantile(values: "FloatArray", level: float) -> float:
    """The quantile by linear interpolation: type 7 of Hyndman & Fan (1996).

    The same number as numpy.quantile gives, which takes ten times as long for a few hundred values.
    """
    import numpy as np

    ordered = np.sort(values)
    position = level * (len(ordered) - 1)
    below = int(position)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    share = position - below
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def mean_draws(values: "FloatArray", weights: "FloatArray") -> "FloatArray":
    """The weighted mean of `RESAMPLES` resampled sets of windows, each window a block."""
    import numpy as np

    counts = _block_counts(len(values), seed=1)
    draws = (counts @ (values * weights)) / (counts @ weights)
    return _spread(draws, float(np.average(values, weights=weights)), len(values))


def interval_of(draws: "FloatArray") -> tuple[float, float]:
    """The 95 % interval of what was drawn."""
    low, high = (quantile(draws, level) for level in _TAILS)
    return low, high


def interval_around(
    figure: float, draws: "FloatArray", bound: Callable[[float], float] = float
) -> tuple[float, float]:
    """The 95 % interval of what was drawn, with the figure in it whatever rounding did."""
    low, high = interval_of(draws)
    return bound(min(low, figure)), max(high, figure)


def _pieces(blocks: "Sequence[FloatArray]") -> "list[FloatArray]":
    import numpy as np

    filled = [block for block in blocks if len(block)]
    if not filled:
        raise ValueError("no block has a sample")
    if len(filled) >= _MIN_BLOCKS:
        # Neighbours are joined where there are very many: the work is bounded whatever comes.
        step = -(-len(filled) // _MOST_PIECES)
        return [np.concatenate(filled[i : i + step]) for i in range(0, len(filled), step)]
    parts = -(-_PIECES // len(filled))
    return [p for block in filled for p in np.array_split(block, min(parts, len(block)))]


@lru_cache(maxsize=4)
def _block_counts(blocks: int, seed: int) -> "FloatArray":
    """counts[r, k]: how often block k is in resample r."""
    import numpy as np

    rng = np.random.default_rng(seed)
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES).astype(float)
    counts.setflags(write=False)
    return counts


def _spread(draws: "FloatArray", figure: float, blocks: int) -> "FloatArray":
    if blocks < 2:
        return draws
    factor = float((blocks / (blocks - 1)) ** 0.5) * t_quantile(blocks - 1) / _Z
    spread: FloatArray = figure + factor * (draws - figure)
    return spread


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t; from 4 degrees on by Fisher & Cornish (1960), within 1 %."""
    if freedom in _SMALL_T:
        return _SMALL_T[freedom]
    z, inverse = _Z, 1 / freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + inverse * (first + inverse * (second + inverse * third))
