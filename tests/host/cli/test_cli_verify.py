"""`genba verify`: outputs of a device against those that are expected."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper

from device_agent.reference import REFERENCE_FOLDER
from host.__main__ import main
from host.cli.expected import ArraysError, expected_outputs
from host.device import Device
from host.export.check import logits_of_onnx
from host.job import Job
from host.measurement import MeasurementFailure, VerifiedOutputs, VerifySpec
from host.network.graph import Conv, GlobalPool, Linear, NetworkBuilder
from host.network.ncnn_model import ncnn_bytes
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.store import Store
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.cli.conftest import Answer, MadeUpDevice

Arrays = Mapping[str, Any]
INPUTS = np.array([[-1, 2, -3, 4], [5, -6, 7, -8], [0, 0, 0, 0]], dtype=np.float32)
RIGHT = np.maximum(INPUTS, 0)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Three examples for the model of these tests, which is one Relu."""
    np.savez(tmp_path / "inputs.npz", x=INPUTS)
    return tmp_path / "inputs.npz"


@pytest.fixture
def answering(workspace: Workspace) -> "Callable[[Arrays], Answer]":
    """Answers verify jobs with these outputs."""

    def with_outputs(outputs: Arrays) -> "Answer":
        buffer = io.BytesIO()
        np.savez(buffer, **outputs)

        def answer(job: Job) -> VerifiedOutputs:
            assert isinstance(job.spec, VerifySpec)
            assert len(buffer.getvalue()) <= job.spec.max_output_bytes
            with workspace.open_store() as store:
                blob = store.blobs.put(buffer.getvalue())
            return VerifiedOutputs(
                device_id=job.device_id,
                run=job.spec.run,
                inputs_sha256=job.spec.inputs_sha256,
                runtime_library="onnxruntime",
                runtime_version="1.16.3",
                runtime_options=(),
                outputs_sha256=blob.sha256,
                outputs_size_bytes=blob.size_bytes,
                examples=len(INPUTS),
                verified_at=job.created_at,
            )

        return answer

    return with_outputs


