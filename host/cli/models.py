"""Model files as commands take them: which runtime runs one, and what is wrong with it."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from host.errors import UsageError

if TYPE_CHECKING:
    from host.device import Device
    from host.measurement import InputShape

RuntimeName = Literal["onnx", "tflite"]
_RUNTIME_OF_SUFFIX: dict[str, RuntimeName] = {".onnx": "onnx", ".tflite": "tflite"}
_TFLITE_IDENTIFIER = b"TFL3"  # schema.fbs of TensorFlow Lite; offset 4, as in every FlatBuffer
_MAX_SIZE = 2**31 - 1  # of one dimension


class ModelFileError(UsageError):
    """The file is not a model that can be sent to a device."""


class ModelOptionError(UsageError):
    """An input shape or an option of a runtime cannot be read."""


def runtime_of(path: Path, chosen: RuntimeName | None = None) -> RuntimeName:
    """The runtime that was chosen, or the one that the file's suffix names.

    Raises ModelFileError for an unknown suffix.
    """
    if chosen is not None:
        return chosen
    known = _RUNTIME_OF_SUFFIX.get(path.suffix.lower())
    if known is None:
        raise ModelFileError(
            f"{path} ends with neither .onnx nor .tflite: say --runtime onnx or --runtime tflite"
        )
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
    if runtime == "onnx":
        _check_onnx(path, data)
    else:
        _check_tflite(path, data)


def require_runtime(device: "Device", runtime: RuntimeName) -> None:
    """See that the device has the runtime, as far as it has said. Raises NoRuntimeError."""
    if device.facts is not None:
        device.runtime(runtime)


def parse_shapes(texts: Sequence[str]) -> "tuple[InputShape, ...]":
    """Shapes from "name=1,3,224,224"; the sizes stand after the last equals sign.

    Raises ModelOptionError.
    """
    from host.measurement import InputShape

    shapes = tuple(InputShape(*_name_and_sizes(text)) for text in texts)
    _require_once("--input-shape", [shape.name for shape in shapes])
    return shapes


def parse_options(texts: Sequence[str]) -> tuple[str, ...]:
    """Options of a runtime from "name=value", in the order of their names.

    Raises ModelOptionError.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, value) in zip(texts, pairs, strict=True):
        if not (name.strip() and equals and value.strip()):
            raise ModelOptionError(f"--option {text}: write it as name=value, such as xnnpack=0")
    _require_once("--option", [name.strip() for name, _, _ in pairs])
    return tuple(sorted(f"{name.strip()}={value.strip()}" for name, _, value in pairs))


def _name_and_sizes(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    parts = [part.strip() for part in sizes.split(",")]
    if not name or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ModelOptionError(
            f"--input-shape {text}: write it as name=1,3,224,224, with whole numbers"
        )
    shape = tuple(int(part) for part in parts)
    if not all(0 < size <= _MAX_SIZE for size in shape):
        raise ModelOptionError(f"--input-shape {text}: every size must be from 1 to {_MAX_SIZE}")
    return name, shape


def _require_once(option: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ModelOptionError(f"{option} names {twice!r} twice: once is enough")


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
