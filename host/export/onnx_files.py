"""A user's own classifier as int8 ONNX.

What works: one float32 input (N, channels, height, width) or (N, channels, length) with a batch of
1 or left open and all else fixed; one output (N, classes); opsets 7 to 21; weights in the file.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter

from host.errors import UsageError
from host.export.check import LARGEST_DIFFERENCE, Floats, logits_of_onnx, relative_difference
from host.export.errors import ExportDiffersError, ExportError, first_line
from host.export.fallback import Int8Model, Judge, Quality, agreement_with, int8_within
from host.export.quantize import OnnxQuantizer

OLDEST_OPSET, LATEST_OPSET = 7, 21
_PER_CHANNEL_FROM, _CONVERTED_TO = 13, 17
_WEIGHTS_APART_FROM = 4  # the IR version from which weights need not be inputs
_QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


class OnnxFileError(UsageError):
    """A file that cannot be quantised; says which, and why."""


def quantize_onnx_file(
    path: Path,
    calibration: Floats,
    validation: Floats,
    *,
    max_drop: float,
    quality: Quality | None = None,
) -> Int8Model:
    """The int8 form of a user's file, with layers that hurt left in float.

    `calibration` and `validation` are inputs (N, C, H, W) or (N, C, L), normalised as the model
    wants them. `quality` says what logits for `validation` are worth; without it, it is the share
    of inputs on which int8 gives the answer of the file itself.

    Raises OnnxFileError where the module docstring says that it does not work, and ExportError as
    `int8_within` does and where the inputs do not fit.
    """
    model = prepared(path)
    logits = logits_of_onnx(model, validation)
    judge = Judge(validation, logits, logits_of_onnx, quality or agreement_with(logits))
    return int8_within(OnnxQuantizer(model, [calibration]), judge, max_drop=max_drop)


def prepared(path: Path) -> bytes:
    """The file as the quantiser wants it: batch 1, normalisations folded, shapes known, an opset
    that has scales for each channel; with the same answers.

    Raises OnnxFileError where the module docstring says that it does not work.
    """
    original = _read(path)
    shape = _input_shape(original, path)
    model = _at_opset(onnx.inliner.inline_local_functions(original), path)
    for value in (*model.graph.input, *model.graph.output):
        for batch in value.type.tensor_type.shape.dim[:1]:  # an output may declare no shape
            batch.dim_value = 1
    del model.graph.value_info[:]
    content = _preprocessed(model, path)
    inputs = _examples(shape)
    try:
        expected = logits_of_onnx(path.read_bytes(), inputs)
        found = logits_of_onnx(content, inputs)
    except ExportError as error:
        raise OnnxFileError(f"{path} cannot be run: {error}") from error
    if expected.ndim != 2:
        raise OnnxFileError(
            f"{path} writes {list(expected.shape[1:])} numbers for an image: only a classifier "
            "with one row of classes can be quantised here"
        )
    _check_same(relative_difference(found, expected), path)
    return content


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except OSError as error:
        raise OnnxFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own class, which differs between its implementations
        raise OnnxFileError(f"{path} is not an ONNX file or is damaged") from error
    _check_operators(model, path)
    return model


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    opset = max((o.version for o in model.opset_import if o.domain in _STANDARD_DOMAINS), default=0)
    if not model.graph.node or not OLDEST_OPSET <= opset <= LATEST_OPSET:
        raise OnnxFileError(
            f"{path} is of opset {opset}: export it with one from {OLDEST_OPSET} to {LATEST_OPSET}"
        )
    operators = {node.op_type for node in model.graph.node}
    if operators & _QUANTISED:
        raise OnnxFileError(f"{path} is quantised already: give the float32 model")
    own = {function.domain for function in model.functions}
    foreign = {n.domain for n in model.graph.node} - _STANDARD_DOMAINS - own
    if foreign:
        raise OnnxFileError(
            f"{path} uses operators of {', '.join(sorted(foreign))}: export it with those of ONNX"
        )


def _input_shape(model: onnx.ModelProto, path: Path) -> tuple[int, ...]:
    """(C, H, W) or (C, L); weights that an old file lists among its inputs are taken out."""
    constants = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise OnnxFileError(
            f"{path} has {len(inputs)} inputs and {len(model.graph.output)} outputs: only a "
            "classifier with one input and one row of classes can be quantised here"
        )
    tensor = inputs[0].type.tensor_type
    batch, *shape = [side.dim_value for side in tensor.shape.dim] or [0]
    fits = len(shape) in {2, 3} and all(shape) and batch in {0, 1}
    if not fits or tensor.elem_type != onnx.TensorProto.FLOAT:
        raise OnnxFileError(
            f"{inputs[0].name!r} of {path} must be float32 (N, channels, height, width) or "
            "(N, channels, length) with a batch of 1 or an open one, and all else fixed"
        )
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(inputs[0])
    del model.graph.input[:]
    model.graph.input.append(kept)
    model.ir_version = max(model.ir_version, _WEIGHTS_APART_FROM)
    return tuple(shape)


def _at_opset(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """At an opset that knows scales for each channel."""
    opset = max(o.version for o in model.opset_import if o.domain in _STANDARD_DOMAINS)
    if opset >= _PER_CHANNEL_FROM:
        return model
    try:
        return onnx.version_converter.convert_version(model, _CONVERTED_TO)
    except Exception as error:  # its C++ raises what it likes
        raise OnnxFileError(
            f"{path} is of opset {opset} and cannot be brought to {_CONVERTED_TO}: export it with "
            f"{_PER_CHANNEL_FROM} or later"
        ) from error


def _preprocessed(model: onnx.ModelProto, path: Path) -> bytes:
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "prepared.onnx")
        onnx.save_model(model, source)
        try:
            quant_pre_process(source, target, skip_symbolic_shape=True)
            made = onnx.load_model(target)
        except Exception as error:  # onnxruntime's errors have no common class but this one
            raise OnnxFileError(f"onnxruntime cannot load {path}: {first_line(error)}") from error
    used = {node.domain for node in made.graph.node}
    opsets = [opset for opset in made.opset_import if opset.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(opsets)
    oldest = onnx.helper.find_min_ir_version_for(made.opset_import)
    made.ir_version = max(model.ir_version, oldest)
    made.producer_name = model.producer_name
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return made.SerializeToString(deterministic=True)


def _examples(shape: tuple[int, ...]) -> Floats:
    return np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)


def _check_same(difference: float, path: Path) -> None:
    if difference > LARGEST_DIFFERENCE:
        raise ExportDiffersError(
            f"the prepared form of {path} answers otherwise than the file, by {difference:.2g} of "
            "the largest logit: please report this"
        )
