"""The folder in which workers write, and in which outputs wait for the host."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from device_agent.errors import DamagedStateError
from device_agent.files import remove_tree


def sweep(spool: Path, *, keep: Collection[Path]) -> None:
    """Make the folder if it is not there, and remove what workers of an earlier life left in it.

    Raises DamagedStateError where the folder cannot be made or read.
    """
    try:
        spool.mkdir(mode=0o700, exist_ok=True)
        left_over = [path for path in spool.iterdir() if path not in keep]
    except OSError as error:
        raise DamagedStateError(str(spool), error.strerror or str(error)) from error
    for path in left_over:
        # A name that no system call takes stays: it costs some room and nothing else.
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)
