"""`genba quantize`: an int8 file of one's own classifier, what it costs, and bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from host.__main__ import main

SIDE = 16
Array = npt.NDArray[np.float32]


def network(path: Path, head: Array, *, convolutions: int = 3) -> Path:
    """Convolutions, pooled over the image, and a linear head of (channels, classes)."""
    rng = np.random.default_rng(0)
    weights: dict[str, npt.NDArray[Any]] = {"head": head}
    nodes, last, channels = [], "image", 1
    for number in range(convolutions):
        low, width = (0.0 if number == 0 else -0.1), len(head)
        weights[f"w{number}"] = rng.uniform(low, 0.2, (width, channels, 3, 3))
        before, after = f"conv{number}", f"relu{number}"
        nodes += [
            helper.make_node("Conv", [last, f"w{number}"], [before], name=before),
            helper.make_node("Relu", [before], [after]),
        ]
        last, channels = after, width
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, head.shape[1]])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


def nearly_alike() -> Array:
    """A head whose answers differ by less than a step of int8."""
    head = np.linspace(0.2, 1.0, 16, dtype=np.float32)[:, np.newaxis]
    return np.hstack([head * 1.0001, head])


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Tells bright from dark."""
    head = np.linspace(0.2, 1.0, 16, dtype=np.float32)[:, np.newaxis]
    return network(tmp_path / "mine.onnx", np.hstack([head, -head]))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images of two classes that overlap a little."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for name, level in (("bright", 135), ("dark", 115)):
        (root / name).mkdir()
        for number in range(40):
            mean = level + rng.normal(0, 12)
            pixels = rng.normal(mean, 30, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def metadata(path: Path) -> dict[str, str]:
    return {prop.key: prop.value for prop in onnx.load(path).metadata_props}


def test_an_int8_file_is_written_that_runs_and_is_as_good(
    mine: Path, photos: Path, loaded: Any
) -> None:
    found = loaded("quantize", mine, "--data", photos)

    int8 = mine.with_name("mine.int8.onnx")
    assert found["int8_file"] == str(int8)
    assert found["int8_size_bytes"] == int8.stat().st_size
    assert found["measure"] == "AUROC"
    assert found["part"] == "validation"
    for which in ("before", "after"):
        auroc = found[which]["auroc"]
        assert auroc["low"] < auroc["value"] <= auroc["high"]
        assert found[which]["accuracy"]["n"] == 16
    before, after = (found[which]["auroc"]["value"] for which in ("before", "after"))
    assert before > 0.7
    assert found["drop"] == pytest.approx(before - after)
    assert found["drop"] <= 0.02
    assert found["calibration_images"] == 48
    assert found["speed"] == "not measured"
    session = ort.InferenceSession(int8.read_bytes(), providers=["CPUExecutionProvider"])
    image = np.zeros((1, 1, SIDE, SIDE), np.float32)
    assert session.run(None, {"image": image})[0].shape == (1, 2)
    kinds = {node.op_type for node in onnx.load(int8).graph.node}
    assert "DequantizeLinear" in kinds


def test_the_file_says_how_to_give_it_images_and_is_judged_alike_from_then_on(
    mine: Path, photos: Path, loaded: Any
) -> None:
    first = loaded("quantize", mine, "--data", photos)
    int8 = Path(first["int8_file"])

    found = metadata(int8)

    assert first["preprocessing_from"] == "the training images"
    assert found["classes"] == "bright\ndark"
    assert found["input_size"] == f"{SIDE}x{SIDE}"
    assert json.loads(found["mean"]) == first["mean"]
    assert json.loads(found["std"]) == first["std"]
    assert found["colour_order"] == "grey"


def test_what_the_options_say_is_used_and_written(
    mine: Path, photos: Path, tmp_path: Path, loaded: Any
) -> None:
    (tmp_path / "labels.txt").write_text("dark\nbright\n")
    out = tmp_path / "other.onnx"

    found = loaded(
        *("quantize", mine, "--data", photos, "--out", out, "--mean", "0.5", "--std", "0.25"),
        *("--labels", tmp_path / "labels.txt"),
    )

    assert (found["mean"], found["std"]) == ([0.5], [0.25])
    assert (found["preprocessing_from"], found["labels_from"]) == ("the options", "the options")
    assert found["before"]["auroc"]["value"] < 0.3
    assert metadata(out)["classes"] == "dark\nbright"


def test_the_table_says_sizes_accuracies_layers_and_that_speed_is_not_known(
    mine: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["quantize", str(mine), "--data", str(photos)])

    printed = capsys.readouterr()
    assert code == 0
    assert "mine.int8.onnx" in printed.err  # the table folds a long path
    assert "on 16 validation images, calibrated on 48 training images" in printed.out
    assert "layers that stayed float: none" in printed.out
    assert "measure whether it is faster: genba measure" in printed.err


def test_a_layer_that_int8_would_spoil_stays_float(
    tmp_path: Path, photos: Path, loaded: Any
) -> None:
    fragile = network(tmp_path / "fragile.onnx", nearly_alike(), convolutions=6)

    found = loaded("quantize", fragile, "--data", photos)

    assert found["float_layers"] == ["head"]
    assert found["drop"] <= 0.02


def test_what_loses_too_much_all_the_same_is_not_written(
    tmp_path: Path, photos: Path, said: Any
) -> None:
    fragile = network(tmp_path / "fragile.onnx", nearly_alike(), convolutions=2)

    message = said("quantize", fragile, "--data", photos, code=1)

    assert "more than the 0.02 allowed" in message
    assert not fragile.with_name("fragile.int8.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("none.onnx", "--data", "PHOTOS"), "none.onnx is no ONNX file"),
        (("text.txt", "--data", "PHOTOS"), "text.txt is no ONNX file"),
        (("text.onnx", "--data", "PHOTOS"), "text.onnx"),
        (("mine.onnx",), "--data"),
        (("mine.onnx", "--data", "nowhere"), "nowhere"),
        (("mine.onnx", "--data", "PHOTOS", "--out", "mine.onnx"), "would replace"),
        (("mine.onnx", "--data", "PHOTOS", "--out", "no/int8.onnx"), "in a folder that is there"),
        (("mine.onnx", "--data", "PHOTOS", "--max-drop", "2"), "--max-drop"),
        (("five.onnx", "--data", "PHOTOS"), "5 numbers, and the images have 2 classes"),
    ],
)
def test_what_cannot_be_quantised_is_one_sentence_and_ends_with_2(
    mine: Path,
    photos: Path,
    arguments: tuple[str, ...],
    why: str,
    said: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(mine.parent)
    network(Path("five.onnx"), np.ones((16, 5), np.float32))
    for name in ("text.txt", "text.onnx"):
        Path(name).write_text("no model at all")

    command = [str(photos) if part == "PHOTOS" else part for part in arguments]

    assert why in said("quantize", *command, code=2)
    assert not Path("mine.int8.onnx").exists()
