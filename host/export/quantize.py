"""Static int8 quantisation of an ONNX file, in a form that is right on every CPU."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from host.export.check import logits_of_onnx
from host.export.errors import ExportError
from host.export.metadata import parse

Floats = npt.NDArray[np.float32]

# Keeps onnxruntime from asking for a pre-processing step: normalisations are folded already.
_PREPROCESSED = "onnx.quant.pre_process"
_TOOL_PROPERTIES = {_PREPROCESSED, "onnx.infer"}


def quantize_int8(fp32: bytes, calibration: Iterable[Floats]) -> bytes:
    """The model with 8-bit weights and activations as QDQ nodes, properties kept.

    `calibration` yields normalised images (C, H, W) or batches (N, C, H, W); the range of each
    activation is what they make it. Activations are uint8; weights are signed, per channel, and
    use 7 of their 8 bits: on AVX2 without VNNI the products of two uint8 x int8 pairs are added in
    a saturating int16, which full 8-bit weights overflow and 7-bit weights (255 * 64 * 2 < 2^15)
    cannot.

    Raises ExportError without calibration images, for images that do not fit, and where the result
    is no smaller in its weights or does not run.
    """
    proto = parse(fp32)
    images = list(_single_images(calibration))
    if not images:
        raise ExportError("int8 needs calibration images: give it some of the training images")
    logits_of_onnx(fp32, images[0])
    quantized = _quantize(proto, images)
    content = quantized.SerializeToString(deterministic=True)
    before, after = _weight_bytes(parse(fp32)), _weight_bytes(quantized)
    if after >= before:
        raise ExportError(
            f"int8 made the weights no smaller ({before} to {after} bytes): ship the fp32 model"
        )
    logits_of_onnx(content, images[0])
    return content


def _single_images(calibration: Iterable[Floats]) -> Iterator[Floats]:
    for array in calibration:
        batch = array if array.ndim == 4 else array[np.newaxis]
        for image in batch:
            yield np.ascontiguousarray(image[np.newaxis], np.float32)


def _quantize(proto: onnx.ModelProto, images: list[Floats]) -> onnx.ModelProto:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = proto.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands the images over one by one."""

        def __init__(self) -> None:
            self._feeds = iter([{name: image} for image in images])

        def get_next(self) -> dict[str, Floats] | None:
            return next(self._feeds, None)

    ir_version, producer = proto.ir_version, proto.producer_name
    proto.metadata_props.add(key=_PREPROCESSED, value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "int8.onnx")
        quantize_static(
            proto,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantized = onnx.load_model(target)
    quantized.ir_version, quantized.producer_name = ir_version, producer
    kept = [prop for prop in quantized.metadata_props if prop.key not in _TOOL_PROPERTIES]
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(kept)
    return quantized


def _weight_bytes(proto: onnx.ModelProto) -> int:
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer)
