"""Pictures that look alike without being copies: saved anew, or of neighbouring parts.

A picture's look is its grey image at 16 x 16, brought to one brightness and contrast. What all
pictures of a data set share (the fixture, the lighting) is taken off: parts that one camera
photographs all look alike otherwise. Two looks are compared by their correlation. On the ELPV
photos (2,624 of solar cells) a JPEG of quality 30, half the size and noise of 4 grey levels all
leave it above 0.99, and clipping at 15 % more brightness in 95 of 100. Of the 3.4 million pairs of
different photos 107 reach 0.985: mostly cells of neighbouring wafers with the same grain, and some
without any.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
from PIL import Image

ALIKE = 0.985
"""The correlation from which on two pictures are called alike."""

SIDE = 16
_LEAST_CONTRAST = 1.0  # in grey levels: below it a look is what rounding made of it
_BLOCK = 2048  # looks compared at a time with as many others: 16 MiB of correlations


@dataclass(frozen=True)
class Alike:
    """Two pictures by their place in the sequence, and how much they correlate."""

    first: int
    second: int
    correlation: float


def look_of(image: Image.Image) -> bytes:
    """A picture in 256 grey values."""
    grey = image.convert("L")
    return grey.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def alike(looks: Sequence[bytes], parts: Sequence[int]) -> list[Alike]:
    """The pairs from two different parts that look alike, most alike first.

    Every such pair is compared: ten seconds for 100,000 pictures. Pictures that hardly differ
    from the average of all look like nothing and are passed over.
    """
    if len(looks) != len(parts):
        raise ValueError(f"{len(looks)} looks do not fit {len(parts)} parts")
    if not looks:
        return []
    units, kept = _units(looks)
    part = np.asarray(parts)[kept]
    found: list[Alike] = []
    for one, other in combinations(sorted(set(parts)), 2):
        rows, columns = np.flatnonzero(part == one), np.flatnonzero(part == other)
        for i, j, correlation in _reaching(units[rows], units[columns]):
            first, second = sorted((int(kept[rows[i]]), int(kept[columns[j]])))
            found.append(Alike(first, second, correlation))
    return sorted(found, key=lambda pair: (-pair.correlation, pair.first, pair.second))


def _reaching(
    rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]
) -> Iterator[tuple[int, int, float]]:
    """The pairs whose correlation reaches ALIKE."""
    for top, left in product(range(0, len(rows), _BLOCK), range(0, len(columns), _BLOCK)):
        correlations = rows[top : top + _BLOCK] @ columns[left : left + _BLOCK].T
        if correlations.max() >= ALIKE:
            for i, j in np.argwhere(correlations >= ALIKE).tolist():
                yield top + i, left + j, float(correlations[i, j])


def _units(looks: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """What is particular about each look at length 1, and which looks have anything."""
    grey = np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), -1)
    own = grey.astype(np.float32)
    own -= own.mean(axis=1, keepdims=True)
    contrast = own.std(axis=1)
    own /= np.maximum(contrast, _LEAST_CONTRAST)[:, np.newaxis]
    own -= own.mean(axis=0)
    lengths = np.linalg.norm(own, axis=1)
    kept = np.flatnonzero(lengths / SIDE * contrast >= _LEAST_CONTRAST)
    return own[kept] / lengths[kept, np.newaxis], kept
