"""Files kept under the SHA-256 of their content."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from host.store.database import Database, StoreError, insert_absent
from host.store.tables import BlobRow


class UnknownBlobError(StoreError):
    """There is no file of that hash."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the workspace keeps no file with the SHA-256 {sha256}")
        self.sha256 = sha256


@dataclass(frozen=True)
class Blob:
    """A kept file, by the SHA-256 of its content in hexadecimal."""

    sha256: str
    size_bytes: int


class Blobs:
    """The files of a workspace, in `folder/<first two digits>/<sha256>`."""

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
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", dir=final.parent)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o440)
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)
        folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the new name itself
        finally:
            os.close(folder)

    def _note(self, blob: Blob) -> Blob:
        row = {"sha256": blob.sha256, "size_bytes": blob.size_bytes, "created_at": self._now()}
        with self._database.write() as session:
            insert_absent(session, BlobRow, [row])
        return blob
