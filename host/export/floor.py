"""What old runtimes load, as data, and models made fit for them or refused by operator.

A runtime of a device is often years older than what writes a model. What it loads is known by its
version: of onnxruntime the newest opset and IR, of TFLite the operators and their versions, of
ncnn the layers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter

from host.errors import UsageError
from host.export.check import LARGEST_DIFFERENCE, logits_of_onnx, relative_difference
from host.export.errors import ExportDiffersError, ExportError, first_line
from host.export.metadata import parse
from host.export.target import Target, version_number

if TYPE_CHECKING:
    from host.network.graph import Network

_STANDARD = frozenset({"", "ai.onnx"})
_OF_ONNXRUNTIME = frozenset({"ai.onnx.ml", "com.microsoft"})
"""Domains whose operators onnxruntime has besides those of ONNX."""
_FUNCTIONS_FROM_IR = 8


class Loads(NamedTuple):
    """The newest opset and IR that a version of onnxruntime loads."""

    opset: int
    ir: int


ONNXRUNTIME: Mapping[tuple[int, ...], Loads] = {
    (1, 4): Loads(12, 7),
    (1, 6): Loads(13, 7),
    (1, 8): Loads(14, 7),
    (1, 9): Loads(15, 8),
    (1, 11): Loads(16, 8),
    (1, 12): Loads(17, 8),
    (1, 14): Loads(18, 8),
    (1, 15): Loads(19, 9),
    (1, 17): Loads(20, 9),
    (1, 18): Loads(21, 10),
    (1, 21): Loads(22, 10),
    (1, 23): Loads(23, 11),
    (1, 24): Loads(25, 13),
    (1, 26): Loads(26, 13),
}
"""From which version on. Each was tried: these are the newest with which a Relu loads. Where a
version between two lines was not, the older line holds, which every later version loads
(onnxruntime.ai/docs/reference/compatibility.html).
"""

TFLITE: Mapping[str, tuple[str, ...]] = {
    "ADD": ("1.5", "1.14", "2.4", "2.6"),
    "AVERAGE_POOL_2D": ("1.5", "1.14", "2.3"),
    "CONCATENATION": ("1.5", "1.14", "2.3"),
    "CONV_2D": ("1.5", "1.14", "1.14", "2.3", "2.4", "2.9"),
    "DEPTHWISE_CONV_2D": ("1.5", "1.12", "1.14", "2.2", "2.3", "2.3"),
    "DEQUANTIZE": ("1.13", "1.14", "1.15", "2.2", "2.7"),
    "FULLY_CONNECTED": ("1.5", "1.10", "1.14", "1.14", "2.0", "2.1", "2.3", "2.3", "2.3"),
    "HARD_SWISH": ("1.15",),
    "LOGISTIC": ("1.14", "1.14", "2.3"),
    "MAX_POOL_2D": ("1.5", "1.14", "2.3"),
    "MEAN": ("1.6", "1.14", "2.4"),
    "MUL": ("1.5", "1.14", "1.15", "2.3", "2.6"),
    "PAD": ("1.5", "1.14", "2.4", "2.6"),
    "PADV2": ("1.9", "1.14", "2.4", "2.6"),
    "QUANTIZE": ("1.14", "1.15", "2.7"),
    "RELU": ("1.5", "2.1", "2.5"),
    "RELU6": ("1.5", "1.14", "2.5"),
    "RESHAPE": ("1.5",),
    "SOFTMAX": ("1.5", "1.14", "2.3"),
    "SUB": ("1.6", "1.14", "2.3", "2.4", "2.4"),
}
"""By operator, the version of TFLite from which on it has each version of that, the first first;
by tensorflow/lite/tools/versioning/runtime_version.cc. What genba writes, and a few besides.
"""


class FloorError(UsageError):
    """A target does not run a model. `operators` are those that it lacks, where it is they."""

    def __init__(self, sentence: str, operators: Iterable[str] = ()) -> None:
        super().__init__(sentence)
        self.operators = tuple(dict.fromkeys(operators))


@dataclass(frozen=True)
class Fitted:
    """A file that a target loads, and what was changed for that."""

    model: bytes = field(repr=False)
    changes: tuple[str, ...] = ()


def loads_of(target: Target) -> Loads:
    """What an onnxruntime loads. Raises FloorError for one that is older than the table."""
    known = [loads for since, loads in ONNXRUNTIME.items() if since <= target.number]
    if not known:
        raise FloorError(f"what {target.name} loads is not known: it is older than onnxruntime 1.4")
    return known[-1]


def fitted_to(model: bytes, target: Target) -> Fitted:
    """The file as the target loads it, with the same answers.

    Raises FloorError, which names the operators that the target lacks, and ExportError where the
    bytes are no model of its runtime.
    """
    match target.runtime:
        case "onnx":
            return _fitted_onnx(model, target)
        case "tflite":
            _require(_tflite_missing(model, target), target)
        case "ncnn":
            _require(_ncnn_missing(model, target), target)
    return Fitted(model)


def missing_operators(network: "Network", target: Target) -> tuple[str, ...]:
    """The operators of a network's float32 file that the target lacks."""
    if target.runtime == "onnx":
        from host.network.onnx_model import operators_of

        opset, names = loads_of(target).opset, operators_of(network)
        gone = [name for name in names if not _exists(name, "", opset)]
    elif target.runtime == "tflite":
        from host.network.tflite_model import tflite_graph

        names = tuple(dict.fromkeys(tflite_graph(network).codes))
        gone = [name for name in names if not _has_tflite(name, 1, target)]
    else:
        from host.network.ncnn_model import layer_types_of

        names, gone = layer_types_of(network), []
    return tuple(name for name in names if name in gone or name in target.lacks)


