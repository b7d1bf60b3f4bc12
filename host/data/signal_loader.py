"""The windows of recordings as networks read them."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from host.data.dealing import draw
from host.data.listing import ExcludedFile
from host.data.loading import require_memory
from host.data.signals import SignalFolder, SignalItem, recordings_of, split_signals
from host.data.split import SUBSETS, Labels, Samples, Split, Subset
from host.errors import UsageError
from host.preprocessing import Floats, SignalPreprocessing

_WINDOWS_AT_A_TIME = 256  # whose squares stand in memory at once


class SignalLoader:
    """Cuts the windows of recordings; they are read once and kept as float32.

    A network that reads fewer samples than a window has gets the middle of each window: whatever
    the length, a network is judged on the same windows.
    """

    kind: Literal["signals"] = "signals"

    def __init__(self, folder: SignalFolder, *, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.parts = split_signals(folder, seed=seed)
        self._whole: dict[Subset, tuple[Floats, Labels]] = {}
        self._splits: dict[tuple[int, ...], Split] = {}  # views of the whole windows

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    @property
    def channels(self) -> int:
        return self.folder.channels

    @property
    def fingerprint(self) -> str:
        return self.folder.fingerprint

    @property
    def excluded(self) -> tuple[ExcludedFile, ...]:
        return self.folder.excluded

    def class_counts(self) -> dict[str, int]:
        """Windows of each class."""
        return self.folder.class_counts()

    def split_at(self, shape: tuple[int, ...]) -> Split:
        """All windows as a network reads them whose input is (C, L), or (C, 1, L).

        Raises UsageError for a shape that does not fit the recordings, and GenbaError for a file
        that has changed and where memory does not suffice.
        """
        length = self._length_in(shape)
        if shape not in self._splits:
            parts = {subset: self._windows(subset) for subset in SUBSETS}
            inputs = {s: _as_read(windows, length) for s, (windows, _) in parts.items()}
            self._splits[shape] = Split(
                classes=self.folder.classes,
                **{s: Samples(_shaped(inputs[s], shape), parts[s][1]) for s in SUBSETS},
                preprocessing=preprocessing_of_windows(inputs["train"]),
                fingerprint=self.folder.fingerprint,
                seed=self.seed,
            )
        return self._splits[shape]

    def batch_at(self, count: int, shape: tuple[int, ...]) -> tuple[Floats, Labels]:
        """Up to `count` windows of the training part, drawn by the seed, and their classes.

        Normalised by their own mean and deviation. This is what proxies look at. Only the
        recordings that they are of are read.
        """
        length = self._length_in(shape)
        train = self.parts["train"]
        drawn = heapq.nsmallest(count, self._tickets(train))
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for place, (_, number, window) in enumerate(drawn):
            places[number].append((place, window))
        whole = np.empty((len(drawn), self.channels, self.folder.windows.length), np.float32)
        numbers = sorted(places)
        read = recordings_of(self.folder, [train[number] for number in numbers])
        for number, (_, values) in zip(numbers, read, strict=True):
            cut = self.folder.windows.cut(values)
            for place, window in places[number]:
                whole[place] = cut[window]
        inputs = _as_read(whole, length)
        labels = np.array([train[number].label for _, number, _ in drawn], np.int64)
        normalised = preprocessing_of_windows(inputs).normalise(inputs)
        return _shaped(normalised, shape), labels

    def _tickets(self, items: Sequence[SignalItem]) -> Iterable[tuple[str, int, int]]:
        """A number from the draw, the item and the window, for every window."""
        return (
            (draw(f"{item.sha256}:{window}", self.seed + 1), number, window)
            for number, item in enumerate(items)
            for window in range(item.weight)
        )

    def _length_in(self, shape: tuple[int, ...]) -> int:
        """How many samples a network with that input reads. Raises UsageError."""
        sides = "x".join(map(str, shape))
        if len(shape) not in {2, 3} or (len(shape) == 3 and shape[1] != 1):
            raise UsageError(
                f"a network here reads {sides}, which is no signal: choose the space conv1d"
            )
        if shape[0] != self.channels:
            raise UsageError(
                f"a network here reads {shape[0]} channels, and the recordings in "
                f"{self.folder.root} have {self.channels}"
            )
        longest = self.folder.windows.length
        if shape[-1] > longest:
            raise UsageError(
                f"a network here reads {shape[-1]} samples, and windows have {longest}: cut longer "
                "windows, or restrict the length in the space"
            )
        return shape[-1]

    def _windows(self, subset: Subset) -> tuple[Floats, Labels]:
        """The windows (N, C, L) of a part at their full length."""
        if not self._whole:
            shape = (self.channels, self.folder.windows.length)
            total = sum(item.weight for item in self.folder.items)
            require_memory(total, shape, np.dtype(np.float32).itemsize, "windows")
        if subset not in self._whole:
            self._whole[subset] = self._cut(self.parts[subset])
        return self._whole[subset]

    def _cut(self, items: Sequence[SignalItem]) -> tuple[Floats, Labels]:
        windows, weights = self.folder.windows, [item.weight for item in items]
        cut = np.empty((sum(weights), self.channels, windows.length), np.float32)
        start = 0
        for item, values in recordings_of(self.folder, items):
            cut[start : start + item.weight] = windows.cut(values)
            start += item.weight
        labels = np.repeat(np.array([item.label for item in items], np.int64), weights)
        return cut, labels


def preprocessing_of_windows(windows: Floats) -> SignalPreprocessing:
    """The mean and deviation of each channel over windows (N, C, L)."""
    _, channels, length = windows.shape
    mean = windows.mean(axis=(0, 2), dtype=np.float64)
    squares = np.zeros(channels)
    for start in range(0, len(windows), _WINDOWS_AT_A_TIME):
        away = windows[start : start + _WINDOWS_AT_A_TIME] - mean[:, np.newaxis]
        squares += np.square(away).sum(axis=(0, 2))
    std = np.sqrt(squares / max(1, len(windows) * length))
    # A channel that never changes has no deviation: dividing by one leaves it at zero.
    flat = std <= 1e-6 * np.abs(mean)
    std[flat | (std == 0)] = 1.0
    return SignalPreprocessing(channels, length, tuple(mean.tolist()), tuple(std.tolist()))


def _as_read(windows: Floats, length: int) -> Floats:
    """The middle of each window, as a view."""
    start = (windows.shape[-1] - length) // 2
    return windows[..., start : start + length]


def _shaped(windows: Floats, shape: tuple[int, ...]) -> Floats:
    """(N, C, L) as the network reads it: (N, C, L) or (N, C, 1, L), as a view."""
    return windows if len(shape) == 2 else windows[:, :, np.newaxis]
