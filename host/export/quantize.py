"""Static int8 quantisation of an ONNX file, in a form that is right on every CPU."""

import inspect
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from host.export.check import Floats, examples, logits_of_onnx
from host.export.errors import NO_CALIBRATION, ExportError, no_smaller
from host.export.metadata import parse

# Keeps onnxruntime from asking for a pre-processing step: normalisations are folded already.
_PREPROCESSED = "onnx.quant.pre_process"
_TOOL_PROPERTIES = {_PREPROCESSED, "onnx.infer"}
_MULTIPLY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CACHE = "calibration_cache_path"
"""An argument of later onnxruntimes: a file that keeps the ranges of a calibration."""


def quantize_int8(
    fp32: bytes, calibration: Iterable[Floats], float_layers: Collection[str] = ()
) -> bytes:
    """The model with 8-bit weights and activations as QDQ nodes, properties kept.

    `calibration` yields normalised images (C, H, W), signals (C, L) or batches of them; the range
    of each activation is what they make it. `float_layers`, named as `OnnxQuantizer.layers`, are
    not quantised. Activations are uint8; weights are signed, per channel, and use 7 of their 8
    bits: on AVX2 without VNNI the products of two uint8 x int8 pairs are added in a saturating
    int16, which full 8-bit weights overflow and 7-bit weights (255 * 64 * 2 < 2^15) cannot.

    Raises ExportError without calibration images, for images that do not fit, and where the result
    is no smaller in its weights or does not run.
    """
    return OnnxQuantizer(fp32, calibration).int8(float_layers)


class OnnxQuantizer:
    """Makes int8 forms of one file, with more or fewer layers in float; calibrates once."""

    def __init__(self, fp32: bytes, calibration: Iterable[Floats]) -> None:
        """Raises as `quantize_int8` does."""
        proto = _with_names(parse(fp32))
        self._proto = proto
        self._members = _layers(proto.graph)
        shape = [side.dim_value for side in proto.graph.input[0].type.tensor_type.shape.dim][1:]
        batches = [examples(array, shape) for array in calibration if len(array)]
        if not batches:
            raise ExportError(NO_CALIBRATION)
        self._examples = np.concatenate(batches)
        self._ranges: bytes | None = None
        self._before = _weight_bytes(proto)
        logits_of_onnx(fp32, self._examples[:1])

    @property
    def layers(self) -> tuple[str, ...]:
        """What can stay in float: layers that multiply, in order, each with what follows it."""
        return tuple(self._members)

    def int8(self, float_layers: Collection[str] = ()) -> bytes:
        """The int8 form in which these layers stay in float.

        Raises ExportError where the result is no smaller in its weights or does not run.
        """
        kept = [name for layer in float_layers for name in self._members[layer]]
        quantized = self._quantized(kept)
        content = quantized.SerializeToString(deterministic=True)
        after = _weight_bytes(quantized)
        if after >= self._before:
            raise no_smaller(self._before, after)
        logits_of_onnx(content, self._examples[:1])
        return content

    def _quantized(self, kept: list[str]) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        proto.metadata_props.add(key=_PREPROCESSED, value="onnxruntime.quant")
        with tempfile.TemporaryDirectory() as folder:
            target, ranges = Path(folder, "int8.onnx"), Path(folder, "ranges.json")
            if self._ranges is not None:
                ranges.write_bytes(self._ranges)
            quantize_static(
                proto,
                target,
                _reader(proto.graph.input[0].name, self._examples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
                **_cached(ranges),
            )
            quantized = onnx.load_model(target)
            if ranges.exists():
                self._ranges = ranges.read_bytes()
        quantized.ir_version = self._proto.ir_version
        quantized.producer_name = self._proto.producer_name
        properties = [p for p in quantized.metadata_props if p.key not in _TOOL_PROPERTIES]
        del quantized.metadata_props[:]
        quantized.metadata_props.extend(properties)
        return quantized


def _reader(name: str, inputs: Floats) -> Any:
    """Hands the examples over one by one, as onnxruntime wants them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter([{name: example[np.newaxis]} for example in inputs])

        def get_next(self) -> dict[str, Floats] | None:
            return next(self._feeds, None)

    return Reader()


def _cached(ranges: Path) -> dict[str, Path]:
    from onnxruntime.quantization import quantize_static

    known = _CACHE in inspect.signature(quantize_static).parameters
    return {_CACHE: ranges} if known else {}


def _with_names(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in which every node has a name of its own."""
    taken: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
    return proto


def _layers(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """For each node that multiplies, by its name, the names of it and of what follows it.

    What comes before the first such node belongs to it.
    """
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for node in graph.node:
        if node.op_type in _MULTIPLY:
            current = found[node.name] = [*([] if found else current), node.name]
        else:
            current.append(node.name)
    return found


def _weight_bytes(proto: onnx.ModelProto) -> int:
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer)
