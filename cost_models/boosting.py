"""Boosted regression trees: the residual where there are hundreds of measurements."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cost_models import stored
from cost_models.base import ModelFormatError
from cost_models.nnls import FloatArray

_TREES = 120
_RATE = 0.08
_DEPTH = 3
_SMALLEST_LEAF = 5
_SPLITS = 2**_DEPTH - 1

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BoostedTrees:
    """Small trees, each fitted to what those before it leave, shrunk and summed.

    All trees are complete. The split at place k of a tree, of `columns` and `limits` (trees x
    splits), sends a row to place 2 k + 2 where its value exceeds the limit, else to 2 k + 1; the
    places after the last split are those of `leaves` (trees x leaves).
    Source: J. H. Friedman, Ann. Statist. 29(5), 2001, algorithm 3 (least squares).
    """

    columns: Indices
    limits: FloatArray
    leaves: FloatArray

    @classmethod
    def fitted(cls, inputs: FloatArray, targets: FloatArray) -> Self:
        """Fitted on rows of inputs and their targets, the start being 0; deterministic."""
        columns = np.zeros((_TREES, _SPLITS), dtype=np.int64)
        limits = np.full((_TREES, _SPLITS), np.inf)
        leaves = np.zeros((_TREES, _SPLITS + 1))
        rest = targets.copy()
        for tree in range(_TREES):
            place = np.zeros(len(rest), dtype=np.int64)
            for split in range(_SPLITS):
                members = np.flatnonzero(place == split)
                columns[tree, split], limits[tree, split] = _best_split(
                    inputs[members], rest[members]
                )
                above = inputs[members, columns[tree, split]] > limits[tree, split]
                place[members] = 2 * split + 1 + above
            place -= _SPLITS
            sums = np.bincount(place, rest, minlength=_SPLITS + 1)
            counts = np.bincount(place, minlength=_SPLITS + 1)
            leaves[tree] = _RATE * sums / np.maximum(counts, 1)
            rest -= leaves[tree][place]
        return cls(columns, limits, leaves)

    def values(self, inputs: FloatArray) -> FloatArray:
        """The sum of the trees for each row."""
        total = np.zeros(len(inputs))
        rows = np.arange(len(inputs))
        for columns, limits, leaves in zip(self.columns, self.limits, self.leaves, strict=True):
            place = np.zeros(len(inputs), dtype=np.int64)
            for _ in range(_DEPTH):
                place = 2 * place + 1 + (inputs[rows, columns[place]] > limits[place])
            total += leaves[place - _SPLITS]
        return total

    def parts(self) -> dict[str, Any]:
        """The trees as plain lists; a split that sends nothing on has the limit null."""
        limits = [[None if np.isinf(x) else x for x in tree] for tree in self.limits.tolist()]
        return {"columns": self.columns.tolist(), "limits": limits, "leaves": self.leaves.tolist()}

    @classmethod
    def of_parts(cls, found: dict[str, Any], inputs: int) -> Self:
        """The trees on that many inputs whose `parts` these are; raises ModelFormatError."""
        columns = stored.numbers(found, "columns", (_TREES, _SPLITS))
        if columns.max() >= inputs or not (columns == np.floor(columns)).all():
            raise ModelFormatError("the stored cost model is damaged: its trees")
        return cls(
            columns.astype(np.int64),
            stored.numbers(found, "limits", (_TREES, _SPLITS), signed=True, null=np.inf),
            stored.numbers(found, "leaves", (_TREES, _SPLITS + 1), signed=True),
        )


def _best_split(inputs: FloatArray, targets: FloatArray) -> tuple[int, float]:
    """Column and limit of the split that lowers the squared error most; none is above infinity."""
    count = len(targets)
    if count < 2 * _SMALLEST_LEAF:
        return 0, np.inf
    order = np.argsort(inputs, axis=0, kind="stable")
    values = np.take_along_axis(inputs, order, axis=0)
    left = np.cumsum(targets[order], axis=0)[:-1]
    sizes = np.arange(1, count, dtype=np.float64)[:, np.newaxis]
    gains = left**2 / sizes + (left[-1:] + targets[order][-1:] - left) ** 2 / (count - sizes)
    possible = values[1:] > values[:-1]
    possible[: _SMALLEST_LEAF - 1] = False
    possible[count - _SMALLEST_LEAF :] = False
    gains = np.where(possible, gains, -np.inf)
    row, column = np.unravel_index(int(np.argmax(gains)), gains.shape)
    if not possible[row, column]:
        return 0, np.inf
    return int(column), float((values[row, column] + values[row + 1, column]) / 2)
