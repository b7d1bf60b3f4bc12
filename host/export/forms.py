"""The files in which a trained network can be shipped, by runtime and precision."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from host.device import RuntimeName
from host.export.check import (
    LARGEST_DIFFERENCE,
    Feed,
    Floats,
    feed_of_onnx,
    logits_of_onnx,
    relative_difference,
)
from host.export.errors import ExportDiffersError, ExportError

if TYPE_CHECKING:
    from host.data.split import Labels, Split
    from host.export.fallback import Quantizer
    from host.network.graph import Network
    from host.network.torch_module import NetworkModule

Array = TypeVar("Array", bound=npt.NDArray[Any])
Runtime = RuntimeName
Precision = Literal["fp32", "int8"]
Form = Literal["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8", "ncnn-fp32"]
FORMS: tuple[Form, ...] = get_args(Form)

CALIBRATION_SAMPLES = 128
CHECKED_SAMPLES = 32
JUDGED_SAMPLES = 512

_PARTS: dict[Form, tuple[Runtime, Precision]] = {
    "onnx-fp32": ("onnx", "fp32"),
    "onnx-int8": ("onnx", "int8"),
    "tflite-fp32": ("tflite", "fp32"),
    "tflite-int8": ("tflite", "int8"),
    "ncnn-fp32": ("ncnn", "fp32"),
}


def runtime_of(form: Form) -> Runtime:
    """The runtime that runs files of this form."""
    return _PARTS[form][0]


def precision_of(form: Form) -> Precision:
    """In what numbers a form computes."""
    return _PARTS[form][1]


def suffix_of(form: Form) -> str:
    """How the names of its files end."""
    return f".{runtime_of(form)}"


def form_of(runtime: Runtime, precision: Precision) -> Form:
    """The form of a runtime in a precision that it has: ncnn has no int8."""
    return next(form for form, parts in _PARTS.items() if parts == (runtime, precision))


@dataclass(frozen=True)
class ExportedForm:
    """A file that was checked on this machine.

    `largest_difference` is that of its logits from those of the trained network, relative to the
    largest logit. `float_layers` of an int8 form stayed in float.
    """

    form: Form
    model: bytes = field(repr=False)
    largest_difference: float
    float_layers: tuple[str, ...] = ()


def logits_of_form(form: Form, model: bytes, inputs: Floats, *, threads: int = 1) -> Floats:
    """The logits (N, classes) of a file for normalised images (N, C, H, W) or signals (N, C, L).

    Raises ExportError where it does not answer, UsageError where its runtime is not installed here.
    """
    return _logits(runtime_of(form), model, inputs, threads=threads)


def feed_of_form(form: Form, model: bytes, inputs: Floats) -> Feed:
    """The same inputs as the file reads them, with the names of its input and output.

    Raises as `logits_of_form` does.
    """
    match runtime_of(form):
        case "onnx":
            return feed_of_onnx(model, inputs)
        case "tflite":
            from host.export.tflite import feed_of_tflite

            return feed_of_tflite(model, inputs)
        case "ncnn":
            from host.export.ncnn import feed_of_ncnn

            return feed_of_ncnn(model, inputs)


def render_forms(
    network: "Network",
    module: "NetworkModule",
    split: "Split",
    runtimes: Collection[Runtime],
    *,
    metadata: Mapping[str, str],
    quality: "Callable[[Labels, Floats], float]",
    max_drop: float,
    on_note: Callable[[str], None],
) -> dict[Form, ExportedForm]:
    """A float32 and, where it is worth having, an int8 form for each runtime; ncnn has no int8.

    int8 is calibrated with training samples; layers that hurt stay in float until it loses at most
    `max_drop` of the `quality` of the logits for the validation samples. Where it is not to be had,
    `on_note` is told why. `metadata` are the properties that `model_metadata` makes.

    Raises ExportDiffersError where a float32 form does not answer as the module, ExportError where
    one cannot be run, and UsageError where the packages of a runtime are missing.
    """
    source = _Source.of(network, module, split)
    forms: dict[Form, ExportedForm] = {}
    for runtime in dict.fromkeys(runtimes):
        fp32 = source.fp32(runtime, metadata)
        forms[fp32.form] = fp32
        if runtime == "ncnn":
            on_note("no ncnn-int8 form: ncnn int8 is not offered")
            continue
        try:
            int8 = source.int8(fp32, quality, max_drop)
        except ExportError as error:
            on_note(f"no {form_of(runtime, 'int8')} form: {error}")
            continue
        forms[int8.form] = int8
        if int8.float_layers:
            on_note(
                f"{int8.form} keeps {len(int8.float_layers)} layers in float, for they hurt in "
                f"int8: {', '.join(int8.float_layers)}"
            )
    return forms


@dataclass(frozen=True, eq=False)
class _Source:
    """A trained network, and samples to check and to calibrate with."""

    network: "Network"
    module: "NetworkModule"
    calibration: Floats
    calibration_sha256: str
    checked: Floats
    expected: Floats
    judged: Floats
    labels: "Labels"

    @classmethod
    def of(cls, network: "Network", module: "NetworkModule", split: "Split") -> "_Source":
        normalise = split.preprocessing.normalise
        calibration = spread(split.train.inputs, CALIBRATION_SAMPLES)
        checked = normalise(spread(split.validation.inputs, CHECKED_SAMPLES))
        return cls(
            network,
            module,
            normalise(calibration),
            hashlib.sha256(np.ascontiguousarray(calibration).tobytes()).hexdigest(),
            checked,
            _logits_of_module(module, checked),
            normalise(spread(split.validation.inputs, JUDGED_SAMPLES)),
            spread(split.validation.labels, JUDGED_SAMPLES),
        )

    def fp32(self, runtime: Runtime, metadata: Mapping[str, str]) -> ExportedForm:
        from host.export.rendering import rendered
        from host.network.weights import folded_weights

        weights = folded_weights(self.module)
        model = rendered(self.network, runtime, weights, metadata)
        made = self._checked(form_of(runtime, "fp32"), model)
        if made.largest_difference > LARGEST_DIFFERENCE:
            raise ExportDiffersError(
                f"the logits of the exported {made.form} file differ from those of the trained "
                f"network by {made.largest_difference:.2g} of the largest, where "
                f"{LARGEST_DIFFERENCE:g} is allowed: please report this"
            )
        return made

    def int8(
        self, fp32: ExportedForm, quality: "Callable[[Labels, Floats], float]", max_drop: float
    ) -> ExportedForm:
        from host.export.fallback import Judge, int8_within
        from host.export.metadata import with_metadata

        runtime = runtime_of(fp32.form)
        judge = Judge(
            self.judged,
            _logits(runtime, fp32.model, self.judged),
            lambda model, inputs: _logits(runtime, model, inputs),
            lambda logits: quality(self.labels, logits),
        )
        said = with_metadata(fp32.model, {"calibration_sha256": self.calibration_sha256})
        found = int8_within(_quantizer(runtime, said, self.calibration), judge, max_drop=max_drop)
        return self._checked(form_of(runtime, "int8"), found.model, found.float_layers)

    def _checked(
        self, form: Form, model: bytes, float_layers: tuple[str, ...] = ()
    ) -> ExportedForm:
        logits = logits_of_form(form, model, self.checked)
        difference = relative_difference(logits, self.expected)
        return ExportedForm(form, model, difference, float_layers)


def _quantizer(runtime: Runtime, fp32: bytes, calibration: Floats) -> "Quantizer":
    if runtime == "onnx":
        from host.export.quantize import OnnxQuantizer

        return OnnxQuantizer(fp32, [calibration])
    from host.export.tflite import TfliteQuantizer

    return TfliteQuantizer(fp32, [calibration])


def _logits(runtime: Runtime, model: bytes, inputs: Floats, *, threads: int = 1) -> Floats:
    match runtime:
        case "onnx":
            return logits_of_onnx(model, inputs, threads=threads)
        case "tflite":
            from host.export.tflite import logits_of_tflite

            return logits_of_tflite(model, inputs, threads=threads)
        case "ncnn":
            from host.export.ncnn import logits_of_ncnn

            return logits_of_ncnn(model, inputs, threads=threads)


def _logits_of_module(module: "NetworkModule", inputs: Floats) -> Floats:
    """In evaluation mode; leaves the module as it was."""
    import torch

    from host.network.torch_module import evaluating

    shape = module.network.input_shape
    with evaluating(module), torch.no_grad():
        logits = module(torch.from_numpy(inputs.reshape(len(inputs), *shape)))
    found: Floats = logits.cpu().numpy()
    return found


def spread(samples: Array, most: int) -> Array:
    """At most so many of them, from all over."""
    places = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int)
    chosen: Array = samples[places]
    return chosen
