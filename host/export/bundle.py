"""Writes and verifies bundles: a zip of models, what is known about them, and their hashes."""

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from host.errors import UsageError
from host.export.contents import BundleContents
from host.export.files import write_whole
from host.export.metadata import graph_sha256
from host.export.model_card import model_card

SCHEMA = "genba-bundle/1"
MANIFEST = "manifest.json"
MODEL_CARD = "MODEL_CARD.md"
_READ_SIZE = 1 << 20
_LARGEST_MANIFEST_BYTES = 16 << 20
# An encrypted entry is a RuntimeError, an unknown compression a NotImplementedError.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
# The zip format knows no earlier time; a real one would make equal bundles differ.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class WrittenBundle:
    """Where a bundle is, and the hash of its manifest, which covers all the rest."""

    path: Path
    manifest_sha256: str


def write_bundle(directory: Path, contents: BundleContents) -> WrittenBundle:
    """Write `NAME-HASH.zip` into the directory, where HASH begins the manifest's hash.

    Equal contents give equal files, byte for byte: entries are sorted, uncompressed and carry no
    time. The file appears as a whole or not at all.
    """
    files = _files(contents)
    manifest = _json_bytes(_manifest(contents, files))
    digest = hashlib.sha256(manifest).hexdigest()
    path = directory / f"{contents.name}-{digest[:12]}.zip"
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(path, _zip({MANIFEST: manifest, **files}))
    return WrittenBundle(path, digest)


def verify_bundle(path: Path) -> tuple[str, ...]:
    """What is wrong with a bundle (a zip, or the folder that it was unpacked into); () if nothing.

    Compares every file's size and hash with the manifest, and names files that are missing and
    files that the manifest does not know.

    Raises UsageError where there is nothing at the path.
    """
    if path.is_dir():
        return tuple(_problems(_FolderFiles(path)))
    if not path.is_file():
        raise UsageError(f"there is no bundle {path}: check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(_problems(_ZipFiles(archive)))
    except _ZIP_ERRORS as error:
        return (f"{path.name} is no readable zip file: {error}",)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, zip or folder. Raises UsageError where there is none."""
    try:
        manifest = json.loads(_read(path, MANIFEST))
    except ValueError as error:
        raise UsageError(f"{path} is no bundle: its manifest is no JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise UsageError(f"{path} is no bundle: its manifest is no table")
    return manifest


def read_model_card(path: Path) -> str:
    """The model card of a bundle, zip or folder. Raises UsageError where there is none."""
    try:
        return _read(path, MODEL_CARD).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no bundle: its model card is no text") from error


def _read(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            return (path / name).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except KeyError as error:
        raise UsageError(f"{path} is no bundle: it has no {name}") from error
    except _ZIP_ERRORS as error:
        raise UsageError(f"{path} is no bundle: {error}") from error


class _ZipFiles:
    """The files of a zip by name."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]

    def size(self, name: str) -> int:
        return self._archive.getinfo(name).file_size

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._archive.open(name) as file:
            while chunk := file.read(_READ_SIZE):
                yield chunk


class _FolderFiles:
    """The files below a folder by name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.names = sorted(
            file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()
        )

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        with (self._root / name).open("rb") as file:
            while chunk := file.read(_READ_SIZE):
                yield chunk


def _problems(found: _ZipFiles | _FolderFiles) -> Iterator[str]:
    names = set(found.names)
    if len(names) != len(found.names):
        yield "two files have the same name"
    if MANIFEST not in names:
        yield f"{MANIFEST} is missing"
        return
    if found.size(MANIFEST) > _LARGEST_MANIFEST_BYTES:
        yield f"{MANIFEST} is larger than any bundle needs"
        return
    try:
        manifest = json.loads(b"".join(found.chunks(MANIFEST)))
        expected = _expected(manifest)
    except (ValueError, KeyError, TypeError) as error:
        yield f"{MANIFEST} is not in the form of {SCHEMA}: {error}"
        return
    for name in sorted(names - set(expected) - {MANIFEST}):
        yield f"{name} is not in the manifest"
    for name, (sha256, size_bytes) in sorted(expected.items()):
        if name not in names:
            yield f"{name} is missing"
        elif found.size(name) != size_bytes:
            yield f"{name} has {found.size(name)} bytes, the manifest says {size_bytes}"
        elif _sha256(found.chunks(name)) != sha256:
            yield f"{name} has been changed: its hash is not that of the manifest"


def _expected(manifest: dict[str, Any]) -> dict[str, tuple[str, int]]:
    if manifest["schema"] != SCHEMA:
        raise ValueError(f"its schema is {manifest['schema']}")
    files: dict[str, dict[str, Any]] = manifest["files"]
    return {name: (str(entry["sha256"]), int(entry["size_bytes"])) for name, entry in files.items()}


def _sha256(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _files(contents: BundleContents) -> dict[str, bytes]:
    spec = contents.preprocessing
    preprocessing = asdict(spec) | {
        "colour_order": spec.colour_order,
        "layout": "NCHW",
        "resize": "bilinear, squeezed to height x width",
        "scaling": "(pixel / 255 - mean) / std",
    }
    files = {contents.model_path(model.precision): model.onnx for model in contents.models}
    return files | {
        MODEL_CARD: model_card(contents).encode(),
        "labels.txt": "".join(f"{name}\n" for name in contents.classes).encode(),
        "preprocessing.json": _json_bytes(preprocessing),
        "run.py": Path(__file__).with_name("run.py").read_bytes(),
    }


def _manifest(contents: BundleContents, files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": contents.name,
        "genba_version": contents.genba_version,
        "created_at": contents.created_at,
        "shipped_model": contents.model_path(contents.shipped),
        "models": {
            contents.model_path(model.precision): {
                "precision": model.precision,
                "graph_sha256": graph_sha256(model.onnx),
            }
            for model in contents.models
        },
        "provenance": {
            "study": contents.study,
            "space": contents.space,
            "candidate": contents.candidate,
            "seed": contents.seed,
            "data_fingerprint": contents.data_fingerprint,
            "data_counts": dict(contents.data_counts),
            "data_licence": contents.data_licence,
        },
        "scores": dict(contents.scores),
        "predictions": [asdict(prediction) for prediction in contents.predictions],
        "measurements": [asdict(measurement) for measurement in contents.measurements],
        "accuracies": [asdict(accuracy) for accuracy in contents.accuracies],
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            for name, content in files.items()
        },
    }


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(_finite(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _finite(value: Any) -> Any:
    """JSON has no nan: a score that a network does not have is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()
