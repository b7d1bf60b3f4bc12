"""Files kept under the SHA-256 of their content."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from host.store.database import Database, StoreError, insert_absent, retried
from host.store.tables import BlobRow


class UnknownBlobError(StoreError):
    """There is no file of that hash."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the workspace keeps no file with the SHA-256 {sha256}")
        self.sha256 = sha256


class BlobMismatchError(StoreError):
    """The content is not what was announced."""


@dataclass(frozen=True)
class Blob:
    """A kept file, by the SHA-256 of its content in hexadecimal."""

    sha256: str
    size_bytes: int


class IncomingBlob:
    """A file that comes piece by piece; it is kept by `keep` and otherwise forgotten."""

    def __init__(self, file: BinaryIO, folder: Path, keep: Callable[[Blob], Blob]) -> None:
        self._file = file
        self._folder = folder
        self._keep = keep
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Add the next piece. Raises StoreError where the disk does not take it."""
        with _taken(self._folder):
            self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def keep(self, sha256: str) -> Blob:
        """Keep the file. Raises BlobMismatchError where its content has another hash."""
        if self._digest.hexdigest() != sha256:
            raise BlobMismatchError(
                f"the {self.size_bytes} bytes that came do not have the SHA-256 {sha256}: they were"
                " cut or changed on the way"
            )
        return self._keep(Blob(sha256, self.size_bytes))


class Blobs:
    """The files of a workspace, in `folder/<first two digits>/<sha256>`.

    Whatever keeps a file raises StoreError where the disk does not take it.
    """

    def __init__(self, database: Database, folder: Path, now: Callable[[], datetime]) -> None:
        self._database = database
        self._folder = folder
        self._now = now

    def put(self, data: bytes) -> Blob:
        """Keep `data`; a power cut leaves it whole or absent."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        if not self._has(blob):
            self._write(blob, lambda file: file.write(data))
        return self._note(blob)

    def put_file(self, path: Path) -> Blob:
        """Keep a copy of the file at `path`. Raises OSError where it cannot be read."""
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            blob = Blob(digest, source.tell())
            if not self._has(blob):
                source.seek(0)
                self._write(blob, lambda file: shutil.copyfileobj(source, file))
        return self._note(blob)

    @contextmanager
    def incoming(self) -> Iterator[IncomingBlob]:
        """A file to be filled; nothing of it stays behind unless it is kept."""
        with ExitStack() as stack:
            with _taken(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                part, file = stack.enter_context(_part(self._folder))

            def keep(blob: Blob) -> Blob:
                final = self._place(blob.sha256)
                with _taken(self._folder):
                    final.parent.mkdir(parents=True, exist_ok=True)
                    _finish(file, part, final)
                return self._note(blob)

            yield IncomingBlob(file, self._folder, keep)

    def path(self, sha256: str) -> Path:
        """Where the file lies, for reading only. Raises UnknownBlobError."""
        path = self._place(sha256)
        if not path.is_file():
            raise UnknownBlobError(sha256)
        return path

    def get(self, sha256: str) -> bytes:
        """The content. Raises UnknownBlobError."""
        return self.path(sha256).read_bytes()

    def _place(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _has(self, blob: Blob) -> bool:
        path = self._place(blob.sha256)
        return path.is_file() and path.stat().st_size == blob.size_bytes

    def _write(self, blob: Blob, fill: Callable[[BinaryIO], object]) -> None:
        final = self._place(blob.sha256)
        with _taken(self._folder):
            final.parent.mkdir(parents=True, exist_ok=True)
            with _part(final.parent) as (part, file):
                fill(file)
                _finish(file, part, final)

    @retried
    def _note(self, blob: Blob) -> Blob:
        row = {"sha256": blob.sha256, "size_bytes": blob.size_bytes, "created_at": self._now()}
        with self._database.write() as session:
            insert_absent(session, BlobRow, [row])
        return blob


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"a file cannot be kept in {folder}: {error.strerror}; see that its disk has space and"
            " can be written, then run this again"
        ) from error


@contextmanager
def _part(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    handle, name = tempfile.mkstemp(prefix=".part-", dir=folder)
    part, file = Path(name), os.fdopen(handle, "wb")
    try:
        yield part, file
    finally:
        with suppress(OSError):  # of a full disk, told already; a file that is kept was flushed
            file.close()
        part.unlink(missing_ok=True)


def _finish(file: BinaryIO, part: Path, final: Path) -> None:
    """Give the file its name once all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    part.chmod(0o440)
    part.replace(final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)