def _fitted_onnx(content: bytes, target: Target) -> Fitted:
    loads, model = loads_of(target), parse(content)
    _require(_foreign(model), target)
    changes = []
    if model.functions and loads.ir < _FUNCTIONS_FROM_IR:
        model = onnx.inliner.inline_local_functions(model)
        changes.append("its functions were written out")
    opset = _opset(model)
    if opset > loads.opset:
        model = _at_opset(model, loads.opset, target)
        changes.append(f"opset {opset} was converted to {loads.opset}")
    _require([node.op_type for node in model.graph.node if node.op_type in target.lacks], target)
    if model.ir_version > loads.ir:
        changes.append(f"IR version {model.ir_version} was lowered to {loads.ir}")
        model.ir_version = loads.ir
    if not changes:
        return Fitted(content)
    made = model.SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise FloorError(f"{target.name} does not load the model: {first_line(error)}") from error
    _check_same(content, made, model, target)
    return Fitted(made, tuple(changes))


def _check_same(before: bytes, after: bytes, model: onnx.ModelProto, target: Target) -> None:
    """See that the change did not change the answers, where this machine can run the model alone
    from its file. Raises ExportDiffersError.
    """
    constants = {initializer.name for initializer in model.graph.initializer}
    inputs = [value.type.tensor_type for value in model.graph.input if value.name not in constants]
    _, *sides = [dim.dim_value for dim in inputs[0].shape.dim] if len(inputs) == 1 else [0, 0]
    if not all(sides) or inputs[0].elem_type != onnx.TensorProto.FLOAT:
        return
    examples = np.random.default_rng(0).standard_normal((2, *sides), dtype=np.float32)
    try:
        expected = logits_of_onnx(before, examples)
    except ExportError:
        return
    difference = relative_difference(logits_of_onnx(after, examples), expected)
    if difference > LARGEST_DIFFERENCE:
        raise ExportDiffersError(
            f"brought down for {target.name}, the model answers otherwise, by {difference:.2g} of"
            " the largest output: export it with an older opset"
        )


def _opset(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in _STANDARD), default=1)


def _foreign(model: onnx.ModelProto) -> list[str]:
    known = _STANDARD | _OF_ONNXRUNTIME | {function.domain for function in model.functions}
    return [f"{n.domain}:{n.op_type}" for n in model.graph.node if n.domain not in known]


def _at_opset(model: onnx.ModelProto, opset: int, target: Target) -> onnx.ModelProto:
    """Brought down by ONNX's own converter."""
    standard = [node.op_type for node in model.graph.node if node.domain in _STANDARD]
    gone = [name for name in standard if not _exists(name, "", opset)]
    if gone:
        names = ", ".join(dict.fromkeys(gone))
        raise FloorError(
            f"{target.name} lacks {names}: its newest opset is {opset}, and there {names} does not"
            " exist",
            gone,
        )
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # its C++ raises what it likes
        relabelled = _relabelled(model, opset)
        if relabelled is not None:
            return relabelled
        raise FloorError(
            f"{target.name} loads opset {opset} at most, the model is of {_opset(model)} and cannot"
            f" be converted ({first_line(error)}): export it with opset {opset} or older"
        ) from error


def _relabelled(model: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """The same nodes said to be of an older opset, where they are valid there too.

    The converter knows no way back from types and attributes that were added later, also where a
    model uses none of them.
    """
    relabelled = onnx.ModelProto()
    relabelled.CopyFrom(model)
    for imported in relabelled.opset_import:
        if imported.domain in _STANDARD:
            imported.version = opset
    try:
        onnx.checker.check_model(relabelled, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return relabelled


def _exists(name: str, domain: str, opset: int) -> bool:
    try:
        onnx.defs.get_schema(name, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return True


def _tflite_missing(content: bytes, target: Target) -> list[str]:
    from cost_models.program import GraphError
    from cost_models.tflite_file import read_tflite
    from host.export.tflite import operator_versions

    try:
        read_tflite(content)
    except GraphError as error:
        raise ExportError(f"the TFLite file cannot be read: {error}") from error
    versions = operator_versions(content)
    return [
        name
        for name, version in versions
        if name in target.lacks or not _has_tflite(name, version, target)
    ]


def _has_tflite(name: str, version: int, target: Target) -> bool:
    since = TFLITE.get(name, ())
    if not 1 <= version <= len(since):
        return False
    # LiteRT began to count anew, from TFLite 2.17 on.
    return target.library != "tflite-runtime" or version_number(since[version - 1]) <= target.number


def _ncnn_missing(content: bytes, target: Target) -> list[str]:
    from host.network.ncnn_file import NotNcnnError, layers_of, read_ncnn_file
    from host.network.ncnn_layers import unknown_layers

    try:
        layers = layers_of(read_ncnn_file(content).param)
    except NotNcnnError as error:
        raise ExportError(str(error)) from error
    return [*unknown_layers(layers), *(one.type for one in layers if one.type in target.lacks)]


def _require(missing: Iterable[str], target: Target) -> None:
    names = tuple(dict.fromkeys(missing))
    if names:
        raise FloorError(f"{target.name} lacks {', '.join(names)}", names)
