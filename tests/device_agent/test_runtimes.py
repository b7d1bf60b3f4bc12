"""What every runtime must do, on real libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent.errors import ModelRejectedError, NoRuntimeError, ResourceError
from device_agent.runtimes.catalogue import LIBRARIES, RUNTIMES, open_runtime


def usable(name: str) -> Any:
    pytest.importorskip(LIBRARIES[name])
    return open_runtime(name)


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> Any:
    return usable(request.param)


@pytest.fixture
def model_file(tmp_path: Path) -> Any:
    def write(data: bytes) -> Any:
        path = tmp_path / "model"
        path.write_bytes(data)
        return path

    return write


def test_every_runtime_knows_its_library_and_version(runtime: Any) -> None:
    assert runtime.library == LIBRARIES[runtime.name]
    assert runtime.version


def test_every_runtime_passes_its_own_test(runtime: Any) -> None:
    runtime.self_test()


def test_every_runtime_refuses_a_file_that_is_no_model(runtime: Any, model_file: Any) -> None:
    with pytest.raises(ModelRejectedError, match="refuses"):
        runtime.load(model_file(b"not a model at all"), 1)


def test_an_unknown_runtime_is_named_with_those_that_are_known() -> None:
    with pytest.raises(NoRuntimeError, match=r"'caffe'.*onnx"):
        open_runtime("caffe")


@pytest.fixture
def onnx_runtime() -> Any:
    return usable("onnx")


def test_a_model_runs_with_the_batch_set_to_one(
    onnx_runtime: Any, model_file: Any, conv_model: bytes
) -> None:
    model = onnx_runtime.load(model_file(conv_model), 2)

    model.make_inputs(1)
    model.run()

    assert model._inputs["x"].shape == (1, 32, 56, 56)


def test_every_option_that_matters_is_stated(
    onnx_runtime: Any, model_file: Any, conv_model: bytes
) -> None:
    model = onnx_runtime.load(model_file(conv_model), 2)

    assert "intra_op_num_threads=2" in model.options
    assert "graph_optimization_level=ORT_ENABLE_ALL" in model.options
    assert "session.intra_op.allow_spinning=0" in model.options
    assert "providers=CPUExecutionProvider" in model.options


def test_the_same_seed_makes_the_same_inputs(
    onnx_runtime: Any, model_file: Any, conv_model: bytes
) -> None:
    model = onnx_runtime.load(model_file(conv_model), 1)

    model.make_inputs(7)
    first = model._inputs["x"]
    model.make_inputs(7)

    assert (first == model._inputs["x"]).all()


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (("batch", 3, "height", "width"), "axis 2 .height."),
        ((1, None), "axis 1 .unnamed."),
        ((1, 0), "is empty"),
    ],
)
def test_a_shape_that_is_not_fixed_is_refused(
    onnx_runtime: Any, model_file: Any, make_model: Callable[..., bytes], shape: Any, problem: Any
) -> None:
    model = onnx_runtime.load(model_file(make_model(shape)), 1)

    with pytest.raises(ModelRejectedError, match=problem):
        model.make_inputs(1)


@pytest.mark.parametrize(
    "type_name", ["FLOAT", "DOUBLE", "FLOAT16", "UINT8", "INT8", "INT32", "INT64", "BOOL"]
)
def test_inputs_of_every_usual_type_are_made(
    onnx_runtime: Any, model_file: Any, make_model: Callable[..., bytes], type_name: Any
) -> None:
    onnx = pytest.importorskip("onnx")
    data = make_model((1, 4), input_type=getattr(onnx.TensorProto, type_name))
    model = onnx_runtime.load(model_file(data), 1)

    model.make_inputs(1)
    model.run()


def test_inputs_of_a_type_that_cannot_be_made_up_are_refused(
    onnx_runtime: Any, model_file: Any, make_model: Callable[..., bytes]
) -> None:
    onnx = pytest.importorskip("onnx")
    data = make_model((1, 4), input_type=onnx.TensorProto.STRING)
    model = onnx_runtime.load(model_file(data), 1)

    with pytest.raises(ModelRejectedError, match="string"):
        model.make_inputs(1)


def test_an_input_larger_than_memory_is_a_matter_of_resources(
    onnx_runtime: Any, model_file: Any, make_model: Callable[..., bytes]
) -> None:
    model = onnx_runtime.load(model_file(make_model((1, 1 << 40))), 1)

    with pytest.raises(ResourceError, match="does not fit"):
        model.make_inputs(1)
