"""Landlock (landlock(7)): what this process and all that it starts may do to files, without any
privilege, on kernels since 5.13.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from device_agent.cage.kernel import Kernel

# linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_ASK_VERSION = 1
_RULE_PATH_BENEATH = 1
_ALL_TCP = 0b11
_ALL_SCOPES = 0b11  # abstract sockets and signals
# How many rights on files each version of the interface knows, the newest first.
_RIGHTS_SINCE = ((5, 16), (3, 15), (2, 14), (1, 13))
_TCP_SINCE, _SCOPES_SINCE = 4, 6


def restrict(kernel: Kernel, scratch: Path | None, hidden: Sequence[Path]) -> int:
    """Let this process read what is not `hidden`, write below `scratch` and to /dev/null, execute
    nothing, and, where the kernel can, signal nobody and use no TCP. Returns the version of the
    kernel's interface.

    Needs no_new_privs. Raises OSError where the kernel has no Landlock.
    """
    version = kernel.call("landlock_create_ruleset", None, 0, _ASK_VERSION)
    rights = (1 << next(count for since, count in _RIGHTS_SINCE if version >= since)) - 1
    attributes = struct.pack("<Q", rights)
    if version >= _TCP_SINCE:
        attributes += struct.pack("<Q", _ALL_TCP)
    if version >= _SCOPES_SINCE:
        attributes += struct.pack("<Q", _ALL_SCOPES)
    rules = kernel.call("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        _allow(kernel, rules, "/", _READ_DIR)
        for path in readable(hidden):
            _allow(kernel, rules, path, _READ_FILE | _READ_DIR)
        _allow(kernel, rules, os.devnull, rights & (_READ_FILE | _WRITE_FILE | _TRUNCATE))
        if scratch is not None:
            _allow(kernel, rules, str(scratch), rights & ~_EXECUTE)
        kernel.call("landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)
    return version


def readable(hidden: Sequence[Path], folder: str = "/") -> Iterator[str]:
    """The fewest paths that together hold everything below `folder` but what is hidden, which has
    no symbolic link in it.
    """
    inside = [path for path in hidden if Path(folder) in path.parents]
    if Path(folder) in hidden:
        return
    if not inside:
        yield folder
        return
    # Where the folder cannot be listed, what leads to the hidden is known all the same.
    names = {path.relative_to(folder).parts[0] for path in inside}
    with contextlib.suppress(PermissionError), os.scandir(folder) as entries:
        names.update(entry.name for entry in entries if not entry.is_symlink())
    for name in sorted(names):
        yield from readable(hidden, f"{folder.rstrip('/')}/{name}")


def _allow(kernel: Kernel, rules: int, path: str, rights: int) -> None:
    # What went away meanwhile, or is closed to us, needs no permission.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                rights &= ~_READ_DIR
            rule = struct.pack("<Qi", rights, place)
            kernel.call("landlock_add_rule", rules, _RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(place)
