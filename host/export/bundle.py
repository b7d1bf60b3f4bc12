"""Writes and reads bundles: a zip of models, what is known about them, and who signed it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.errors import UsageError
from host.export.archive import (
    LARGEST_BUNDLE_BYTES,
    ArchiveError,
    files_at,
    zip_of,
)
from host.export.contents import BundleContents
from host.export.errors import ExportError
from host.export.files import write_whole
from host.export.manifest import (
    LARGEST_MANIFEST_BYTES,
    MANIFEST,
    SIGNATURE,
    SIGNER,
    input_of,
    json_bytes,
    manifest_of,
    parse_manifest,
)
from host.export.model_card import model_card
from host.export.model_card_texts import Language
from host.export.program import program
from host.export.signing import SigningKey

MODEL_CARDS: dict[Language, str] = {"en": "MODEL_CARD.md", "ja": "MODEL_CARD.ja.md"}


@dataclass(frozen=True)
class WrittenBundle:
    """Where a bundle is, and the hash of its manifest, which covers all the rest."""

    path: Path
    manifest_sha256: str


def write_bundle(directory: Path, contents: BundleContents, key: SigningKey) -> WrittenBundle:
    """Write `NAME-CLASS-HASH.zip` into the directory, where HASH begins the manifest's hash.

    Equal contents and keys give equal files, byte for byte. The file appears as a whole or not at
    all.

    Raises ExportError where a model is none, or the file cannot be written.
    """
    files = _files(contents)
    manifest = json_bytes(manifest_of(contents, files, key.public))
    digest = hashlib.sha256(manifest).hexdigest()
    signed = {MANIFEST: manifest, SIGNATURE: key.sign(manifest), SIGNER: key.public.pem}
    content = zip_of(signed | files)
    path = directory / f"{contents.name}-{contents.device_class}-{digest[:12]}.zip"
    if len(content) > LARGEST_BUNDLE_BYTES:
        raise ExportError(f"{path.name} would have {len(content) / 1e6:.0f} MB: no bundle may")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror or error}): make room there, then write the"
            " bundles again by `genba bundle create`, or name another folder with --out"
        ) from error
    return WrittenBundle(path, digest)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, zip or folder, as it is there, whoever changed it.

    Raises UsageError where there is none.
    """
    try:
        return parse_manifest(_read(path, MANIFEST))
    except ValueError as error:
        raise UsageError(f"{path} is no bundle: its manifest is wrong ({error})") from error


def read_model_card(path: Path, language: Language = "en") -> str:
    """The model card of a bundle, zip or folder, as it is there, whoever changed it.

    The form genba-bundle/1 has it in English only. Raises UsageError where there is none.
    """
    name = MODEL_CARDS[language]
    try:
        return _read(path, name).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no bundle: its {name} is no text") from error


def _read(path: Path, name: str) -> bytes:
    if not path.exists():
        raise UsageError(f"there is no bundle {path}: check the path")
    try:
        found = files_at(path)
        if name not in found.names:
            raise UsageError(f"{path} has no {name}: a bundle of today has one")
        if found.size_bytes(name) > LARGEST_MANIFEST_BYTES:
            raise UsageError(f"{path} is no bundle: its {name} is larger than any")
        return b"".join(found.chunks(name))
    except ArchiveError as error:
        raise UsageError(f"{path} is no bundle: {error}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def _files(contents: BundleContents) -> dict[str, bytes]:
    """All but what says and signs what they are."""
    files = {contents.model_path(model.form): model.content for model in contents.models}
    files |= {
        name: model_card(contents, language).encode() for language, name in MODEL_CARDS.items()
    }
    described = input_of(contents)
    return files | {
        "labels.txt": "".join(f"{name}\n" for name in contents.classes).encode(),
        "preprocessing.json": json_bytes(described),
        "run.py": program(contents.runtime, described["kind"]).encode(),
    }
