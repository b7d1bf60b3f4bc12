"""Which files a data set names: by class folders, or by a table; with their groups and parts."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from host.data.split import Subset
from host.errors import UsageError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
RECORDING_SUFFIXES = frozenset({".csv", ".npz"})

Kind = Literal["images", "signals"]
Why = Literal["unusable", "two classes", "later part", "group in a later part"]
"""Why a file is left out: for itself, as a copy of another, or for the group that it is of."""

_SUBSET_NAMES: dict[str, Subset] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_SHOWN = 80  # characters of a path that is too long
_THREADS = 2
_AT_A_TIME = 1024  # futures that wait for their turn: each takes a kilobyte

_From = TypeVar("_From")
_To = TypeVar("_To")


@dataclass(frozen=True)
class ListedFile:
    """A file that should be read: its path below the root, with slashes, and what is said of it."""

    path: str
    label: str
    subset: Subset | None = None
    """The part that the folder or the table puts it into, if it does."""
    group: str | None = None
    """Files of one group are never divided between parts."""


@dataclass(frozen=True)
class ExcludedFile:
    """A file that is left out, and why."""

    path: str
    reason: str
    why: Why = "unusable"


@dataclass(frozen=True)
class Listing:
    """The files of a data set in the order of their paths; without a `table` from class folders."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[ListedFile, ...]
    excluded: tuple[ExcludedFile, ...] = ()
    table: Path | None = None


def list_folder(path: Path, suffixes: frozenset[str], noun: str = "image") -> Listing:
    """The files with those suffixes below a folder with one sub-folder a class.

    The class folders may also stand in sub-folders train, val and test (train alone is enough).
    Hidden files are passed over.

    Raises UsageError where the folder is missing or has no class folders.
    """
    if not path.is_dir():
        raise UsageError(f"there is no {noun} folder {path}: check the path")
    parts = _parts(path)
    classes = sorted({name for part in parts for name in _folders(part)})
    if not classes:
        raise UsageError(
            f"{path} has no class folders: put the {noun}s of each class into a sub-folder "
            "named after the class"
        )
    files = [
        ListedFile(file.relative_to(path).as_posix(), name, subset)
        for part, subset in parts.items()
        for name in classes
        for file in files_below(part / name, suffixes)
    ]
    return Listing(path, tuple(classes), tuple(sorted(files, key=lambda file: file.path)))


def require_possible(path: Path) -> None:
    """Raises UsageError for a path that nothing can have, whether or not something is there."""
    try:
        path.lstat()
    except ValueError as error:
        raise UsageError(
            f"{str(path)!r} has a NUL character, which no path can have: check the path"
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(
                f"{str(path)[:_SHOWN]}... is too long for a path: check the path"
            ) from error


def files_below(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files with those suffixes, at any depth, in no order; hidden ones are passed over."""
    for directory, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(directory, name)


def subset_named(name: str) -> Subset | None:
    """The part that people mean by a name such as "val"; None where they mean none."""
    return _SUBSET_NAMES.get(name.strip().lower())


def with_groups(listing: Listing, pattern: str) -> Listing:
    """The listing with the groups that a regular expression finds in the paths.

    The group is what matches the part named `group`, else the first pair of brackets.

    Raises UsageError for a pattern that is none or has no brackets, for a path that it does not
    match, and where a table gives groups already.
    """
    if any(file.group is not None for file in listing.files):
        raise UsageError(
            f"{listing.table} has a column of groups already: give no group pattern beside it"
        )
    compiled = _compiled(pattern)
    found = [_group_of(file.path, compiled) for file in listing.files]
    missing = [f.path for f, group in zip(listing.files, found, strict=True) if group is None]
    if missing:
        raise UsageError(
            f'the group pattern "{pattern}" finds no group in {len(missing)} of '
            f"{len(found)} paths, such as {missing[0]}: every file needs one"
        )
    files = (replace(f, group=group) for f, group in zip(listing.files, found, strict=True))
    return replace(listing, files=tuple(files))


def in_threads(function: Callable[[_From], _To], things: Sequence[_From]) -> Iterator[_To]:
    """The function of each, in their order, two at a time; few of many wait in memory."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(things), _AT_A_TIME):
            yield from pool.map(function, things[start : start + _AT_A_TIME])


def by_path(files: Iterable[ExcludedFile]) -> tuple[ExcludedFile, ...]:
    """The files in the order of their paths."""
    return tuple(sorted(files, key=lambda file: file.path))


def _parts(path: Path) -> dict[Path, Subset | None]:
    """The folders that hold class folders, with the subset that each stands for."""
    found = {path / name: _SUBSET_NAMES[name] for name in _folders(path) & set(_SUBSET_NAMES)}
    if "train" in found.values() and all(_folders(part) for part in found):
        return dict(found)
    return {path: None}


def _folders(path: Path) -> set[str]:
    return {p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f'the group pattern "{pattern}" is no regular expression: {error}'
        ) from error
    if compiled.groups == 0:
        raise UsageError(
            f'the group pattern "{pattern}" has no brackets around the group: write it such as '
            '"part(\\d+)_shot"'
        )
    return compiled


def _group_of(path: str, pattern: re.Pattern[str]) -> str | None:
    match = pattern.search(path)
    if match is None:
        return None
    return match["group"] if "group" in pattern.groupindex else match[1]
