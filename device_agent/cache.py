"""Files of jobs by their sha256, as pulled from the host: verified, resumable, within a quota."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Callable

from device_agent.errors import CacheError, CorruptBlobError
from device_agent.files import remove_tree, sync_folder

if TYPE_CHECKING:
    from hashlib import _Hash

Pull = Callable[[str, int], Iterable[tuple[int, bytes]]]
"""Given a sha256 and an offset, the rest of that blob as (offset, bytes) in order."""

DEFAULT_QUOTA_BYTES = 1 << 30
_READ_BYTES = 1 << 18
# Left to the outbox: an outcome and the journal of writing it.
_RESERVE_BYTES = 4 << 20


# A link is never followed, and nothing that is no file, a pipe for example, makes an open wait.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class _Kept:
    """What lies in the cache under a name; a link is as long as its text."""

    path: Path
    size_bytes: int
    used_ns: int


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


class Cache:
    """A folder of files named by their sha256. One process at a time uses it.

    Workers run hostile models under the same user, so whatever else than a file lies where a file
    should is removed and never followed.
    """

    def __init__(
        self,
        folder: Path,
        quota_bytes: int = DEFAULT_QUOTA_BYTES,
        free_bytes: Callable[[Path], int] = _free_bytes,
    ) -> None:
        """`free_bytes` says how much the disk of a folder still takes."""
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._free_bytes = free_bytes

    def fetch(
        self, sha256: str, size_bytes: int, pull: Pull, *, spare: Collection[str] = ()
    ) -> Path:
        """The path of the blob, pulled first where it is not there yet; blobs in `spare` do not
        have to make room for it.

        What an interrupted pull left is kept and continued at its end. Errors of `pull` pass
        through. Raises CorruptBlobError where the bytes have another length or digest, and
        CacheError where quota or disk do not take the blob.
        """
        if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
            raise CorruptBlobError(sha256, "its name is no sha256")
        path = self._folder / sha256[:2] / sha256
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _holds(path, sha256, size_bytes):
                self._pull_to(path, sha256, size_bytes, pull, spare)
        except OSError as error:
            raise CacheError(sha256, error.strerror or str(error)) from error
        self._mark_used(path)
        return path

    def _pull_to(
        self, path: Path, sha256: str, size_bytes: int, pull: Pull, spare: Collection[str]
    ) -> None:
        _remove(path)
        if path.parent.is_symlink():
            path.parent.unlink()
            path.parent.mkdir(mode=0o700)
        part = self._folder / f"{sha256}.part"
        self._make_room(size_bytes, part, spare)
        _complete(part, sha256, size_bytes, pull)
        part.replace(path)
        path.chmod(0o440)
        sync_folder(path.parent)

    def _make_room(self, size_bytes: int, part: Path, spare: Collection[str]) -> None:
        """Remove what was used longest ago until the new blob fits into quota and disk.

        Raises CacheError where it never will.
        """
        sha256 = part.stem
        others = [kept for kept in self._kept() if kept.path != part]
        spared = sum(kept.size_bytes for kept in others if kept.path.name in spare)
        beside = f" beside {spared} bytes of the same job" if spared else ""
        if spared + size_bytes > self._quota_bytes:
            problem = f"{size_bytes} bytes{beside}, and the cache may hold {self._quota_bytes}"
            raise CacheError(sha256, problem)
        there = sum(kept.size_bytes for kept in self._kept() if kept.path == part)
        free = self._free_bytes(self._folder) + there - _RESERVE_BYTES
        held = sum(kept.size_bytes for kept in others)
        for kept in sorted(others, key=lambda kept: kept.used_ns):
            if held + size_bytes <= self._quota_bytes and size_bytes <= free:
                return
            if kept.path.name not in spare:
                kept.path.unlink()
                held -= kept.size_bytes
                free += kept.size_bytes
        if size_bytes > free:
            problem = f"{size_bytes} bytes{beside}, and the disk has {max(0, free)} to spare"
            raise CacheError(sha256, problem)

    def _mark_used(self, path: Path) -> None:
        """Make it the one used last, on no clock: that of a board without battery jumps."""
        newest = max((kept.used_ns for kept in self._kept()), default=0)
        # A disk that takes no mark has the blob all the same.
        with contextlib.suppress(OSError):
            os.utime(path, ns=(newest + 1, newest + 1), follow_symlinks=False)

    def _kept(self) -> Iterator[_Kept]:
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder, name)
                found = path.lstat()
                yield _Kept(path, found.st_size, found.st_mtime_ns)


class _OtherBytesError(Exception):
    """The file does not hold, or begin with, the blob that it should."""


def _holds(path: Path, sha256: str, size_bytes: int) -> bool:
    """Whether the blob is there and whole: cards of old boards forget bits."""
    if path.parent.is_symlink():
        return False
    try:
        with _opened(path, os.O_RDONLY) as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                return False
            return _digest(file).hexdigest() == sha256
    except OSError:
        # Also what the card cannot read back any more.
        return False


def _complete(part: Path, sha256: str, size_bytes: int, pull: Pull) -> None:
    """Pull what is missing of the part; and all of it, where what is there then is not the blob:
    an earlier pull may have left other bytes, and a card may spoil those of this one.
    """
    with _part_file(part) as file:
        if os.fstat(file.fileno()).st_size > size_bytes:
            file.truncate(0)
        try:
            with contextlib.suppress(_OtherBytesError):
                _pull(file, sha256, size_bytes, pull)
                return
            file.truncate(0)
            _pull(file, sha256, size_bytes, pull)
        except _OtherBytesError as error:
            part.unlink()
            raise CorruptBlobError(sha256, str(error)) from error


def _pull(file: BinaryIO, sha256: str, size_bytes: int, pull: Pull) -> None:
    offset = os.fstat(file.fileno()).st_size
    if offset < size_bytes:
        for at, data in pull(sha256, offset):
            if at != offset or offset + len(data) > size_bytes:
                raise _OtherBytesError("the host sent more or other parts of it")
            _write_all(file, data)
            offset += len(data)
    if offset < size_bytes:
        raise CorruptBlobError(sha256, f"{offset} of {size_bytes} bytes came")
    os.fsync(file.fileno())
    # What the file holds counts, and not what was written into it.
    file.seek(0)
    if _digest(file).hexdigest() != sha256:
        raise _OtherBytesError("its digest differs")


def _part_file(part: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    try:
        return _opened(part, flags)
    except OSError:
        # Something that is no file of ours lies there; or the disk takes none, and says so again.
        _remove(part)
        return _opened(part, flags)


def _opened(path: Path, flags: int) -> BinaryIO:
    """Unbuffered, so that a full disk shows at the write. Raises OSError for what is no file."""
    descriptor = os.open(path, flags | _SAFELY, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file")
    return os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "rb", buffering=0)


def _write_all(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _remove(path: Path) -> None:
    """Whatever lies there, if anything; a link and not what it points to."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _digest(file: BinaryIO) -> _Hash:
    """The digest of everything from the file's position to its end."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(_READ_BYTES), b""):
        digest.update(block)
    return digest
