"""TFLite files: their answers as LiteRT computes them here, and their int8 form.

Needs the extra genba[tflite-export].
"""

import importlib
import io
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np
from tflite.BuiltinOperator import BuiltinOperator
from tflite.Model import Model

from cost_models.program import GraphError
from cost_models.tflite_file import TfliteFile, read_tflite
from host.errors import UsageError
from host.export.check import Feed, Floats, examples, fitted, joined
from host.export.errors import NO_CALIBRATION, ExportError, first_line, no_smaller
from host.network.tflite_metadata import (
    NotTfliteError,
    tflite_metadata_of,
    with_tflite_metadata,
    without_tflite_metadata,
)
from host.network.tflite_tables import IDENTIFIER

MISSING = "TFLite models need packages that are not installed: pip install 'genba[tflite-export]'"

_MULTIPLY = frozenset({"BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_BORDERS = frozenset({"PAD", "PADV2"})
_ADDED = b"_dequant"
_OPERATORS = {number: name for name, number in vars(BuiltinOperator).items() if name[0] != "_"}
_LARGEST_OLD_CODE = 127  # of the field that stands for all larger numbers


def logits_of_tflite(model: bytes, inputs: Floats, *, threads: int = 1) -> Floats:
    """The logits (N, classes) of normalised images (N, C, H, W) or signals (N, C, L), one at a
    time; they are given to the file with the channels last.

    Raises UsageError where LiteRT is not installed, and ExportError where the file does not load
    or run, the inputs do not fit, or a logit is not finite.
    """
    interpreter = _loaded(model, threads)
    return _answers(interpreter, _feed(interpreter, inputs).inputs)


def feed_of_tflite(model: bytes, inputs: Floats) -> Feed:
    """Normalised images (N, C, H, W) or signals (N, C, L) as a TFLite file reads them: channels
    last, signals as images of height 1.

    Raises UsageError and ExportError as `logits_of_tflite` does.
    """
    return _feed(_loaded(model, threads=1), inputs)


def quantize_tflite_int8(
    fp32: bytes, calibration: Iterable[Floats], float_layers: Collection[str] = ()
) -> bytes:
    """The model with int8 weights, a scale for each channel, and int8 activations; what is read
    and written stays float32, metadata are kept.

    `calibration` yields normalised images (C, H, W), signals (C, L) or batches of them; the range
    of each activation is what they make it. `float_layers` are not quantised.

    Raises UsageError where the quantiser is not installed, and ExportError without calibration
    images, for images that do not fit, and where the result is no smaller or does not run.
    """
    return TfliteQuantizer(fp32, calibration).int8(float_layers)


class TfliteQuantizer:
    """Makes int8 forms of one file, with more or fewer layers in float; calibrates once."""

    def __init__(self, fp32: bytes, calibration: Iterable[Floats]) -> None:
        """Raises as `quantize_tflite_int8` does."""
        self._bare = _without_metadata(fp32)
        self._entries = tflite_metadata_of(fp32)
        file = _read(self._bare)
        self._members, self._before = _layers(file), _weight_bytes(file)
        interpreter = _loaded(self._bare, threads=1)
        shape = _shape(interpreter)
        self._examples = [_last(examples(array, shape)) for array in calibration if len(array)]
        if not self._examples:
            raise ExportError(NO_CALIBRATION)
        _answers(interpreter, self._examples[0][:1])
        self._ranges = self._calibrated(interpreter.get_signature_list())

    @property
    def layers(self) -> tuple[str, ...]:
        """What can stay in float: layers that multiply, in order, each with what follows it."""
        return tuple(self._members)

    def int8(self, float_layers: Collection[str] = ()) -> bytes:
        """The int8 form in which these layers stay in float.

        Raises ExportError where the result is no smaller or does not run.
        """
        kept = [name for layer in float_layers for name in self._members[layer]]
        package = _package("ai_edge_quantizer.quantizer")
        with _quiet():
            quantizer = package.Quantizer(self._bare, _recipe(kept))
            made = quantizer.quantize(
                self._ranges, enable_progress_bar=False, enable_progress_report=False
            )
        content = _readable(made.quantized_model)
        after = _weight_bytes(_read(content))
        if after >= self._before:
            raise no_smaller(self._before, after)
        if self._entries:
            content = with_tflite_metadata(content, self._entries)
        _answers(_loaded(content, threads=1), self._examples[0][:1])
        return content

    def _calibrated(self, signatures: Mapping[str, Any]) -> Any:
        """The smallest and the largest number of each tensor."""
        calibrator = _package("ai_edge_quantizer.calibrator")
        manager = _package("ai_edge_quantizer.recipe_manager").RecipeManager()
        update = _package("ai_edge_quantizer.utils.qsv_utils").min_max_update
        manager.load_quantization_recipe(_recipe(()))
        if len(signatures) != 1:
            raise ExportError("int8 needs a TFLite file with one signature: export it again")
        ((signature, names),) = signatures.items()
        (name,) = names["inputs"]
        feeds = [{name: row[np.newaxis]} for batch in self._examples for row in batch]
        with _quiet():
            made = calibrator.Calibrator(self._bare, num_threads=1, qsv_update_func=update)
            made.calibrate({signature: feeds}, manager)
        return made.get_model_qsvs()


def operator_versions(model: bytes) -> tuple[tuple[str, int], ...]:
    """The operators of a TFLite file, custom ones by their own name, each with its version.

    The bytes are a file that `read_tflite` has read.
    """
    root = Model.GetRootAs(model, 0)
    codes = [root.OperatorCodes(index) for index in range(root.OperatorCodesLength())]
    found = []
    for code in codes:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        custom = code.CustomCode()
        name = _OPERATORS.get(number, str(number)) if custom is None else custom.decode()
        found.append((name, code.Version()))
    return tuple(found)


def _layers(file: TfliteFile) -> dict[str, list[str]]:
    """For each layer that multiplies, the outputs of its operators; by the first one's output.

    What comes before the first such layer belongs to it, and so does a border made for it.
    """
    found: dict[str, list[str]] = {}
    waiting: list[str] = []
    current: list[str] = []
    for operator in file.operators:
        output = file.tensors[operator.outputs[0]].name
        if operator.op in _MULTIPLY:
            current = found[output] = [*waiting, output]
            waiting = []
        elif operator.op in _BORDERS or not found:
            waiting.append(output)
        else:
            current += [*waiting, output]
            waiting = []
    current += waiting
    return found


def _recipe(float_outputs: Collection[str]) -> list[dict[str, Any]]:
    """int8 for all but these operators, by their output, and the model's input and output."""
    manager = _package("ai_edge_quantizer.recipe_manager").RecipeManager()
    names = _package("ai_edge_quantizer.qtyping").TFLOperationName
    none = _package("ai_edge_quantizer.algorithm_manager").AlgorithmName.NO_QUANTIZE
    manager.add_static_config(".*", names.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for outside in (names.INPUT, names.OUTPUT):
        manager.add_quantization_config(".*", outside, algorithm_key=none)
    if float_outputs:
        listed = "|".join(re.escape(name) for name in float_outputs)
        manager.add_quantization_config(f"^(?:{listed});", names.ALL_SUPPORTED, algorithm_key=none)
    recipe: list[dict[str, Any]] = manager.get_quantization_recipe()
    return recipe


def _readable(model: bytes) -> bytes:
    """With the number of each operator where old readers look for it too, and the output under its
    own name, which the quantiser gives to what it is made of.
    """
    schema = _package("ai_edge_litert.schema_py_generated")
    unpacked = schema.ModelT.InitFromPackedBuf(model, 0)
    for code in unpacked.operatorCodes:
        code.deprecatedBuiltinCode = min(code.builtinCode, _LARGEST_OLD_CODE)
    for graph in unpacked.subgraphs:
        by_name = {tensor.name: tensor for tensor in graph.tensors}
        for output in (graph.tensors[index] for index in graph.outputs):
            integer = by_name.get(output.name.removesuffix(_ADDED))
            if integer is not None:
                output.name, integer.name = integer.name, output.name
    builder: Any = flatbuffers.Builder(len(model))
    builder.Finish(unpacked.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _weight_bytes(file: TfliteFile) -> int:
    sizes = {"FLOAT32": 4, "INT32": 4, "INT8": 1}
    return sum(
        sizes.get(tensor.element, 1) * int(np.prod(tensor.shape))
        for tensor in file.tensors
        if tensor.stored
    )


def _answers(interpreter: Any, inputs: Floats) -> Floats:
    """What the file gives for each input, channels last, one at a time. Raises ExportError."""
    (read, *_), (written, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    try:
        for example in inputs:
            interpreter.set_tensor(read["index"], example[np.newaxis])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(written["index"]))
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"LiteRT cannot run the model: {first_line(error)}") from error
    return joined(rows)


def _loaded(model: bytes, threads: int) -> Any:
    """An interpreter with its memory allocated."""
    if model[4:8] != IDENTIFIER:
        raise ExportError("these bytes are no TFLite file: export it again")
    package = _package("ai_edge_litert.interpreter")
    try:
        interpreter = package.Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"LiteRT cannot load the exported model: {first_line(error)}") from error
    return interpreter


def _feed(interpreter: Any, inputs: Floats) -> Feed:
    (read, *_), (written, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    last = _last(fitted(inputs, _shape(interpreter)))
    return Feed(str(read["name"]), last, str(written["name"]))


def _shape(interpreter: Any) -> tuple[int, int, int]:
    """(C, H, W) of what a file reads. Raises ExportError where it reads no images."""
    shape = interpreter.get_input_details()[0]["shape"].tolist()
    if len(shape) != 4:
        raise ExportError(f"the model reads {shape}, not images (1, H, W, C)")
    _, height, width, channels = shape
    return channels, height, width


def _last(first: Floats) -> Floats:
    """Channels last."""
    return np.ascontiguousarray(first.transpose(0, 2, 3, 1))


def _without_metadata(model: bytes) -> bytes:
    try:
        return without_tflite_metadata(model)
    except NotTfliteError as error:
        raise ExportError(str(error)) from error


def _read(model: bytes) -> TfliteFile:
    try:
        return read_tflite(model)
    except GraphError as error:
        raise ExportError(f"the TFLite file cannot be quantised: {error}") from error


def _package(name: str) -> ModuleType:
    """A module of the extra. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(MISSING) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's progress bars and warnings."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
