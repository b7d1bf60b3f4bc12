"""What loaders share: files as they were scanned, memory, and splits that are kept."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

import psutil

from host.data.split import SUBSETS, Split
from host.errors import GenbaError

KEPT_BYTES = 1_000_000_000
"""Splits of several sizes are kept up to this sum; the one in use always is."""


class KeptSplits:
    """Splits by the shape that they were loaded at; the one not used for longest goes first."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._splits: OrderedDict[Hashable, Split] = OrderedDict()

    def get(self, shape: Hashable, load: Callable[[], Split]) -> Split:
        """The kept one, or what `load` gives."""
        if shape not in self._splits:
            self._splits[shape] = load()
        self._splits.move_to_end(shape)
        while len(self._splits) > 1 and self._bytes() > self._most_bytes:
            self._splits.popitem(last=False)
        return self._splits[shape]

    def _bytes(self) -> int:
        return sum(
            getattr(split, subset).inputs.nbytes
            for split in self._splits.values()
            for subset in SUBSETS
        )


def require_memory(count: int, shape: tuple[int, ...], value_bytes: int, noun: str) -> None:
    """See that so many samples of that shape fit into memory. Raises GenbaError."""
    needed = count * math.prod(shape) * value_bytes
    free = psutil.virtual_memory().available
    if needed > free:
        sides = "x".join(map(str, shape))
        raise GenbaError(
            f"{count} {noun} of {sides} need {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free: give fewer {noun}, or restrict the space to smaller "
            "inputs"
        )


def file_content(path: Path, noun: str) -> bytes:
    """The bytes of a file that was there when it was scanned. Raises GenbaError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise GenbaError(
            f"the {noun} {path} can no longer be read ({error.strerror}): put it back or start "
            "again"
        ) from error
