"""The files of a bundle, in a zip or in the folder that it was unpacked into.

The zip has one form for the same files: entries sorted, uncompressed, without times. So a zip can
be compared whole with what its files make again, and no byte of it goes unlooked at.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

LARGEST_BUNDLE_BYTES = 1 << 29
_LARGEST_DIRECTORY_BYTES = 1 << 20
_READ_SIZE = 1 << 20
# The zip format knows no earlier time; a real one would make equal bundles differ.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)*[A-Za-z0-9_][A-Za-z0-9._-]*")
_LONGEST_NAME = 240
_END = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR_BYTES = 20
# Of the others, LZMA asks for as much memory as an entry says, before a byte of it is unpacked.
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
# An encrypted entry is a RuntimeError, one for a later version of zip a NotImplementedError.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


class ArchiveError(Exception):
    """A zip or a folder is in no form that a bundle has; the text says why, without its name."""


class Files(Protocol):
    """Files by name."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def size_bytes(self, name: str) -> int: ...

    def chunks(self, name: str) -> Iterator[bytes]: ...


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """The zip of these files; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def is_clean(name: str) -> bool:
    """Whether a name stays inside the folder into which it is unpacked, on every system."""
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        return False
    return not any(part.endswith(".") for part in name.split("/"))


def shown(name: str) -> str:
    """A name from an archive for people: nothing in it can steer a terminal."""
    return name if is_clean(name) else ascii(name)


class ZipFiles:
    """The files of a bundle's zip. Raises ArchiveError where it is not in the form of `zip_of`."""

    def __init__(self, content: bytes) -> None:
        _check_end(content)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = archive.infolist()
                _check_names(entry.filename for entry in entries)
                _check_compressions(entries)
                # Also keeps entries that overlap, or that unpack to more, from being read.
                if sum(entry.file_size for entry in entries) > len(content):
                    raise ArchiveError("its files are larger than itself")
                self._files = {entry.filename: archive.read(entry) for entry in entries}
        except ZIP_ERRORS as error:
            raise ArchiveError(f"it is no readable zip file: {error}") from error
        self.is_exact = zip_of(self._files) == content

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def size_bytes(self, name: str) -> int:
        return len(self._files[name])

    def chunks(self, name: str) -> Iterator[bytes]:
        yield self._files[name]


class FolderFiles:
    """The files below a folder. Raises ArchiveError for links and whatever is no plain file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        found = []
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ArchiveError(f"{shown(name)} is no plain file")
            if path.is_file():
                found.append(name)
        self.names: tuple[str, ...] = tuple(found)

    def size_bytes(self, name: str) -> int:
        return (self._root / name).stat().st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        with (self._root / name).open("rb") as file:
            while chunk := file.read(_READ_SIZE):
                yield chunk


def files_at(path: Path) -> ZipFiles | FolderFiles:
    """The files of the bundle at a path. Raises ArchiveError, and OSError."""
    if path.is_dir():
        return FolderFiles(path)
    if not path.is_file():
        raise ArchiveError("it is no plain file")
    if path.stat().st_size > LARGEST_BUNDLE_BYTES:
        raise ArchiveError("it is larger than any bundle")
    return ZipFiles(path.read_bytes())


def _check_end(content: bytes) -> None:
    """A zip is read from its end, which says how large its directory is: before it is believed."""
    if len(content) < _END.size:
        raise ArchiveError("it is no readable zip file: it is too short")
    magic, *_, directory_bytes, _, comment_bytes = _END.unpack(content[-_END.size :])
    if magic != b"PK\5\6" or comment_bytes:
        raise ArchiveError("it is no readable zip file: something follows its end")
    locator = content[-_END.size - _ZIP64_LOCATOR_BYTES : -_END.size]
    if locator.startswith(b"PK\6\7") or directory_bytes > _LARGEST_DIRECTORY_BYTES:
        raise ArchiveError("its directory is larger than any bundle's")


def _check_compressions(entries: Iterable[zipfile.ZipInfo]) -> None:
    for entry in entries:
        if entry.compress_type not in _COMPRESSIONS:
            raise ArchiveError(
                f"{entry.filename} is compressed by method {entry.compress_type}, which no bundle"
                " uses: get the bundle as its maker wrote it"
            )


def _check_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not is_clean(name):
            raise ArchiveError(f"{shown(name)} is no name for a file of a bundle")
        # Names that differ in case only are one file on some systems.
        if name.lower() in seen:
            raise ArchiveError(f"two files have the name {name}")
        seen.add(name.lower())
    for name in seen:
        parents = {name[:i] for i, letter in enumerate(name) if letter == "/"}
        if parents & seen:
            raise ArchiveError(f"{name} lies below a file")
