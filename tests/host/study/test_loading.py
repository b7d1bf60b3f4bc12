"""Forms of finalists against the versions of the runtimes on a study's devices."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import onnx
import pytest

from host.config import DeviceConfig
from host.device import Device, Runtime
from host.export.floor import FloorError
from host.export.forms import ExportedForm, Form
from host.export.quantize import quantize_int8
from host.export.tflite import quantize_tflite_int8
from host.network.ncnn_model import ncnn_bytes
from host.network.onnx_model import onnx_bytes
from host.network.tflite_model import tflite_bytes
from host.network.weights import random_weights
from host.study.ledger import StudyDevice
from host.study.loading import loaded_by_all
from tests.host.network.networks import MOBILE_TEXTS, mobile


@pytest.fixture(scope="module")
def forms():
    network = mobile(MOBILE_TEXTS[1])
    weights = random_weights(network, seed=0)
    inputs = np.random.default_rng(0).standard_normal((8, *network.input_shape), dtype=np.float32)
    fp32, lite = onnx_bytes(network, weights), tflite_bytes(network, weights)
    files: dict[Form, bytes] = {
        "onnx-fp32": fp32,
        "onnx-int8": quantize_int8(fp32, [inputs]),
        "tflite-fp32": lite,
        "tflite-int8": quantize_tflite_int8(lite, [inputs]),
        "ncnn-fp32": ncnn_bytes(network, weights),
    }
    return {form: ExportedForm(form, model, 0.0) for form, model in files.items()}


@pytest.fixture
def profile(device_facts):
    def made(runtime, library, version):
        known = (Runtime(runtime, library, version, works=True, why_not=""),)
        facts = replace(device_facts, runtimes=known)
        device = Device("d1", "panel", "0" * 64, datetime.now(UTC), facts=facts)
        return StudyDevice(device, DeviceConfig(name="panel", runtime=runtime))

    return made


@pytest.mark.parametrize(
    ("runtime", "library", "version"),
    [
        ("onnx", "onnxruntime", "1.15.1"),
        ("onnx", "onnxruntime", "1.32.0"),
        ("tflite", "tflite-runtime", "2.11.0"),
        ("tflite", "tflite-runtime", "2.14.0"),
        ("tflite", "ai-edge-litert", "2.1.0"),
        ("ncnn", "ncnn", "1.0.20260526"),
        ("onnx", "onnxruntime", ""),
    ],
)
def test_what_the_machines_of_the_table_have_loads_every_form_as_it_is(
    forms, profile, runtime, library, version
):
    said: list[str] = []

    loaded = loaded_by_all(forms, [profile(runtime, library, version)], said.append)

    assert loaded == forms
    assert said == []


def test_forms_are_brought_down_to_the_oldest_of_several_runtimes(forms, profile):
    devices = [profile("onnx", "onnxruntime", version) for version in ("1.32.0", "1.11.0")]

    loaded = loaded_by_all(forms, devices, pytest.fail)

    model = onnx.load_from_string(loaded["onnx-fp32"].model)
    assert model.opset_import[0].version == 16
    assert loaded["tflite-fp32"] == forms["tflite-fp32"]


def test_an_int8_form_that_a_device_does_not_load_is_left_out_and_said(forms, profile):
    said: list[str] = []
    old = profile("tflite", "tflite-runtime", "1.13.1")

    loaded = loaded_by_all(forms, [old], said.append)

    assert set(loaded) == set(forms) - {"tflite-int8"}
    (sentence,) = said
    assert sentence.startswith("no tflite-int8 form: panel (tflite-runtime 1.13.1) lacks ")


def test_a_float_form_that_a_device_does_not_load_ends_the_study(forms, profile):
    with pytest.raises(FloorError, match=r"panel \(onnxruntime 1\.3\.0\)"):
        loaded_by_all(forms, [profile("onnx", "onnxruntime", "1.3.0")], pytest.fail)
