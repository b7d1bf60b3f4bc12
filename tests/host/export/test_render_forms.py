"""A trained network as every file in which it can be shipped, checked against torch."""

import hashlib
import sys

import numpy as np
import pytest
import torch

from cost_models.tflite_graph import kernels_from_tflite
from host.data.split import Samples, Split
from host.errors import UsageError
from host.export.errors import ExportDiffersError
from host.export.forms import (
    FORMS,
    feed_of_form,
    form_of,
    logits_of_form,
    precision_of,
    render_forms,
    runtime_of,
    suffix_of,
)
from host.export.metadata import metadata_of, onnx_metadata
from host.preprocessing import AnyPreprocessing, Inputs, Preprocessing, SignalPreprocessing
from host.spaces.base import Task
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from tests.host.export.trained_like import trained_like

MOBILE = "r32 w0.25 hard_swish stem2 head0 | k3e3d1 | k3e3d1se | k3e3d2 | k3e1d1 | k3e1d1"
SIGNAL = "l512 c16 k63 s16 pool head128 | plain k3 d1 | plain k3 d1 | plain k3 d1 | plain k3 d1"


def split_of(kind: str) -> Split:
    rng = np.random.default_rng(0)
    if kind == "image":
        inputs: Inputs = rng.integers(0, 256, (90, 1, 32, 32), dtype=np.uint8)
        preprocessing: AnyPreprocessing = Preprocessing(32, 32, 1, (0.5,), (0.3,))
    else:
        inputs = rng.normal(3.0, 2.0, (90, 2, 512)).astype(np.float32)
        preprocessing = SignalPreprocessing(2, 512, (3.0, 3.0), (2.0, 2.0))
    labels = rng.integers(0, 2, 90)
    train, validation, test = (
        Samples(inputs[a:b], labels[a:b]) for a, b in ((0, 40), (40, 80), (80, 90))
    )
    return Split(("good", "bad"), train, validation, test, preprocessing, "f" * 64, 0)


def trained(kind: str):
    space, text = (Mobile(), MOBILE) if kind == "image" else (Conv1d(), SIGNAL)
    channels = 1 if kind == "image" else 2
    network = space.build(space.parse(text), Task(channels=channels, classes=2))
    return network, trained_like(network)


def same_side(labels, logits):
    """How far the logits tell the two classes apart as those of the first of them do."""
    return float(np.mean((logits[:, 1] > logits[:, 0]) == labels.astype(bool)))


def rendered(kind, runtimes=("onnx", "tflite", "ncnn"), *, max_drop=0.5, quality=same_side):
    network, module = trained(kind)
    split = split_of(kind)
    notes: list[str] = []
    metadata = onnx_metadata(
        classes=split.classes,
        preprocessing=split.preprocessing,
        study="s",
        candidate="c",
        data_fingerprint=split.fingerprint,
    )
    module.train()
    forms = render_forms(
        network,
        module,
        split,
        runtimes,
        metadata=metadata,
        quality=quality,
        max_drop=max_drop,
        on_note=notes.append,
    )
    assert all(layer.training for layer in module.modules())
    return forms, notes, (network, module, split)


@pytest.fixture(scope="module", params=["image", "signal"])
def made(request):
    return rendered(request.param)


def test_every_form_answers_as_the_trained_network(made):
    forms, notes, (network, module, split) = made
    inputs = split.preprocessing.normalise(split.validation.inputs[:16])
    with torch.no_grad():
        shaped = torch.from_numpy(inputs.reshape(-1, *network.input_shape))
        wanted = module.eval()(shaped).numpy()
    module.train()

    assert tuple(forms) == FORMS
    assert notes == ["no ncnn-int8 form: ncnn int8 is not offered"]
    for form, exported in forms.items():
        found = logits_of_form(form, exported.model, inputs)
        scale = np.abs(wanted).max()
        difference = np.abs(found - wanted).max() / scale
        assert exported.form == form
        assert difference < (1e-4 if precision_of(form) == "fp32" else 0.5)
        assert exported.largest_difference < (1e-4 if precision_of(form) == "fp32" else 0.5)
        assert exported.float_layers == ()
        assert (exported.largest_difference > 1e-3) == (precision_of(form) == "int8")


