"""A user's own ONNX classifier in int8: what works, and one sentence for what does not."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from host.errors import UsageError
from host.export.check import compare_logits, logits_of_onnx
from host.export.errors import ExportError, NoGainError
from host.export.metadata import parse
from host.export.onnx_files import OnnxFileError, prepared, quantize_onnx_file


class Classifier(torch.nn.Module):
    """With normalisations that an exporter has left as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 3, 2, 1),
            torch.nn.BatchNorm2d(32),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(3, 2, 1),
            torch.nn.Conv2d(32, 128, 3, 1, 1, groups=2),
            torch.nn.BatchNorm2d(128),
            torch.nn.Hardswish(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(128, 4),
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    made = Classifier().train()
    with torch.no_grad():
        for _ in range(10):
            made(torch.randn(8, 3, 32, 32))
    return made.eval()


def export(module, path, *, opset=17, example=(1, 3, 32, 32), open_batch=False):
    axes = {"input": {0: "batch"}, "output": {0: "batch"}} if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(example),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return path


def images(count=40, shape=(3, 32, 32)):
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17])
@pytest.mark.parametrize("open_batch", [False, True])
def test_files_of_many_opsets_are_quantised(module, tmp_path, opset, open_batch):
    path = export(module, tmp_path / "own.onnx", opset=opset, open_batch=open_batch)

    found = quantize_onnx_file(path, images(), images(), max_drop=0.2)

    model = parse(found.model)
    onnx.checker.check_model(model)
    operators = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in operators
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert len(found.model) < 0.8 * path.stat().st_size
    wanted = logits_of_onnx(path.read_bytes(), images())
    agreement = compare_logits(wanted, logits_of_onnx(found.model, images())).same_answer_fraction
    assert agreement == 1 - found.drop >= 0.8
    assert found.float_layers == ()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_later_opsets_stay_as_they_are(module, tmp_path):
    path = export(module, tmp_path / "own.onnx")
    model = onnx.load(path)
    later = tmp_path / "later.onnx"
    onnx.save(onnx.version_converter.convert_version(model, 21), later)

    found = quantize_onnx_file(later, images(), images(), max_drop=0.2)

    assert [entry.version for entry in parse(found.model).opset_import if not entry.domain] == [21]


def test_the_quality_of_the_data_decides_where_it_is_known(module, tmp_path):
    path = export(module, tmp_path / "own.onnx")

    with pytest.raises(NoGainError, match=r"in quality, more than the 0\.5 allowed"):
        quantize_onnx_file(path, images(), images(), max_drop=0.5, quality=exactly_first())


def exactly_first():
    seen = []

    def quality(logits):
        seen.append(logits)
        return float(np.array_equal(logits, seen[0]))

    return quality


def test_signals_are_quantised_too(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv1d(2, 16, 9, 4),
        torch.nn.ReLU(),
        torch.nn.Conv1d(16, 16, 3, 2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 3),
    )
    path = export(network.eval(), tmp_path / "signal.onnx", example=(1, 2, 256))
    signals = images(shape=(2, 256))

    found = quantize_onnx_file(path, signals, signals, max_drop=0.3)

    assert logits_of_onnx(found.model, signals).shape == (40, 3)


def test_preparing_changes_no_answer(module, tmp_path):
    path = export(module, tmp_path / "own.onnx", opset=9, open_batch=True)

    wanted, found = (
        logits_of_onnx(path.read_bytes(), images()),
        logits_of_onnx(prepared(path), images()),
    )

    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_file_need_not_declare_the_shape_of_its_output(module, tmp_path):
    path = export(module, tmp_path / "own.onnx")
    whole = quantize_onnx_file(path, images(), images(), max_drop=0.2)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)

    found = quantize_onnx_file(path, images(), images(), max_drop=0.2)

    np.testing.assert_array_equal(
        logits_of_onnx(found.model, images()), logits_of_onnx(whole.model, images())
    )


