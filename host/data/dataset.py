"""Data that a study learns from, whatever they are: pictures or windows of signals."""

from pathlib import Path
from typing import Literal, Protocol

from host.data.arrays import array_files
from host.data.images import ImageFolder, ImageLoader, read_images
from host.data.listing import (
    IMAGE_SUFFIXES,
    RECORDING_SUFFIXES,
    ExcludedFile,
    Kind,
    Listing,
    files_below,
    list_folder,
    require_possible,
    with_groups,
)
from host.data.signal_loader import SignalLoader
from host.data.signals import SignalFolder, Windows, read_arrays, read_signals
from host.data.split import Labels, Split
from host.data.table import ALL_COLUMNS, Columns, list_table
from host.data.trainable import first_complaint
from host.errors import UsageError
from host.preprocessing import Floats


class Dataset(Protocol):
    """Samples in three parts, to be had at the shape that a network reads."""

    @property
    def kind(self) -> Kind: ...

    @property
    def folder(self) -> ImageFolder | SignalFolder:
        """What was read, with every file."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def channels(self) -> int:
        """Of an image (grey if every image is), or the sensors of a recording."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of contents, classes, groups and given parts."""
        ...

    @property
    def seed(self) -> int: ...

    @property
    def excluded(self) -> tuple[ExcludedFile, ...]: ...

    def class_counts(self) -> dict[str, int]:
        """Samples of each class: images, or windows."""
        ...

    def split_at(self, shape: tuple[int, ...]) -> Split:
        """All samples for a network whose input is (C, H, W), (C, L) or (C, 1, L).

        Raises UsageError for a shape that the data cannot have.
        """
        ...

    def batch_at(self, count: int, shape: tuple[int, ...]) -> tuple[Floats, Labels]:
        """Up to `count` samples of the training part, normalised, and their classes (N,)."""
        ...


def open_data(
    folder: Path,
    *,
    kind: Kind | Literal["auto"] = "auto",
    table: Path | None = None,
    columns: Columns = ALL_COLUMNS,
    group: str | None = None,
    length: int | None = None,
    step: int | None = None,
    seed: int,
) -> Dataset:
    """Read data and divide them; see `read_data` for where they are.

    Raises UsageError where no network can be trained on them.
    """
    read = read_data(
        folder, kind=kind, table=table, columns=columns, group=group, length=length, step=step
    )
    complaint = first_complaint(read)
    if complaint is not None:
        raise UsageError(complaint)
    if isinstance(read, ImageFolder):
        return ImageLoader(read, seed=seed)
    return SignalLoader(read, seed=seed)


def read_data(
    folder: Path,
    *,
    kind: Kind | Literal["auto"] = "auto",
    table: Path | None = None,
    columns: Columns = ALL_COLUMNS,
    group: str | None = None,
    length: int | None = None,
    step: int | None = None,
) -> ImageFolder | SignalFolder:
    """What is there, whether or not a network can be trained on it.

    Classes are sub-folders, or rows of a table whose paths are relative to it; signals may also be
    NPZ files with many recordings in the folder itself. "auto" takes images where there are any.
    `group` is a regular expression on the path. `length` and `step` (default: the length) cut
    recordings into windows.

    Raises UsageError where there is nothing to read.
    """
    require_possible(folder)
    found = _kind(folder, table, columns) if kind == "auto" else kind
    if found == "images":
        if length is not None or step is not None:
            raise UsageError("a length and a step cut signals: images have neither")
        return read_images(_listing(folder, found, table, columns, group))
    files = array_files(folder) if table is None else None
    if files is not None:
        if group is not None or columns.channels:
            raise UsageError(
                "NPZ files with many recordings name groups in an array `groups` and number their "
                "channels: give no group pattern and no channels"
            )
        return read_arrays(files, length, step)
    if length is None:
        raise UsageError("recordings are cut into windows: say how many samples a window has")
    windows = Windows(length, length if step is None else step)
    return read_signals(_listing(folder, found, table, columns, group), windows, columns.channels)


def _listing(
    folder: Path, kind: Kind, table: Path | None, columns: Columns, group: str | None
) -> Listing:
    if table is not None:
        listing = list_table(table, columns)
    elif kind == "images":
        listing = list_folder(folder, IMAGE_SUFFIXES)
    else:
        listing = list_folder(folder, RECORDING_SUFFIXES, "recording")
    return listing if group is None else with_groups(listing, group)


def _kind(folder: Path, table: Path | None, columns: Columns) -> Kind:
    if table is not None:
        suffixes = {Path(file.path).suffix.lower() for file in list_table(table, columns).files}
        return "images" if suffixes & IMAGE_SUFFIXES else "signals"
    if folder.is_dir() and not any(files_below(folder, IMAGE_SUFFIXES)):
        return "signals" if any(files_below(folder, RECORDING_SUFFIXES)) else "images"
    return "signals" if folder.suffix.lower() == ".npz" else "images"
