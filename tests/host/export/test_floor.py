"""What old runtimes load, models made fit for them, and the nearest variant of a candidate."""

from datetime import UTC, datetime

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device_agent import ncnn_layers as agent_layers
from host.device import Device
from host.export.check import logits_of_onnx
from host.export.floor import FloorError, fitted_to, loads_of, missing_operators
from host.export.quantize import quantize_int8
from host.export.target import (
    Target,
    TargetError,
    targets_of_device,
    targets_of_library,
    targets_of_machine,
)
from host.export.variant import nearest_variant
from host.network.ncnn_layers import WEIGHT_BYTES
from host.network.ncnn_model import ncnn_bytes
from host.network.onnx_model import onnx_bytes, operators_of
from host.network.tflite_model import tflite_bytes
from host.network.weights import random_weights
from host.spaces.base import Task
from host.spaces.mobile import Mobile
from tests.host.network.networks import MOBILE_TEXTS, SPACES, candidates, mobile

MOBILE_TEXT = "r32 w0.25 hard_swish stem2 head0 | k3e3d1 | k5e3d1se | k3e3d1 | k3e1d1 | k3e1d1"
TASK = Task(channels=3, classes=2)


def onnxruntime(version: str, *lacks: str) -> Target:
    return Target(f"onnxruntime {version}", "onnx", "onnxruntime", version, frozenset(lacks))


def model_of(nodes, opset: int, ir: int, domains=()) -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y"))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString()


RELU = [helper.make_node("Relu", ["x"], ["y"])]


@pytest.mark.parametrize(
    ("version", "loads"),
    [
        ("1.15.1", (19, 9)),
        ("1.16.3", (19, 9)),
        ("1.19.2", (21, 10)),
        ("1.23.2", (23, 11)),
        ("1.10.0", (15, 8)),
        ("1.24.4", (25, 13)),
        ("1.32.0", (26, 13)),
        ("1.22.1", (22, 10)),
    ],
)
def test_a_version_loads_what_it_was_seen_to_load(version, loads):
    assert loads_of(onnxruntime(version)) == loads


def test_a_version_before_the_table_is_refused():
    with pytest.raises(FloorError, match=r"older than onnxruntime 1\.4"):
        loads_of(onnxruntime("1.3.0"))


def test_an_ir_that_is_too_new_is_lowered_and_nothing_else_changes():
    content = model_of(RELU, 17, 11)

    fitted = fitted_to(content, onnxruntime("1.15.1"))

    lowered, original = onnx.load_from_string(fitted.model), onnx.load_from_string(content)
    assert fitted.changes == ("IR version 11 was lowered to 9",)
    assert lowered.ir_version == 9
    assert lowered.graph == original.graph


def test_what_fits_is_left_byte_for_byte():
    content = model_of(RELU, 17, 8)

    assert fitted_to(content, onnxruntime("1.15.1")).model == content


def test_an_opset_that_is_too_new_is_converted_with_the_same_answers():
    network = mobile(MOBILE_TEXTS[1])
    content = onnx_bytes(network, random_weights(network, seed=1), {"study": "s"})
    inputs = np.random.default_rng(0).standard_normal((2, *network.input_shape), dtype=np.float32)

    fitted = fitted_to(content, onnxruntime("1.10.0"))

    made = onnx.load_from_string(fitted.model)
    assert fitted.changes == ("opset 17 was converted to 15",)
    assert made.opset_import[0].version == 15
    assert [prop.value for prop in made.metadata_props] == ["s"]
    found, wanted = (logits_of_onnx(one, inputs) for one in (fitted.model, content))
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_an_operator_that_did_not_exist_is_named():
    content = model_of([helper.make_node("Gelu", ["x"], ["y"])], 20, 9)

    with pytest.raises(FloorError, match=r"1\.15\.1 lacks Gelu: its newest opset is 19") as caught:
        fitted_to(content, onnxruntime("1.15.1"))

    assert caught.value.operators == ("Gelu",)


def test_operators_of_other_domains_are_named_unless_onnxruntime_has_them():
    own = [helper.make_node("Nosuch", ["x"], ["y"], domain="acme")]
    known = [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]

    fitted_to(model_of(known, 17, 8, ["com.microsoft"]), onnxruntime("1.15.1"))
    with pytest.raises(FloorError, match="lacks acme:Nosuch"):
        fitted_to(model_of(own, 17, 8, ["acme"]), onnxruntime("1.15.1"))


@pytest.mark.parametrize("version", ["1.10.0", "1.15.1", "1.32.0"])
def test_int8_files_of_ours_fit_versions_old_and_new(version):
    network = mobile(MOBILE_TEXTS[1])
    inputs = np.random.default_rng(0).standard_normal((8, *network.input_shape), dtype=np.float32)
    int8 = quantize_int8(onnx_bytes(network, random_weights(network, seed=1)), [inputs])

    fitted = fitted_to(int8, onnxruntime(version))

    assert logits_of_onnx(fitted.model, inputs).shape == (8, 3)


