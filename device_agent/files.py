"""Files that are whole or absent, also after the power went; folders that go away."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` at `path`, on the disk before the name points to it."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    # Its owner's alone until it is whole; never a file or link that somebody else put there.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, however deep and whatever its permissions; links are removed
    and never followed. What somebody else removes meanwhile is no error.
    """
    with contextlib.suppress(FileNotFoundError):
        while inner := _emptied_of_files(folder):
            for path in inner:
                # Its folders come up to this one, so that no path ever gets too long.
                for deeper in _emptied_of_files(path):
                    deeper.rename(folder / os.urandom(16).hex())
                path.rmdir()
        folder.rmdir()


def _emptied_of_files(folder: Path) -> list[Path]:
    """The folders in it; everything else in it is removed."""
    folder.chmod(0o700)
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(Path(entry.path))
            else:
                Path(entry.path).unlink(missing_ok=True)
    return inner
