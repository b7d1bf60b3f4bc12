"""NPZ files that hold many recordings each: `inputs` (N, C, T) with `labels` (N,)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from host.data.listing import subset_named
from host.data.recordings import (
    CLASSES,
    GROUPS,
    INPUTS,
    LABELS,
    UnreadableRecordingError,
    arrays_of,
)
from host.data.split import Subset
from host.errors import UsageError


@dataclass(frozen=True, eq=False)
class ArrayRow:
    """One recording of a file: its number there, samples (C, T), class and group by name."""

    file: str
    number: int
    values: npt.NDArray[Any]
    label: str
    group: str | None
    subset: Subset | None

    @property
    def path(self) -> str:
        return f"{self.file}[{self.number}]"


@dataclass(frozen=True)
class ArrayFiles:
    """Files of one data set; those named train.npz, val.npz and test.npz say the parts."""

    root: Path
    names: tuple[str, ...]

    def rows(self) -> Iterator[ArrayRow]:
        """Every recording, one file in memory at a time.

        Raises UsageError for a file that cannot be read or whose arrays do not fit each other.
        """
        subsets = [subset_named(Path(name).stem) for name in self.names]
        given = "train" in subsets
        for name, subset in zip(self.names, subsets, strict=True):
            yield from _rows(self.root, name, subset if given else None)


def array_files(path: Path) -> ArrayFiles | None:
    """The NPZ files that a path names or that lie in a folder itself; None where there are none."""
    if path.is_file() and path.suffix.lower() == ".npz":
        return ArrayFiles(path.parent, (path.name,))
    if not path.is_dir():
        return None
    names = sorted(p.name for p in path.iterdir() if _is_array_file(p))
    return ArrayFiles(path, tuple(names)) if names else None


def stacked(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Recordings as (N, C, T); (N, T) are those of one channel."""
    return values[:, np.newaxis] if values.ndim == 2 else values


def in_order(names: set[str]) -> tuple[str, ...]:
    """Names of classes: numbers by their size, others by the alphabet."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _is_array_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".npz" and not path.name.startswith(".")


def _rows(root: Path, name: str, subset: Subset | None) -> Iterator[ArrayRow]:
    path = root / name
    try:
        arrays = arrays_of(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnreadableRecordingError as error:
        raise UsageError(f"{path} cannot be used: {error}") from error
    for needed in (INPUTS, LABELS):
        if needed not in arrays:
            raise UsageError(
                f'{path} has no array "{needed}": it needs inputs (recordings, channels, samples) '
                "and labels (recordings,)"
            )
    inputs = stacked(arrays[INPUTS])
    labels = _labels(path, arrays)
    groups = arrays.get(GROUPS)
    _check(path, inputs, labels, groups)
    for number, values in enumerate(inputs):
        group = None if groups is None else str(groups[number])
        yield ArrayRow(name, number, values, labels[number], group, subset)


def _labels(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> list[str]:
    """The class of each recording by name."""
    labels = arrays[LABELS]
    if labels.ndim != 1 or labels.dtype.kind not in "iuUb":
        raise UsageError(
            f"{path} has labels of {labels.dtype} in {labels.ndim} dimensions: one whole number or "
            "name a recording is needed"
        )
    classes = arrays.get(CLASSES)
    if classes is None or labels.dtype.kind == "U":
        return [str(label) for label in labels.tolist()]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise UsageError(f"{path} has labels that stand for none of its {len(classes)} classes")
    return [str(classes[label]) for label in labels.tolist()]


def _check(
    path: Path,
    inputs: npt.NDArray[Any],
    labels: Sequence[str],
    groups: npt.NDArray[Any] | None,
) -> None:
    if inputs.ndim != 3 or inputs.dtype.kind not in "fiu":
        raise UsageError(
            f"{path} has inputs of {inputs.dtype} in {inputs.ndim} dimensions: numbers as "
            "(recordings, channels, samples) are needed"
        )
    if inputs.shape[1] > inputs.shape[2]:
        raise UsageError(
            f"{path} has inputs of {inputs.shape[1]} channels by {inputs.shape[2]} samples: turn "
            "them to (recordings, channels, samples)"
        )
    if len(labels) != len(inputs) or (groups is not None and groups.shape != (len(inputs),)):
        raise UsageError(f"{path} has {len(inputs)} inputs, and another number of labels or groups")
