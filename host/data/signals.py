"""Recordings of sensors with their classes, cut into windows; those of a recording stay together.

Recordings are not kept in memory: they are read once to be checked, and once more when their
windows are asked for.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from host.data.arrays import ArrayFiles, ArrayRow, in_order, stacked
from host.data.conflicts import without_conflicts
from host.data.dealing import deal
from host.data.listing import ExcludedFile, ListedFile, Listing, by_path, in_threads
from host.data.loading import file_content
from host.data.recordings import (
    INPUTS,
    Recording,
    UnreadableRecordingError,
    arrays_of,
    finite,
    read_recording,
)
from host.data.split import Subset
from host.data.trainable import missing_class
from host.errors import GenbaError, UsageError
from host.preprocessing import Floats


@dataclass(frozen=True)
class Windows:
    """How recordings are cut: windows of `length` samples, one every `step` samples.

    Raises UsageError below 1.
    """

    length: int
    step: int

    def __post_init__(self) -> None:
        if self.length < 1 or self.step < 1:
            raise UsageError(
                f"windows of {self.length} samples every {self.step} cannot be cut: both must be "
                "1 or more"
            )

    def count(self, samples: int) -> int:
        """How many of them a recording has."""
        return max(0, (samples - self.length) // self.step + 1)

    def cut(self, values: Floats) -> Floats:
        """The windows (N, C, L) of a recording (C, T), as a view of it."""
        views = np.lib.stride_tricks.sliding_window_view(values, self.length, axis=1)
        return views[:, :: self.step].swapaxes(0, 1)


@dataclass(frozen=True)
class SignalItem:
    """A usable recording: its path below the folder, class, hash, and how many windows it has.

    `flat` and `rising` name channels that never change, and that rise with every sample, as a
    clock does.
    """

    path: str
    label: int
    sha256: str
    samples: int
    weight: int
    group: str
    """Its path where nothing else is said: windows of one recording are never divided."""
    subset: Subset | None = None
    row: int | None = None
    """Which recording of an NPZ file with many it is; the path has it in brackets."""
    flat: tuple[str, ...] = ()
    rising: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignalFolder:
    """What a folder of recordings holds; items are in the order of their paths."""

    root: Path
    classes: tuple[str, ...]
    items: tuple[SignalItem, ...]
    channel_names: tuple[str, ...]
    windows: Windows
    excluded: tuple[ExcludedFile, ...] = ()
    table: Path | None = None
    wanted: tuple[str, ...] = ()
    """The channels that were asked for by name, if any."""
    kind: Literal["signals"] = "signals"

    @property
    def channels(self) -> int:
        return len(self.channel_names)

    @property
    def fingerprint(self) -> str:
        """A hash of classes, channels, windows, and each recording's content, class and group."""
        head = ["signals", self.classes, self.channel_names]
        lines = [json.dumps([*head, self.windows.length, self.windows.step])]
        lines += [
            json.dumps([item.sha256, item.path, item.label, item.subset, item.group])
            for item in self.items
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def class_counts(self) -> dict[str, int]:
        """Windows of each class."""
        counts = [0] * len(self.classes)
        for item in self.items:
            counts[item.label] += item.weight
        return dict(zip(self.classes, counts, strict=True))


def read_signals(listing: Listing, windows: Windows, wanted: Sequence[str] = ()) -> SignalFolder:
    """What a listing holds, whether or not a network can be trained on it.

    Recordings that cannot be read, have values that are not finite, are shorter than a window or
    have other channels than most, and copies in two classes or parts, are excluded and named.
    """
    labels = {name: label for label, name in enumerate(listing.classes)}
    read = in_threads(
        lambda file: _read_file(listing.root, file, labels[file.label], windows, wanted),
        listing.files,
    )
    return _settled(listing, list(read), windows, tuple(wanted))


def read_arrays(files: ArrayFiles, length: int | None, step: int | None) -> SignalFolder:
    """What NPZ files with many recordings hold, whether or not a network can be trained on it.

    Without a length a window is as long as the first recording, without a step windows follow each
    other. Raises UsageError for files that do not fit each other or themselves.
    """
    windows = None if length is None else Windows(length, length if step is None else step)
    names: dict[str, int] = {}  # numbered as they come
    read: list[_Read] = []
    for row in files.rows():
        if windows is None:
            samples = row.values.shape[1]
            windows = Windows(samples, samples if step is None else step)
        read.append(_read_row(row, names.setdefault(row.label, len(names)), windows))
    classes = in_order(set(names))
    labels = [classes.index(name) for name in names]
    return _settled(
        Listing(files.root, classes, ()),
        [_relabelled(one, labels) for one in read],
        windows or Windows(1, 1 if step is None else step),
        (),
    )


def split_signals(folder: SignalFolder, *, seed: int) -> dict[Subset, tuple[SignalItem, ...]]:
    """Divide whole groups of recordings so that every part has its share of each class's windows.

    Raises UsageError where a class would be missing in a part.
    """
    parts = deal(folder.items, len(folder.classes), seed=seed)
    complaint = missing_class(folder, parts)
    if complaint is not None:
        raise UsageError(complaint)
    return parts


def recordings_of(
    folder: SignalFolder, items: Sequence[SignalItem]
) -> Iterator[tuple[SignalItem, Floats]]:
    """The samples (C, T) of each item, as they were when the folder was scanned.

    Raises GenbaError for a file that has changed.
    """
    name = ""
    rows: npt.NDArray[Any] = np.empty((0, 0, 0))
    for item in items:
        path = folder.root / item.path
        if item.row is None:
            content = file_content(path, "recording")
            _require_unchanged(path, hashlib.sha256(content).hexdigest(), item)
            yield item, read_recording(content, path.suffix.lower(), folder.wanted).values
            continue
        file = item.path.rpartition("[")[0]
        if file != name:
            name, rows = file, _stored_rows(folder.root / file)
        if item.row >= len(rows):
            raise _changed(path)
        values = np.ascontiguousarray(rows[item.row], dtype=np.float32)
        _require_unchanged(path, hashlib.sha256(values.tobytes()).hexdigest(), item)
        yield item, values


_Read = tuple[SignalItem, tuple[str, ...]] | ExcludedFile
"""An item with the names of its channels."""


def _read_file(
    root: Path, file: ListedFile, label: int, windows: Windows, wanted: Sequence[str]
) -> _Read:
    path = root / file.path
    try:
        content = path.read_bytes()
        recording = read_recording(content, path.suffix.lower(), wanted)
    except OSError as error:
        return ExcludedFile(file.path, error.strerror or str(error))
    except UnreadableRecordingError as error:
        return ExcludedFile(file.path, str(error))
    item = SignalItem(
        path=file.path,
        label=label,
        sha256=hashlib.sha256(content).hexdigest(),
        samples=recording.values.shape[1],
        weight=windows.count(recording.values.shape[1]),
        group=file.path if file.group is None else file.group,
        subset=file.subset,
    )
    return _described(item, recording, windows)


def _read_row(row: ArrayRow, label: int, windows: Windows) -> _Read:
    names = tuple(str(number + 1) for number in range(len(row.values)))
    try:
        values = finite(row.values, names)
    except UnreadableRecordingError as error:
        return ExcludedFile(row.path, str(error))
    item = SignalItem(
        path=row.path,
        label=label,
        sha256=hashlib.sha256(values.tobytes()).hexdigest(),
        samples=values.shape[1],
        weight=windows.count(values.shape[1]),
        group=row.path if row.group is None else row.group,
        subset=row.subset,
        row=row.number,
    )
    return _described(item, Recording(names, values), windows)


def _relabelled(read: _Read, labels: Sequence[int]) -> _Read:
    if isinstance(read, ExcludedFile):
        return read
    item, channels = read
    return replace(item, label=labels[item.label]), channels


def _described(item: SignalItem, recording: Recording, windows: Windows) -> _Read:
    """The item with what is odd about its channels; too short a recording is left out."""
    if item.weight == 0:
        reason = f"it has {item.samples} samples, fewer than a window of {windows.length}"
        return ExcludedFile(item.path, reason)
    names, values = recording.channels, recording.values
    named = list(zip(names, values, strict=True))
    described = replace(
        item,
        flat=tuple(name for name, samples in named if bool((samples == samples[0]).all())),
        rising=tuple(
            name
            for name, samples in named
            if len(samples) > 2 and bool((samples[1:] > samples[:-1]).all())
        ),
    )
    return described, names


def _settled(
    listing: Listing, read: Sequence[_Read], windows: Windows, wanted: tuple[str, ...]
) -> SignalFolder:
    """What is left without recordings of other channels, copies and leaks."""
    excluded = [*listing.excluded, *(one for one in read if isinstance(one, ExcludedFile))]
    named = [one for one in read if not isinstance(one, ExcludedFile)]
    usual = Counter(names for _, names in named).most_common(1)
    channels = usual[0][0] if usual else ()
    items = []
    for item, names in named:
        if names == channels:
            items.append(item)
        else:
            reason = f"its channels are {', '.join(names)}, and mostly they are "
            excluded.append(ExcludedFile(item.path, reason + ", ".join(channels)))
    settled = without_conflicts(
        items, listing.classes, lambda item, part: replace(item, subset=part), "recording"
    )
    return SignalFolder(
        root=listing.root,
        classes=listing.classes,
        items=tuple(settled.kept),
        channel_names=channels,
        windows=windows,
        excluded=by_path([*excluded, *settled.excluded]),
        table=listing.table,
        wanted=wanted,
    )


def _stored_rows(path: Path) -> npt.NDArray[Any]:
    try:
        return stacked(arrays_of(file_content(path, "recording"))[INPUTS])
    except (UnreadableRecordingError, KeyError) as error:
        raise _changed(path) from error


def _require_unchanged(path: Path, sha256: str, item: SignalItem) -> None:
    if sha256 != item.sha256:
        raise _changed(path)


def _changed(path: Path) -> GenbaError:
    return GenbaError(f"the recording {path} has changed since the folder was read: start again")
