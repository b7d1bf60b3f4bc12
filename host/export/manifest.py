"""The manifest of a bundle: all that is known as JSON, and the hash of every other file."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from host.export.archive import is_clean, shown
from host.export.contents import BundleContents, BundleModel
from host.export.forms import Runtime, precision_of
from host.export.model_card_gaps import not_measured
from host.export.signing import PublicKey
from host.preprocessing import Preprocessing

SCHEMA = "genba-bundle/2"
UNSIGNED_SCHEMA = "genba-bundle/1"
MANIFEST, SIGNATURE, SIGNER = "manifest.json", "manifest.sig", "signer.pem"
LARGEST_MANIFEST_BYTES = 16 << 20
_ENTRY_KEYS = ("sha256", "size_bytes")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Expected:
    """A file as its manifest describes it."""

    sha256: str
    size_bytes: int


def manifest_of(
    contents: BundleContents, files: Mapping[str, bytes], signer: PublicKey
) -> dict[str, Any]:
    """All that the contents say, the hashes of `files`, and who will sign it.

    Raises ExportError where a model is none.
    """
    return {
        "schema": SCHEMA,
        "name": contents.name,
        "device_class": contents.device_class,
        "runtime": contents.runtime,
        "genba_version": contents.genba_version,
        "created_at": contents.created_at,
        "signer": {"algorithm": "Ed25519", "public_key_sha256": signer.fingerprint},
        "shipped_model": contents.model_path(contents.shipped),
        "models": {
            contents.model_path(model.form): _model(contents, model) for model in contents.models
        },
        "profiles": [asdict(profile) for profile in contents.profiles],
        "choices": [asdict(choice) for choice in contents.choices],
        "limits": [asdict(limit) for limit in contents.limits],
        "provenance": {
            "study": contents.study,
            "space": contents.space,
            "candidate": contents.candidate,
            "seed": contents.seed,
            "data_fingerprint": contents.data_fingerprint,
            "data_counts": dict(contents.data_counts),
            "data_licence": contents.data_licence,
        },
        "classes": list(contents.classes),
        "input": input_of(contents),
        "scores": dict(contents.scores),
        "predictions": [asdict(prediction) for prediction in contents.predictions],
        "measurements": [asdict(measurement) for measurement in contents.measurements],
        "accuracies": [asdict(accuracy) for accuracy in contents.accuracies],
        "confusions": [asdict(confusion) for confusion in contents.confusions],
        "inspections": [asdict(inspection) for inspection in contents.inspections],
        "not_measured": not_measured(contents, "en"),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            for name, content in files.items()
        },
    }


def input_of(contents: BundleContents) -> dict[str, Any]:
    """What the models read, and what makes it of an image or a signal.

    `axes` are those of the file's input, in order; it may have others, of size 1.
    """
    spec = contents.preprocessing
    if isinstance(spec, Preprocessing):
        return asdict(spec) | {
            "kind": "image",
            "colour_order": spec.colour_order,
            "axes": _axes(contents.runtime, "height", "width"),
            "resize": "bilinear, squeezed to height x width",
            "scaling": "(pixel / 255 - mean) / std",
        }
    return asdict(spec) | {
        "kind": "signal",
        "axes": _axes(contents.runtime, "time"),
        "scaling": "(value - mean) / std",
    }


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """JSON for programs and people; the same bytes for the same values."""
    text = json.dumps(_finite(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def parse_manifest(content: bytes) -> dict[str, Any]:
    """The table in a manifest's bytes. Raises ValueError."""
    try:
        manifest = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(manifest, dict):
        raise ValueError("it is no table")  # noqa: TRY004 - of what is in a file
    return manifest


def expected_files(manifest: Mapping[str, Any]) -> dict[str, Expected]:
    """The files that a manifest knows, by name.

    Raises ValueError for what no bundle's manifest says.
    """
    if manifest.get("schema") not in (SCHEMA, UNSIGNED_SCHEMA):
        raise ValueError(f"its schema is {_short(manifest.get('schema'))}, not {SCHEMA}")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ValueError("it names no files")  # noqa: TRY004 - as above
    expected = {name: _expected(name, entry) for name, entry in files.items()}
    if manifest.get("shipped_model") not in expected:
        raise ValueError("the model that it ships is not among its files")
    return expected


def _expected(name: str, entry: Any) -> Expected:
    if not is_clean(name) or name in (MANIFEST, SIGNATURE, SIGNER):
        raise ValueError(f"it names a file {shown(name)}")
    sha256, size = (entry.get(k) if isinstance(entry, dict) else None for k in _ENTRY_KEYS)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"it has no hash of {name}")
    if type(size) is not int or size < 0:
        raise ValueError(f"it has no size of {name}")
    return Expected(sha256, size)


def _axes(runtime: Runtime, *places: str) -> list[str]:
    if runtime == "tflite":
        return ["batch", *places, "channel"]
    # ncnn knows no batch.
    return [*(() if runtime == "ncnn" else ("batch",)), "channel", *places]


def _model(contents: BundleContents, model: BundleModel) -> dict[str, Any]:
    from host.export.metadata import graph_sha256

    found = contents.inspection(model.form)
    rule = found and {
        "defect": contents.classes.index(found.defect_class),
        "defect_class": found.defect_class,
        "threshold": found.threshold,
    }
    return {
        "form": model.form,
        "precision": precision_of(model.form),
        "float_layers": list(model.float_layers),
        # What was measured, and the same file with the figures written into it, share this hash.
        "graph_sha256": graph_sha256(model.content),
        # What run.py judges by: the defect's logit less the other's, rejected from the threshold.
        "inspection": rule,
    }


def _finite(value: Any) -> Any:
    """JSON has no nan: a score that a network does not have is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _short(value: Any) -> str:
    return ascii(value)[:60]
