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

MOST_LISTED = 500
"""A folder of near copies has more pairs than memory holds: the others are counted alone."""

SIDE = 16
_LEAST_CONTRAST = 1.0  # in grey levels: below it a look is what rounding made of it
_BLOCK = 2048  # looks compared at a time with as many others: 16 MiB of correlations


@dataclass(frozen=True)
class Alike:
    """Two pictures by their place in the sequence, and how much they correlate."""

    first: int
    second: int
    correlation: float


@dataclass(frozen=True)
class Likeness:
    """Pairs that look alike, most alike first, and how many there are.

    Listed are at most MOST_LISTED whose labels agree and as many whose labels differ; `contrary`
    counts the latter.
    """

    pairs: tuple[Alike, ...]
    count: int
    contrary: int


def look_of(image: Image.Image) -> bytes:
    """A picture in 256 grey values."""
    grey = image.convert("L")
    return grey.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def alike(looks: Sequence[bytes], parts: Sequence[int], labels: Sequence[int]) -> Likeness:
    """The pairs from two different parts that look alike.

    Every such pair is compared: ten seconds for 100,000 pictures. Pictures that hardly differ
    from the average of all look like nothing and are passed over.
    """
    if not len(looks) == len(parts) == len(labels):
        raise ValueError(
            f"{len(looks)} looks do not fit {len(parts)} parts and {len(labels)} labels"
        )
    same, contrary = _Pairs(), _Pairs()
    if looks:
        units, kept = _units(looks)
        part, label = np.asarray(parts)[kept], np.asarray(labels)[kept]
        for one, other in combinations(sorted(set(parts)), 2):
            rows, columns = np.flatnonzero(part == one), np.flatnonzero(part == other)
            for i, j, correlations in _reaching(units[rows], units[columns]):
                first, second = rows[i], columns[j]
                agree = label[first] == label[second]
                places = np.sort(np.stack([kept[first], kept[second]]), axis=0)
                same.add(places[:, agree], correlations[agree])
                contrary.add(places[:, ~agree], correlations[~agree])
    found = [*same.listed(), *contrary.listed()]
    found.sort(key=lambda pair: (-pair.correlation, pair.first, pair.second))
    return Likeness(tuple(found), same.count + contrary.count, contrary.count)


class _Pairs:
    """The pairs that are most alike of all that are added, and the number of all."""

    def __init__(self) -> None:
        self.count = 0
        self._places = np.empty((2, 0), np.intp)
        self._correlations = np.empty(0, np.float32)

    def add(self, places: npt.NDArray[np.intp], correlations: npt.NDArray[np.float32]) -> None:
        """Pairs by their places (2, N). Of equally alike ones the first that came stay."""
        self.count += len(correlations)
        if len(self._correlations) == MOST_LISTED:
            closer = correlations > self._correlations.min()
            places, correlations = places[:, closer], correlations[closer]
        places = np.concatenate([self._places, places], axis=1)
        correlations = np.concatenate([self._correlations, correlations])
        best = np.argsort(-correlations, kind="stable")[:MOST_LISTED]
        self._places, self._correlations = places[:, best], correlations[best]

    def listed(self) -> list[Alike]:
        return [
            Alike(first, second, correlation)
            for (first, second), correlation in zip(
                self._places.T.tolist(), self._correlations.tolist(), strict=True
            )
        ]


def _reaching(
    rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
    """The pairs whose correlation reaches ALIKE, a block at a time, by row and column."""
    for top, left in product(range(0, len(rows), _BLOCK), range(0, len(columns), _BLOCK)):
        correlations = rows[top : top + _BLOCK] @ columns[left : left + _BLOCK].T
        if correlations.max() >= ALIKE:
            i, j = np.nonzero(correlations >= ALIKE)
            yield top + i, left + j, correlations[i, j]


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