def test_the_properties_and_the_producer_stay(module, tmp_path):
    path = export(module, tmp_path / "own.onnx")
    model = onnx.load(path)
    model.metadata_props.add(key="owner", value="plant 3")
    onnx.save(model, path)

    found = parse(quantize_onnx_file(path, images(), images(), max_drop=0.2).model)

    assert {prop.key: prop.value for prop in found.metadata_props} == {"owner": "plant 3"}
    assert found.producer_name == "pytorch"


def relu(path, *, inputs=1, shape=(1, 3, 8, 8), kind=TensorProto.FLOAT, op="Relu", domain=""):
    """A file of one operator that nobody can classify with."""
    values = [helper.make_tensor_value_info(f"x{i}", kind, shape) for i in range(inputs)]
    out = helper.make_tensor_value_info("y", kind, shape)
    node = helper.make_node(op, ["x0"], ["y"], domain=domain)
    graph = helper.make_graph([node], "g", values, [out])
    opsets = [helper.make_opsetid("", 17)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"inputs": 2}, "has 2 inputs and 1 outputs"),
        ({"shape": (4, 3, 8, 8)}, "a batch of 1 or an open one"),
        ({"shape": (1, 3, "h", "w")}, "all else fixed"),
        ({"shape": (1, 9)}, "must be float32"),
        ({"kind": TensorProto.DOUBLE}, "must be float32"),
        ({"domain": "own.corp", "op": "Magic"}, "uses operators of own.corp"),
        ({}, r"writes \[3, 8, 8\] numbers for an image"),
    ],
)
def test_what_does_not_work_is_a_sentence(tmp_path, made, sentence):
    path = relu(tmp_path / "odd.onnx", **made)

    with pytest.raises(OnnxFileError, match=sentence) as raised:
        prepared(path)
    assert isinstance(raised.value, UsageError)
    assert str(path) in str(raised.value)


def single_number(model):
    """The mean of what it wrote, in place of that."""
    node = helper.make_node("ReduceMean", ["y"], ["m"], keepdims=0)
    model.graph.node.append(node)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("m", TensorProto.FLOAT, ()))


def list_of_tensors(model):
    """What it wrote, in a list."""
    model.graph.node.append(helper.make_node("SequenceConstruct", ["y"], ["s"]))
    value = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    model.graph.output[0].CopyFrom(value)


@pytest.mark.parametrize("change", [single_number, list_of_tensors])
def test_a_file_that_writes_no_row_is_refused(tmp_path, change):
    path = relu(tmp_path / "odd.onnx")
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)

    with pytest.raises(OnnxFileError, match=r"odd\.onnx .* something else than rows of numbers"):
        prepared(path)


def test_a_quantised_file_is_refused(module, tmp_path):
    path = export(module, tmp_path / "own.onnx")
    again = tmp_path / "int8.onnx"
    again.write_bytes(quantize_onnx_file(path, images(), images(), max_drop=0.2).model)

    with pytest.raises(OnnxFileError, match="quantised already"):
        quantize_onnx_file(again, images(), images(), max_drop=0.2)


@pytest.mark.parametrize("opset", [6, 22])
def test_other_opsets_are_refused(module, tmp_path, opset):
    path = export(module, tmp_path / "own.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)

    with pytest.raises(OnnxFileError, match=f"is of opset {opset}: export it with one from 7"):
        prepared(path)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(OnnxFileError, match="cannot be read"):
        prepared(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(OnnxFileError, match="not an ONNX file or is damaged"):
        prepared(broken)
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    with pytest.raises(OnnxFileError, match="opset 0"):
        prepared(empty)


def test_images_that_do_not_fit_are_refused(module, tmp_path):
    path = export(module, tmp_path / "own.onnx")

    with pytest.raises(ExportError, match=r"reads images of \[3, 32, 32\], it got"):
        quantize_onnx_file(path, images(shape=(3, 16, 16)), images(), max_drop=0.2)
    with pytest.raises(ExportError, match="calibration images"):
        quantize_onnx_file(path, images(0), images(), max_drop=0.2)


def test_a_file_that_a_runtime_cannot_run_is_refused(tmp_path):
    weight = numpy_helper.from_array(np.ones((4, 7, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8))
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    path = tmp_path / "misfit.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)

    with pytest.raises(OnnxFileError, match=r"misfit\.onnx"):
        prepared(path)
