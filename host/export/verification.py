"""Whether a bundle is what its manifest says, and who says so."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from host.errors import UsageError
from host.export.archive import ArchiveError, Files, ZipFiles, files_at, shown
from host.export.manifest import (
    LARGEST_MANIFEST_BYTES,
    MANIFEST,
    SIGNATURE,
    SIGNER,
    UNSIGNED_SCHEMA,
    Expected,
    expected_files,
    parse_manifest,
)
from host.export.signing import SIGNATURE_BYTES, PublicKey, PublicKeyError

Voucher = Literal["workspace", "key"]


@dataclass(frozen=True)
class Verification:
    """What was found in a bundle: `problems` are () where it is intact and rightly signed.

    `signer` is whose signature it carries, valid for the manifest; None where there is none.
    `schema` and `files`, the count of what the manifest covers, are None where it has no manifest
    that can be read.
    """

    problems: tuple[str, ...]
    schema: str | None = None
    files: int | None = None
    signer: PublicKey | None = None

    @property
    def intact(self) -> bool:
        """Whether every file is as whoever wrote the manifest left it."""
        return not self.problems

    @property
    def unsigned(self) -> bool:
        """Whether the bundle is of a form that has no signature."""
        return self.schema == UNSIGNED_SCHEMA

    def vouched_by(self, trusted: Mapping[Voucher, PublicKey]) -> Voucher | None:
        """Which of the trusted keys signed it."""
        if self.signer is None or self.problems:
            return None
        wanted = self.signer.fingerprint
        return next((name for name, key in trusted.items() if key.fingerprint == wanted), None)


def verify_bundle(path: Path) -> Verification:
    """Look at a bundle: a zip, or the folder that it was unpacked into.

    Compares every file's size and hash with the manifest, names files that are missing and files
    that the manifest does not know, and checks the signature with the key that the bundle names;
    whether that key is to be trusted is for the caller. Of a zip every byte counts. Nothing is
    unpacked.

    Raises UsageError where there is nothing at the path or it cannot be read.
    """
    if not path.exists():
        raise UsageError(f"there is no bundle {path}: check the path")
    try:
        return _verified(files_at(path))
    except ArchiveError as error:
        return Verification((str(error),))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def _verified(found: Files) -> Verification:
    if MANIFEST not in found.names:
        return Verification((f"{MANIFEST} is missing",))
    if found.size_bytes(MANIFEST) > LARGEST_MANIFEST_BYTES:
        return Verification((f"{MANIFEST} is larger than any bundle needs",))
    content = b"".join(found.chunks(MANIFEST))
    try:
        manifest = parse_manifest(content)
        expected = expected_files(manifest)
    except ValueError as error:
        return Verification((f"{MANIFEST} is not in the form of a bundle's: {error}",))
    schema = str(manifest["schema"])
    problems = list(_file_problems(found, expected, schema))
    signer: PublicKey | None = None
    if schema != UNSIGNED_SCHEMA:
        try:
            signer = _signer(found, manifest, content)
        except (ValueError, PublicKeyError) as error:
            problems.append(str(error))
    if not problems and isinstance(found, ZipFiles) and not found.is_exact:
        problems.append(
            "the zip was changed around its files, which match the manifest: unpack it and verify"
            " the folder"
        )
    return Verification(tuple(problems), schema, len(expected), signer)


def _file_problems(found: Files, expected: Mapping[str, Expected], schema: str) -> Iterator[str]:
    names = set(found.names)
    outside = {MANIFEST} if schema == UNSIGNED_SCHEMA else {MANIFEST, SIGNATURE, SIGNER}
    for name in sorted(names - set(expected) - outside):
        yield f"{shown(name)} is not in the manifest"
    for name, wanted in sorted(expected.items()):
        if name not in names:
            yield f"{name} is missing"
        elif found.size_bytes(name) != wanted.size_bytes:
            size = found.size_bytes(name)
            yield f"{name} has {size} bytes, the manifest says {wanted.size_bytes}"
        elif _sha256(found.chunks(name)) != wanted.sha256:
            yield f"{name} has been changed: its hash is not that of the manifest"


def _signer(found: Files, manifest: Mapping[str, Any], content: bytes) -> PublicKey:
    """Whose valid signature the manifest has. Raises ValueError and PublicKeyError."""
    signature = _small_file(found, SIGNATURE, SIGNATURE_BYTES)
    pem = _small_file(found, SIGNER, 1 << 10)
    try:
        key = PublicKey.of_pem(pem)
    except PublicKeyError as error:
        raise PublicKeyError(f"{SIGNER} cannot be used: {error}") from error
    if key.pem != pem:
        raise ValueError(f"{SIGNER} has more in it than a key")
    named = manifest.get("signer")
    if not isinstance(named, dict) or named.get("public_key_sha256") != key.fingerprint:
        raise ValueError(f"{SIGNER} is not the key that the manifest names")
    if not key.verifies(content, signature):
        raise ValueError(f"{SIGNATURE} is not the signature of this manifest")
    return key


def _small_file(found: Files, name: str, most_bytes: int) -> bytes:
    if name not in found.names:
        raise ValueError(f"{name} is missing")
    if found.size_bytes(name) > most_bytes:
        raise ValueError(f"{name} is larger than it can be")
    return b"".join(found.chunks(name))


def _sha256(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
