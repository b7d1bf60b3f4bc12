"""`genba export`: a model in the form that a target loads, or the operator that it lacks."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from host.__main__ import main
from host.api.model_files import check_model_file
from host.device import Device
from host.workspace import Workspace

TEXT = "r32 w0.25 hard_swish stem2 head0 | k3e3d1 | k5e3d1se | k3e3d1 | k3e1d1 | k3e1d1"
CANDIDATE = ["export", "--space", "mobile", "--candidate", TEXT]


@pytest.fixture
def gelu(tmp_path: Path) -> Path:
    """A model of opset 20, which onnxruntime 1.15 does not load."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"])], "g", [x], [y])
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


@pytest.mark.parametrize(
    ("target", "suffix"),
    [
        ("onnxruntime==1.15.1", ".onnx"),
        ("armv7l/3.11", ".tflite"),
        ("i686/3.11", ".ncnn"),
        ("ncnn", ".ncnn"),
    ],
)
def test_a_candidate_is_written_as_the_target_loads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"

    code = main([*CANDIDATE, "--for", target, "--output", str(path), "--json"])

    record = json.loads(capsys.readouterr().out)
    assert code == 0
    assert record["file"] == str(path)
    assert record["size_bytes"] == path.stat().st_size
    assert f".{record['runtime']}" == suffix
    check_model_file(path, record["runtime"])


def test_where_an_operator_is_missing_the_variant_that_is_offered_can_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = ["--for", "onnxruntime==1.7.0"]

    code = main([*CANDIDATE, *target])

    sentence = capsys.readouterr().err
    variant = sentence.split("--candidate '")[1].rstrip("'\n")
    assert code == 2
    assert "onnxruntime 1.7.0 lacks HardSwish" in sentence
    assert sentence.count("\n") == 1
    assert main(["export", "--space", "mobile", "--candidate", variant, *target]) == 0
    assert (tmp_path / "candidate.onnx").is_file()


def test_a_models_operator_that_the_target_lacks_is_named(
    gelu: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["export", str(gelu), "--for", "onnxruntime==1.15.1"])

    assert code == 2
    assert f"{gelu}: onnxruntime 1.15.1 lacks Gelu" in capsys.readouterr().err
    assert list(gelu.parent.glob("*.onnx")) == [gelu]


def test_a_model_that_fits_a_registered_device_is_written_beside_itself(
    workspace: Workspace,
    model: Path,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
) -> None:
    enrol("kiosk")

    code = main(["export", str(model), "--for", "kiosk"])

    written = model.with_name("model.onnxruntime-1.23.2.onnx")
    assert code == 0
    assert written.is_file()
    assert "kiosk (onnxruntime 1.23.2) loads" in capsys.readouterr().err


def test_an_onnx_file_becomes_ncnn_where_the_machine_has_nothing_else(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pnnx")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), model)

    code = main(["export", str(model), "--for", "i686/3.11", "--output", str(tmp_path / "m.ncnn")])

    assert code == 0, capsys.readouterr().err
    check_model_file(tmp_path / "m.ncnn", "ncnn")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--for", "ncnn"], "name a model, or both --space and --candidate"),
        (["MODEL", "--space", "mobile", "--for", "ncnn"], "name a model, or both"),
        (["MODEL", "--for", "vax/3.11"], "there is no machine vax/3.11"),
        (["MODEL", "--for", "onnxruntime"], "say its version too"),
        (["MODEL", "--for", "tflite-runtime==2.14.0"], "runs no .onnx files"),
        (["MODEL", "--for", "armv7l/3.11", "--runtime", "onnx"], "has tflite"),
        (["MODEL", "--for", "onnxruntime==1.3"], "older than onnxruntime 1.4"),
        (["MODEL", "--for", "onnxruntime==1.15.1", "--output", "MODEL"], "replace the model"),
        (["MODEL", "--for", "onnxruntime==1.15.1", "--output", "no/x.onnx"], "folder that is"),
        (["no.onnx", "--for", "onnxruntime==1.15.1"], "cannot be read"),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_one_sentence(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    told = [str(model) if each == "MODEL" else each for each in arguments]

    code = main(["export", *told])

    error = capsys.readouterr().err
    assert code == 2
    assert words in error
    assert error.count("\n") == 1
