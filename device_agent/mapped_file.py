"""A model file as bytes that the kernel reads when they are looked at, so that none is held."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.errors import ModelRejectedError


@contextmanager
def mapped(path: Path, mend: str = "convert it again") -> Iterator[mmap.mmap]:
    """The content of the file, to be read for as long as the block lasts.

    Raises ModelRejectedError for an empty file, with `mend` as what else may be done.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ModelRejectedError(f"the model file is empty: send it again, or {mend}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
