"""A view of the files that cannot be written, in a mount namespace of the worker's own."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

from device_agent.cage.kernel import Kernel

# linux/mount.h
_MS_RDONLY = 0x1
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_NOEXEC = 0x8
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_FLAGS = {
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": _MS_NOEXEC,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "relatime": 0x200000,
}
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

# What a library may open; every other device is closed, disks among them.
_HARMLESS_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_MOUNTINFO = Path("/proc/self/mountinfo")


def make_read_only(kernel: Kernel, scratch: Path | None, hidden: Sequence[Path]) -> None:
    """Make every mount of this namespace read-only and without devices, but for `scratch`, and
    cover `hidden`.

    Raises OSError where the kernel refuses that; then some of it may be done.
    """
    kernel.mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    for path in hidden:
        _cover(kernel, path)
    devices = [device for device in _HARMLESS_DEVICES if Path(device).exists()]
    for place in [*devices, *([] if scratch is None else [str(scratch)])]:
        kernel.mount(os.fsencode(place), place, None, _MS_BIND)
    if not _change(kernel, "/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, _AT_RECURSIVE):
        _make_each_read_only(kernel)
    for device in devices:
        if not _change(kernel, device, 0, _ATTR_NODEV):
            _remount(kernel, device, _MS_RDONLY | _MS_NOSUID)
    if scratch is not None and not _change(kernel, str(scratch), 0, _ATTR_RDONLY):
        _remount(kernel, str(scratch), _MS_NOSUID | _MS_NODEV)


def _cover(kernel: Kernel, path: Path) -> None:
    if path.is_dir():
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        kernel.mount(b"tmpfs", str(path), b"tmpfs", flags, b"size=4k,mode=000")
    else:
        kernel.mount(b"/dev/null", str(path), None, _MS_BIND)


def _change(kernel: Kernel, path: str, put: int, clear: int, at_flags: int = 0) -> bool:
    """mount_setattr(2); False where there is none (Linux 5.12)."""
    attributes = struct.pack("<QQQQ", put, clear, 0, 0)
    where = os.fsencode(path)
    try:
        kernel.call("mount_setattr", _AT_FDCWD, where, at_flags, attributes, len(attributes))
    except OSError as error:
        # Sandboxes of its time do not know the call, and say that it is not permitted.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return False
    return True


def _make_each_read_only(kernel: Kernel) -> None:
    for line in _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        kept = sum(_FLAGS.get(option, 0) for option in fields[5].split(","))
        try:
            _remount(kernel, path, kept | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
        except OSError as error:
            # Under another mount, or below a folder that is closed to us: out of reach as well.
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                raise


def _remount(kernel: Kernel, path: str, flags: int) -> None:
    kernel.mount(None, path, None, _MS_REMOUNT | _MS_BIND | flags)
