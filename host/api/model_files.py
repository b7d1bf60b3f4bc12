"""Model files as users name them: which runtime runs one, and what is wrong with it."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from host.device import RuntimeName
from host.errors import UsageError

if TYPE_CHECKING:
    from host.device import Device

_RUNTIME_OF_SUFFIX: dict[str, RuntimeName] = {
    ".onnx": "onnx",
    ".tflite": "tflite",
    ".ncnn": "ncnn",
}
_TFLITE_IDENTIFIER = b"TFL3"  # schema.fbs of TensorFlow Lite; offset 4, as in every FlatBuffer


class ModelFileError(UsageError):
    """The file is not a model that can be sent to a device."""


def runtime_of(path: Path, chosen: RuntimeName | None = None) -> RuntimeName:
    """The runtime that was chosen, or the one that the file's suffix names.

    Raises ModelFileError for an unknown suffix.
    """
    if chosen is not None:
        return chosen
    known = _RUNTIME_OF_SUFFIX.get(path.suffix.lower())
    if known is None:
        suffixes = ", ".join(_RUNTIME_OF_SUFFIX)
        raise ModelFileError(f"{path} ends with none of {suffixes}: say its runtime with --runtime")
    return known


def read_model_file(path: Path) -> bytes:
    """What the file holds. Raises ModelFileError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from error


def check_model_file(path: Path, runtime: RuntimeName) -> None:
    """See that the file is a whole, valid model of that format. Raises ModelFileError."""
    data = read_model_file(path)
    check = {"onnx": _check_onnx, "tflite": _check_tflite, "ncnn": _check_ncnn}[runtime]
    check(path, data)


def require_runtime(device: "Device", runtime: RuntimeName) -> None:
    """See that the device has the runtime, as far as it has said. Raises NoRuntimeError."""
    if device.facts is not None:
        device.runtime(runtime)


def _check_onnx(path: Path, data: bytes) -> None:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto

    try:
        model = onnx.load_model_from_string(data)
        if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
            raise ModelFileError(
                f"{path} keeps weights in other files, which no device accepts: save it as one file"
            )
        onnx.checker.check_model(model)
    except DecodeError as error:
        raise ModelFileError(
            f"{path} is not an ONNX file, or only a part of one: export it again"
        ) from error
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0]
        raise ModelFileError(f"{path} is not a valid ONNX model: {first}") from error


def _check_tflite(path: Path, data: bytes) -> None:
    """The head of a FlatBuffer: the offset of its root table, the identifier, and the table's
    vtable. What follows is for the verifier of the runtime on the device.
    """
    if data[4:8] != _TFLITE_IDENTIFIER:
        raise ModelFileError(f"{path} is not a TFLite file: it lacks the identifier TFL3")
    (root,) = struct.unpack_from("<I", data)
    whole = root + 4 <= len(data)
    if whole:
        (back,) = struct.unpack_from("<i", data, root)
        whole = 8 <= root - back <= len(data) - 4
    if not whole:
        raise ModelFileError(f"{path} is only a part of a TFLite file: convert it again")


def _check_ncnn(path: Path, data: bytes) -> None:
    """The container, the text of the layers, and as many weights as these read."""
    from host.network.ncnn_file import (
        NotNcnnError,
        input_shapes_of,
        layers_of,
        read_ncnn_file,
    )
    from host.network.ncnn_layers import check_weights, unknown_layers

    try:
        model = read_ncnn_file(data)
        layers = layers_of(model.param)
        input_shapes_of(layers)
        check_weights(model, layers)
    except NotNcnnError as error:
        raise ModelFileError(f"{path} is not a whole .ncnn file: {error}") from error
    unknown = unknown_layers(layers)
    if unknown:
        raise ModelFileError(
            f"{path} has layers that no device accepts: {', '.join(unknown)}; export the model "
            "without them"
        )