def test_files_say_what_they_are_in_the_layout_of_their_runtime(made):
    forms, _, (_, _, split) = made
    calibration = hashlib.sha256(split.train.inputs.tobytes()).hexdigest()

    for form, exported in forms.items():
        entries = metadata_of(exported.model)
        layouts = {"onnx": "NCHW", "tflite": "NHWC", "ncnn": "CHW"}
        assert entries["input_layout"] == layouts[runtime_of(form)]
        assert entries["classes"] == "good\nbad"
        is_int8 = precision_of(form) == "int8"
        assert entries.get("calibration_sha256") == (calibration if is_int8 else None)


def test_a_feed_is_what_the_file_reads(made):
    forms, _, (network, _, split) = made
    channels, height, width = network.input_shape
    inputs = split.preprocessing.normalise(split.test.inputs)

    for form, exported in forms.items():
        feed = feed_of_form(form, exported.model, inputs)
        first, last = (channels, height, width), (height, width, channels)
        assert feed.inputs.shape[1:] == (last if runtime_of(form) == "tflite" else first)
        assert (feed.input_name, feed.output_name) == ("input", "logits")


def test_only_the_runtimes_that_are_wanted_are_rendered():
    forms, _, _ = rendered("image", ["tflite", "tflite"])

    assert tuple(forms) == ("tflite-fp32", "tflite-int8")


def test_int8_that_loses_too_much_is_no_form_and_the_note_says_why():
    of_float = []

    def exactly_as_float(_labels, logits):
        of_float.append(logits)
        return float(np.array_equal(logits, of_float[0]))

    forms, notes, _ = rendered("image", ["tflite"], max_drop=0.01, quality=exactly_as_float)

    assert tuple(forms) == ("tflite-fp32",)
    (note,) = notes
    assert note.startswith("no tflite-int8 form: int8 loses 1 in quality, more than the 0.01")


def test_layers_in_float_are_told():
    network, module = trained("image")
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    # One channel after the stem is so large that eight bits leave little of the others.
    with torch.no_grad():
        norms[0].weight[0] *= 4000.0
        norms[0].bias[0] *= 4000.0
    notes: list[str] = []
    split = split_of("image")
    reference = []

    def likeness(_labels, logits):
        reference.append(logits)
        return float(np.corrcoef(logits.ravel(), reference[0].ravel())[0, 1])

    forms = render_forms(
        network,
        module,
        split,
        ["tflite"],
        metadata={},
        quality=likeness,
        max_drop=0.03,
        on_note=notes.append,
    )

    kept = forms["tflite-int8"].float_layers
    assert 1 <= len(kept) <= 4
    (note,) = notes
    assert note == (
        f"tflite-int8 keeps {len(kept)} layers in float, for they hurt in int8: {', '.join(kept)}"
    )
    kernels = kernels_from_tflite(forms["tflite-int8"].model).kernels
    assert sum(bool(k.macs) and not k.integer for k in kernels) == len(kept)


def test_a_float_file_that_answers_otherwise_is_an_error(monkeypatch):
    from host.network import weights

    right = weights.folded_weights

    def wrong(module):
        folded = right(module)
        return folded | {1: folded[1]._replace(bias=folded[1].bias + 1.0)}

    monkeypatch.setattr(weights, "folded_weights", wrong)

    with pytest.raises(ExportDiffersError, match="the exported onnx-fp32 file differ"):
        rendered("image", ["onnx"])


def test_without_ncnn_its_form_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ncnn", None)

    with pytest.raises(UsageError, match=r"pip install 'genba\[ncnn\]'"):
        rendered("image", ["ncnn"])


def test_forms_are_runtimes_times_precisions():
    assert [form_of(runtime_of(form), precision_of(form)) for form in FORMS] == list(FORMS)
    assert {suffix_of(form) for form in FORMS} == {".onnx", ".tflite", ".ncnn"}