def tflite(version: str, *lacks: str) -> Target:
    name = f"tflite-runtime {version}"
    return Target(name, "tflite", "tflite-runtime", version, frozenset(lacks))


@pytest.mark.parametrize("name", SPACES)
def test_candidates_of_every_space_fit_every_runtime_of_today(name):
    (network,) = candidates(name, 1)
    weights = random_weights(network, seed=0)

    assert fitted_to(tflite_bytes(network, weights), tflite("2.11.0")).changes == ()
    ncnn = Target("ncnn", "ncnn", "ncnn", "")
    assert fitted_to(ncnn_bytes(network, weights), ncnn).changes == ()
    assert fitted_to(onnx_bytes(network, weights), onnxruntime("1.15.1")).changes == ()
    for target in (tflite("2.11.0"), ncnn, onnxruntime("1.15.1")):
        assert missing_operators(network, target) == ()


@pytest.mark.parametrize("name", SPACES)
def test_the_operators_that_are_told_are_those_in_the_file(name):
    (network,) = candidates(name, 1)

    content = onnx_bytes(network, random_weights(network, seed=0))

    written = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert set(operators_of(network)) == written


def test_a_tflite_operator_that_an_old_version_lacks_is_named():
    network = mobile(MOBILE_TEXTS[0])
    content = tflite_bytes(network, random_weights(network, seed=0))

    with pytest.raises(FloorError, match=r"1\.14 lacks HARD_SWISH$"):
        fitted_to(content, tflite("1.14"))
    assert missing_operators(network, tflite("1.14")) == ("HARD_SWISH",)


def test_ncnn_layers_that_a_target_lacks_are_named():
    network = mobile(MOBILE_TEXTS[0])
    content = ncnn_bytes(network, random_weights(network, seed=0))
    target = Target("an old ncnn", "ncnn", "ncnn", "", frozenset({"HardSigmoid"}))

    with pytest.raises(FloorError, match=r"an old ncnn lacks HardSigmoid$"):
        fitted_to(content, target)


def test_the_agent_takes_the_layers_that_the_host_sends():
    assert set(WEIGHT_BYTES) == set(agent_layers._KINDS)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (onnxruntime("1.7.0"), MOBILE_TEXT.replace("hard_swish", "relu6")),
        (onnxruntime("1.15.1", "HardSigmoid"), MOBILE_TEXT.replace("d1se", "d1")),
        (
            onnxruntime("1.15.1", "HardSigmoid", "HardSwish"),
            MOBILE_TEXT.replace("d1se", "d1").replace("hard_swish", "relu6"),
        ),
        (
            onnxruntime("1.7.0", "Clip"),
            MOBILE_TEXT.replace("hard_swish", "relu"),
        ),
    ],
    ids=["hard-swish", "squeeze", "both", "no clip either"],
)
def test_the_nearest_variant_does_without_what_the_target_lacks(target, text):
    space = Mobile()
    candidate = space.parse(MOBILE_TEXT)

    found = nearest_variant(space, candidate, TASK, target)

    assert found is not None
    assert space.text(found) == text
    assert missing_operators(space.build(found, TASK), target) == ()


def test_a_target_without_convolutions_has_no_variant():
    space = Mobile()

    found = nearest_variant(space, space.parse(MOBILE_TEXT), TASK, onnxruntime("1.15.1", "Conv"))

    assert found is None


def test_a_library_is_a_target_with_its_version():
    (target,) = targets_of_library("onnxruntime==1.15.1")

    assert (target.runtime, target.number) == ("onnx", (1, 15, 1))
    assert [one.runtime for one in targets_of_library("ncnn")] == ["ncnn"]
    assert targets_of_library("panel") == []
    with pytest.raises(TargetError, match=r"tflite-runtime==2\.14\.0"):
        targets_of_library("tflite-runtime")


def test_a_machine_of_the_table_is_a_target_for_each_of_its_runtimes():
    pi = targets_of_machine("armv7l/3.11")
    old = targets_of_machine("i686/3.11")

    assert [one.runtime for one in pi][:1] == ["tflite"]
    assert [one.runtime for one in old] == ["ncnn"]
    assert targets_of_machine("panel") == []
    with pytest.raises(TargetError, match=r"there is no machine vax/3\.11: choose from aarch64"):
        targets_of_machine("vax/3.11")


def test_a_device_is_a_target_for_what_works_there(device_facts):
    device = Device("d1", "kiosk", "0" * 64, datetime.now(UTC), facts=device_facts)

    (target,) = targets_of_device(device)

    assert (target.runtime, target.library, target.version) == ("onnx", "onnxruntime", "1.23.2")


def test_the_onnxruntime_that_is_installed_loads_what_the_table_says():
    import onnxruntime as installed

    newest = loads_of(onnxruntime(installed.__version__))

    content = model_of(RELU, newest.opset, newest.ir)
    assert logits_of_onnx(content, np.zeros((1, 4), np.float32)).shape == (1, 4)
