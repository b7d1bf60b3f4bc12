"""A user's own ONNX file as an ncnn model, through the real pnnx and the real ncnn."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from host.errors import UsageError
from host.export.check import logits_of_onnx
from host.export.floor import FloorError
from host.export.metadata import metadata_of
from host.export.ncnn import NcnnProgram, logits_of_ncnn
from host.export.onnx_to_ncnn import ncnn_of_onnx
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from tests.host.network.networks import MOBILE_TEXTS, mobile

pytest.importorskip("pnnx")
pytest.importorskip("ncnn")


class Branches(nn.Module):
    """What people write who never heard of ncnn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depth, self.head = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.Linear(16, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.norm(self.stem(pixels)))
        both = torch.cat([self.depth(x), nn.functional.max_pool2d(x, 2)], 1)
        answer: torch.Tensor = self.head(both.mean((2, 3))).softmax(1)
        return answer


def exported(module: nn.Module) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.onnx")
        torch.onnx.export(
            module.eval(),
            (torch.randn(1, 3, 16, 16),),
            path,
            input_names=["pixels"],
            output_names=["shares"],
            opset_version=17,
            dynamo=False,
        )
        return path.read_bytes()


def one_operator(name: str, *more: str) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    graph = helper.make_graph([helper.make_node(name, ["x", *more], ["y"])], "g", [x], [y], [one])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def test_a_network_of_torch_answers_as_its_onnx_file_under_the_same_names():
    torch.manual_seed(0)
    model = exported(Branches())
    inputs = np.random.default_rng(1).standard_normal((4, 3, 16, 16), dtype=np.float32)

    made = ncnn_of_onnx(model)

    program = NcnnProgram(made)
    assert (program.inputs, program.outputs) == ({"pixels": (3, 16, 16)}, ("shares",))
    assert np.abs(logits_of_ncnn(made, inputs) - logits_of_onnx(model, inputs)).max() < 1e-5


def test_a_file_of_ours_keeps_its_metadata():
    network = mobile(MOBILE_TEXTS[0])
    model = onnx_bytes(network, random_weights(network, seed=0), {"classes": "良品\nNG"})

    assert metadata_of(ncnn_of_onnx(model)) == {"classes": "良品\nNG"}


@pytest.mark.parametrize(
    ("name", "more"), [("CumSum", ["one"]), ("Erf", []), ("Det", [])], ids=["cumsum", "erf", "det"]
)
def test_what_ncnn_cannot_run_is_refused_by_the_operators_name(name, more):
    with pytest.raises(FloorError, match=f"lacks {name},") as caught:
        ncnn_of_onnx(one_operator(name, *more))

    assert caught.value.operators == (name,)


def test_an_input_of_open_size_is_refused():
    model = onnx.load_from_string(exported(Branches()))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"

    with pytest.raises(UsageError, match="'pixels' of the model must be float32"):
        ncnn_of_onnx(model.SerializeToString())
