"""Files of jobs by their sha256, as pulled from the host: verified, resumable, within a quota."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Callable

from device_agent.errors import CacheError, CorruptBlobError
from device_agent.files import sync_folder

if TYPE_CHECKING:
    from hashlib import _Hash

Pull = Callable[[str, int], Iterable[tuple[int, bytes]]]
"""Given a sha256 and an offset, the rest of that blob as (offset, bytes) in order."""

DEFAULT_QUOTA_BYTES = 1 << 30
_READ_BYTES = 1 << 18


class Cache:
    """A folder of files named by their sha256. One process at a time uses it."""

    def __init__(self, folder: Path, quota_bytes: int = DEFAULT_QUOTA_BYTES) -> None:
        self._folder = folder
        self._quota_bytes = quota_bytes

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
            if self._holds(path, sha256, size_bytes):
                os.utime(path)
                return path
            self._make_room(size_bytes, sha256, spare)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = self._folder / f"{sha256}.part"
            self._pull(part, sha256, size_bytes, pull)
            part.chmod(0o440)
            part.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise CacheError(sha256, error.strerror or str(error)) from error
        return path

    def _holds(self, path: Path, sha256: str, size_bytes: int) -> bool:
        """Whether the blob is there and whole: cards of old boards forget bits."""
        if not path.exists():
            return False
        with path.open("rb") as file:
            whole = path.stat().st_size == size_bytes and _digest(file).hexdigest() == sha256
        if not whole:
            path.unlink()
        return whole

    def _pull(self, part: Path, sha256: str, size_bytes: int, pull: Pull) -> None:
        with part.open("a+b") as file:
            file.seek(0)
            digest = _digest(file)
            offset = file.tell()
            if offset < size_bytes:
                for at, data in pull(sha256, offset):
                    if at != offset or offset + len(data) > size_bytes:
                        self._discard(part, sha256, "the host sent more or other parts of it")
                    file.write(data)
                    digest.update(data)
                    offset += len(data)
            file.flush()
            os.fsync(file.fileno())
        if offset < size_bytes:
            raise CorruptBlobError(sha256, f"{offset} of {size_bytes} bytes came")
        if offset != size_bytes or digest.hexdigest() != sha256:
            self._discard(part, sha256, "its digest or length differs")

    def _discard(self, part: Path, sha256: str, problem: str) -> None:
        part.unlink()
        raise CorruptBlobError(sha256, problem)

    def _make_room(self, size_bytes: int, sha256: str, spare: Collection[str]) -> None:
        """Remove what was used longest ago until the new blob fits."""
        wanted = f"{sha256}.part"
        files = [path for path in self._folder.rglob("*") if path.is_file() and path.name != wanted]
        spared = sum(path.stat().st_size for path in files if path.name in spare)
        if spared + size_bytes > self._quota_bytes:
            beside = f" beside {spared} bytes of the same job" if spared else ""
            problem = f"{size_bytes} bytes{beside}, and the cache may hold {self._quota_bytes}"
            raise CacheError(sha256, problem)
        held = sum(path.stat().st_size for path in files)
        for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
            if held + size_bytes <= self._quota_bytes:
                break
            if path.name not in spare:
                held -= path.stat().st_size
                path.unlink()


def _digest(file: BinaryIO) -> _Hash:
    """The digest of everything from the file's position to its end."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(_READ_BYTES), b""):
        digest.update(block)
    return digest