def test_outputs_that_agree_with_this_machine_pass(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    answering: "Callable[[Arrays], Answer]",
    model: Path,
    inputs: Path,
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = start_device("kiosk", answering({"y": RIGHT * np.float32(1.0001)}))

    code = main(["verify", str(model), "--device", "kiosk", "--inputs", str(inputs)])

    output = capsys.readouterr().out
    spec = device.done[0].spec
    assert isinstance(spec, VerifySpec)
    assert plant_store.blobs.get(spec.inputs_sha256) == inputs.read_bytes()
    assert code == 0
    assert "model.onnx on kiosk: 3 examples, onnxruntime 1.16.3 against onnxruntime" in output
    assert "PASSED: All outputs agree" in output
    assert "100.0%" in output


def test_outputs_that_differ_end_with_1_and_name_the_worst_example(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    answering: "Callable[[Arrays], Answer]",
    model: Path,
    inputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = RIGHT.copy()
    wrong[1] = [9.03, 10, 0, 0]
    start_device("kiosk", answering({"y": wrong}))

    code = main(["verify", str(model), "--device", "kiosk", "--inputs", str(inputs), "--json"])

    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert code == 1
    assert record["passed"] is False
    assert record["outputs"][0]["max_absolute_error"] == 10.0
    assert record["outputs"][0]["worst_example"] == 1
    assert record["top1_agreement"] == pytest.approx(2 / 3)
    assert "model.onnx does not answer on kiosk as expected" in captured.err


def test_the_tolerance_and_the_expected_outputs_can_be_given(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    answering: "Callable[[Arrays], Answer]",
    model: Path,
    inputs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "expected.npz", y=RIGHT + np.float32(0.4))
    start_device("kiosk", answering({"y": RIGHT}))
    command = ["verify", str(model), "--device", "kiosk", "--inputs", str(inputs)]
    command += ["--expected", str(tmp_path / "expected.npz"), "--rtol", "0"]

    codes = [main([*command, "--atol", tolerance]) for tolerance in ("0.3", "0.5")]

    captured = capsys.readouterr()
    assert codes == [1, 0]
    assert "FAILED" in captured.out
    assert "against" in captured.out
    assert "run before; --again runs it anew" in captured.err


def test_numbers_that_are_not_finite_are_valid_json(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    answering: "Callable[[Arrays], Answer]",
    model: Path,
    inputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", answering({"y": np.full_like(RIGHT, np.nan)}))

    main(["verify", str(model), "--device", "kiosk", "--inputs", str(inputs), "--json"])

    (output,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["outputs"]
    assert output["is_finite"] is False
    assert output["max_absolute_error"] is None


def test_a_device_that_cannot_answer_says_why(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    model: Path,
    inputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device(
        "kiosk",
        lambda job: MeasurementFailure(
            job.device_id, None, "resource", "the outputs are too large", job.created_at
        ),
    )

    code = main(["verify", str(model), "--device", "kiosk", "--inputs", str(inputs)])

    assert code == 1
    assert "kiosk failed at verifying model.onnx: resource:" in capsys.readouterr().err


def _text(path: Path) -> None:
    path.write_text("x: 1, 2, 3")


def _objects(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


def _single(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, INPUTS)


def _none(path: Path) -> None:
    np.savez(path)


def _other_name(path: Path) -> None:
    np.savez(path, INPUTS)


def _other_type(path: Path) -> None:
    np.savez(path, x=INPUTS.astype(np.float64))


def _other_shape(path: Path) -> None:
    np.savez(path, x=np.zeros((3, 5), np.float32))


def _no_examples(path: Path) -> None:
    np.savez(path, x=np.zeros((0, 4), np.float32))


@pytest.mark.parametrize(
    ("spoil", "because"),
    [
        (Path.unlink, "cannot be read"),
        (_text, "is not an .npz file of plain arrays"),
        (_objects, "is not an .npz file of plain arrays"),
        (_single, "is a single array"),
        (_none, "holds no array"),
        (_other_name, "the model's inputs are x, and the file of inputs has arr_0"),
        (_other_type, "refuses these inputs"),
        (_other_shape, "refuses these inputs"),
        (_no_examples, "the same number of whole batches"),
    ],
)
def test_inputs_that_do_not_fit_end_with_2_before_the_device_is_asked(
    served: Workspace,
    enrol: Callable[[str], Device],
    plant_store: Store,
    model: Path,
    inputs: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    because: str,
) -> None:
    device = enrol("kiosk")
    spoil(inputs)

    code = main(["verify", str(model), "--device", "kiosk", "--inputs", str(inputs)])

    error = capsys.readouterr().err
    assert code == 2
    assert because in error
    assert error.count("\n") == 1
    assert plant_store.jobs.waiting(device.id) == 0


def test_expected_outputs_of_another_number_of_examples_are_a_failed_verification(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    answering: "Callable[[Arrays], Answer]",
    model: Path,
    inputs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", answering({"y": RIGHT}))
    np.savez(tmp_path / "expected.npz", y=RIGHT[:2])
    command = ["verify", str(model), "--device", "kiosk", "--inputs", str(inputs)]

    code = main([*command, "--expected", str(tmp_path / "expected.npz")])

    assert code == 1
    assert "(2, 4) is expected" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("batch", "examples", "runs"), [(2, 4, 2), ("n", 3, 3), (2, 3, 0)])
def test_examples_are_cut_into_the_batches_that_a_model_takes(
    tmp_path: Path, batch: int | str, examples: int, runs: int
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y, total])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    arrays = {"x": np.arange(examples * 2, dtype=np.float32).reshape(-1, 2)}

    if not runs:
        with pytest.raises(ArraysError, match=r"x 3 \(in batches of 2\)"):
            expected_outputs(tmp_path / "m.onnx", "onnx", arrays)
        return
    outputs = expected_outputs(tmp_path / "m.onnx", "onnx", arrays).outputs

    assert outputs["y"].tolist() == arrays["x"].tolist()
    assert outputs["total"].shape == (runs,)


def test_a_model_that_this_machine_cannot_load_ends_with_2(
    served: Workspace,
    enrol: Callable[[str], Device],
    tmp_path: Path,
    inputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enrol("kiosk")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Nosuch", ["x"], ["y"], domain="a")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("a", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(made, tmp_path / "custom.onnx")

    code = main(
        ["verify", str(tmp_path / "custom.onnx"), "--device", "kiosk", "--inputs", str(inputs)]
    )

    assert code == 2
    assert "onnxruntime here cannot load" in capsys.readouterr().err


def test_a_tflite_model_is_expected_to_answer_as_litert_here(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    answering: "Callable[[Arrays], Answer]",
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, examples, outputs = _run_tiny(REFERENCE_FOLDER / "tiny.tflite")
    np.savez(tmp_path / "examples.npz", x=examples)
    start_device("kiosk", answering({name: outputs}))
    command = ["verify", str(REFERENCE_FOLDER / "tiny.tflite"), "--device", "kiosk"]

    code = main([*command, "--inputs", str(tmp_path / "examples.npz")])

    assert code == 0
    assert "against ai-edge-litert" in capsys.readouterr().out


def test_an_ncnn_model_is_expected_to_answer_as_ncnn_here(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    answering: "Callable[[Arrays], Answer]",
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    examples = np.random.default_rng(0).standard_normal((3, 2, 6, 5), dtype=np.float32)
    builder = NetworkBuilder((2, 6, 5))
    conv = builder.conv(0, Conv(4, 3), "relu")
    network = builder.build(builder.add(Linear(2), builder.add(GlobalPool(), conv)))
    weights = random_weights(network, seed=0)
    logits = logits_of_onnx(onnx_bytes(network, weights), examples)
    (tmp_path / "model.ncnn").write_bytes(ncnn_bytes(network, weights))
    np.savez(tmp_path / "examples.npz", input=examples)
    start_device("kiosk", answering({"logits": logits}))
    command = ["verify", str(tmp_path / "model.ncnn"), "--device", "kiosk"]

    code = main([*command, "--inputs", str(tmp_path / "examples.npz")])

    assert code == 0
    assert "against ncnn 1." in capsys.readouterr().out


def _run_tiny(path: Path) -> tuple[str, npt.NDArray[Any], npt.NDArray[Any]]:
    """The name of the output, three examples and what LiteRT answers to them."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (reads,), (writes,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = (3, *reads["shape"][1:])
    examples = np.linspace(-2, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    rows = []
    for example in examples:
        interpreter.set_tensor(reads["index"], example[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(writes["index"]).copy())
    return str(writes["name"]), examples, np.concatenate(rows)
