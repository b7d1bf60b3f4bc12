"""Arrays that a device sends back: read as what they are, a stranger's file."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host.errors import GenbaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class BadOutputsError(GenbaError):
    """A device sent outputs that no agent writes."""


def read_outputs(path: Path, max_bytes: int) -> "dict[str, Array]":
    """The arrays of an .npz without compression, as agents write it, by name.

    Raises BadOutputsError for anything else, and where the arrays are larger than `max_bytes`.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        plain = all(
            entry.compress_type == zipfile.ZIP_STORED and entry.filename.isprintable()
            for entry in entries
        )
        if not plain or sum(entry.file_size for entry in entries) > max_bytes:
            raise BadOutputsError("the device sent outputs that no agent writes: update its agent")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise BadOutputsError(f"the device sent outputs that cannot be read ({error})") from error
