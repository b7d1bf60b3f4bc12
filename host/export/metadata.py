"""What a model file says about itself: in ONNX's `metadata_props`, in TFLite's metadata, or in
the table of an ncnn container.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
from google.protobuf.message import DecodeError

from host.export.errors import ExportError
from host.network.ncnn_file import (
    NotNcnnError,
    is_ncnn_file,
    read_ncnn_file,
    with_ncnn_metadata,
    without_ncnn_metadata,
)
from host.network.tflite_metadata import (
    NotTfliteError,
    tflite_metadata_of,
    with_tflite_metadata,
    without_tflite_metadata,
)
from host.network.tflite_tables import IDENTIFIER
from host.preprocessing import AnyPreprocessing, Preprocessing


def onnx_metadata(
    *,
    classes: Sequence[str],
    preprocessing: AnyPreprocessing,
    study: str,
    candidate: str,
    data_fingerprint: str,
) -> dict[str, str]:
    """The properties that a model is shipped with, as its ONNX file has them; a TFLite or ncnn
    file has another `input_layout`.

    `classes` is one name a line, in the order of the logits; `mean` and `std` are JSON.
    """
    return {
        "classes": "\n".join(classes),
        **input_metadata(preprocessing),
        "mean": json.dumps(preprocessing.mean),
        "std": json.dumps(preprocessing.std),
        "study": study,
        "candidate": candidate,
        "data_fingerprint": data_fingerprint,
    }


def input_metadata(preprocessing: AnyPreprocessing) -> dict[str, str]:
    """The properties that say how an image or a signal becomes what a model reads."""
    if isinstance(preprocessing, Preprocessing):
        return {
            "input_layout": "NCHW",
            "input_size": f"{preprocessing.height}x{preprocessing.width}",
            "input_scaling": "(pixel / 255 - mean) / std",
            "colour_order": preprocessing.colour_order,
        }
    return {
        "input_layout": "NCHW",
        "input_size": f"1x{preprocessing.length}",
        "input_scaling": "(value - mean) / std",
    }


def with_metadata(model: bytes, entries: Mapping[str, str]) -> bytes:
    """The same file with those properties added, replacing those of the same key.

    Raises ExportError where the bytes are no ONNX, TFLite or ncnn model.
    """
    if is_ncnn_file(model):
        with _refusing():
            return with_ncnn_metadata(model, entries)
    if _is_tflite(model):
        with _refusing():
            return with_tflite_metadata(model, entries)
    proto = parse(model)
    merged = {prop.key: prop.value for prop in proto.metadata_props} | dict(entries)
    del proto.metadata_props[:]
    for key, value in merged.items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString(deterministic=True)


def metadata_of(model: bytes) -> dict[str, str]:
    """The properties of a file. Raises ExportError where the bytes are no model."""
    if is_ncnn_file(model):
        with _refusing():
            return dict(read_ncnn_file(model).metadata)
    if _is_tflite(model):
        with _refusing():
            return tflite_metadata_of(model)
    return {prop.key: prop.value for prop in parse(model).metadata_props}


def graph_sha256(model: bytes) -> str:
    """A hash of what the file computes: of the model without its properties.

    A file that was measured and the same file with the measured figures written into it share it.
    Raises ExportError where the bytes are no model.
    """
    if is_ncnn_file(model):
        with _refusing():
            return hashlib.sha256(without_ncnn_metadata(model)).hexdigest()
    if _is_tflite(model):
        with _refusing():
            return hashlib.sha256(without_tflite_metadata(model)).hexdigest()
    proto = parse(model)
    del proto.metadata_props[:]
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (NotTfliteError, NotNcnnError) as error:
        raise ExportError(str(error)) from error


def _is_tflite(model: bytes) -> bool:
    return model[4:8] == IDENTIFIER


def parse(model: bytes) -> onnx.ModelProto:
    """The model in a file's bytes. Raises ExportError where there is none."""
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ExportError("these bytes are no ONNX model: export it again") from error
    if not proto.graph.node:
        raise ExportError("this ONNX model has no operators: export it again")
    return proto
