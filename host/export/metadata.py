"""What an ONNX file says about itself, in its `metadata_props`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import onnx
from google.protobuf.message import DecodeError

from host.export.contents import BundleMeasurement
from host.export.errors import ExportError
from host.preprocessing import Preprocessing


def onnx_metadata(
    *,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    study: str,
    candidate: str,
    data_fingerprint: str,
    calibration_sha256: str | None = None,
    measurements: Sequence[BundleMeasurement] = (),
) -> dict[str, str]:
    """The properties that a model is shipped with.

    `classes` is one name a line, in the order of the logits; `mean`, `std` and `measurements` are
    JSON. What is absent has no key.
    """
    entries = {
        "classes": "\n".join(classes),
        "input_layout": "NCHW",
        "input_size": f"{preprocessing.height}x{preprocessing.width}",
        "input_scaling": "(pixel / 255 - mean) / std",
        "colour_order": preprocessing.colour_order,
        "mean": json.dumps(preprocessing.mean),
        "std": json.dumps(preprocessing.std),
        "study": study,
        "candidate": candidate,
        "data_fingerprint": data_fingerprint,
    }
    if calibration_sha256 is not None:
        entries["calibration_sha256"] = calibration_sha256
    if measurements:
        entries["measurements"] = json.dumps([asdict(m) for m in measurements])
    return entries


def with_metadata(model: bytes, entries: Mapping[str, str]) -> bytes:
    """The same ONNX file with those properties added, replacing those of the same key.

    Raises ExportError where the bytes are no ONNX model.
    """
    proto = parse(model)
    merged = {prop.key: prop.value for prop in proto.metadata_props} | dict(entries)
    del proto.metadata_props[:]
    for key, value in merged.items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString(deterministic=True)


def metadata_of(model: bytes) -> dict[str, str]:
    """The properties of an ONNX file. Raises ExportError where the bytes are no ONNX model."""
    return {prop.key: prop.value for prop in parse(model).metadata_props}


def graph_sha256(model: bytes) -> str:
    """A hash of what the file computes: of the model without its properties.

    A file that was measured and the same file with the measured figures written into it share it.
    Raises ExportError where the bytes are no ONNX model.
    """
    proto = parse(model)
    del proto.metadata_props[:]
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def parse(model: bytes) -> onnx.ModelProto:
    """The model in a file's bytes. Raises ExportError where there is none."""
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ExportError("these bytes are no ONNX model: export it again") from error
    if not proto.graph.node:
        raise ExportError("this ONNX model has no operators: export it again")
    return proto
