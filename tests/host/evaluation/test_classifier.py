"""Which ONNX files are classifiers of images, and what their answers stand for."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from host.evaluation.classifier import (
    Classifier,
    ClassifierError,
    Normalisation,
    class_columns,
    preprocessing_for,
    read_classifier,
)
from host.preprocessing import Preprocessing

TRAINING = Preprocessing(8, 8, 1, (0.4,), (0.2,))


def model(
    shape: list[Any],
    metadata: dict[str, str] | None = None,
    *,
    count: int = 2,
    kind: int = TensorProto.FLOAT,
    outputs: int = 1,
) -> bytes:
    """Pooled over the image, then a linear layer."""
    channels = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 1
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["y0"]),
        *(helper.make_node("Identity", ["y0"], [f"y{n}"]) for n in range(1, outputs)),
    ]
    weight = np.linspace(-1, 1, channels * count, dtype=np.float32).reshape(channels, count)
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", kind, shape)],
        [
            helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, [1, count])
            for n in range(outputs)
        ],
        [numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, metadata or {})
    return made.SerializeToString()


def read(content: bytes) -> Classifier:
    return read_classifier(Path("mine.onnx"), content)


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_input_and_one_output_make_a_classifier(batch: Any, channels: int) -> None:
    found = read(model([batch, channels, 8, 12]))

    assert (found.channels, found.height, found.width) == (channels, 8, 12)
    images = np.zeros((2, channels, 8, 12), np.float32)
    assert found.answers(images, 2).shape == (2, 2)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "mine.onnx"),
        (b"no model", "no ONNX model"),
        (model([1, 1, 8, 8], outputs=2), "2 outputs"),
        (model([4, 1, 8, 8]), "one image at a time"),
        (model([1, 2, 8, 8]), "1 or 3 channels"),
        (model([1, 8, 8, 3]), "1 or 3 channels"),
        (model([1, 1, "h", "w"]), "fixed height"),
        (model([1, 1, 8, 8], kind=TensorProto.UINT8), "UINT8"),
        (model([1, 1, 8]), "float32"),
        (model([1, 1, 8, 8], kind=9999), r"an unknown type \(9999\)"),
    ],
)
def test_other_files_are_told_what_they_lack(content: bytes, why: str) -> None:
    with pytest.raises(ClassifierError, match=why):
        read(content)


def test_the_wrong_number_of_outputs_names_both_numbers() -> None:
    with pytest.raises(ClassifierError, match="5 numbers, and the images have 2 classes"):
        read(model([1, 1, 8, 8], count=5)).answers(np.zeros((1, 1, 8, 8), np.float32), 2)


def test_what_the_options_say_counts_before_the_file_and_that_before_the_images() -> None:
    silent = read(model([1, 1, 8, 8]))
    telling = read(model([1, 1, 8, 8], {"mean": "[0.5]", "std": "[0.25]"}))
    given = Normalisation((0.1,), (0.3,))

    assert preprocessing_for(silent, None, TRAINING) == (TRAINING, "the training images")
    assert preprocessing_for(telling, None, TRAINING) == (
        Preprocessing(8, 8, 1, (0.5,), (0.25,)),
        "the file",
    )
    assert preprocessing_for(telling, given, TRAINING) == (
        Preprocessing(8, 8, 1, (0.1,), (0.3,)),
        "the options",
    )


@pytest.mark.parametrize(
    ("metadata", "given", "why"),
    [
        ({}, Normalisation((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)), "reads 1 channels"),
        ({}, Normalisation((0.5,), (0.0,)), "above 0"),
        ({}, Normalisation((0.5,), (math.nan,)), "not finite"),
        ({}, Normalisation((math.inf,), (0.2,)), "not finite"),
        ({"mean": "[0.5]", "std": "[NaN]"}, None, "the file has .* not finite"),
        ({"mean": "[0.5]", "std": "[1e999]"}, None, "not finite"),
        ({"mean": "[" * 100_000, "std": "[0.2]"}, None, "no list of numbers"),
        ({"mean": f"[1{'0' * 400}]", "std": "[0.2]"}, None, "no list of numbers"),
        ({"mean": "half", "std": "[0.2]"}, None, "no list of numbers"),
        ({"mean": "0.5", "std": "[0.2]"}, None, "no list of numbers"),
        ({"mean": "[0.5, 0.5]", "std": "[0.2]"}, None, "2 means and 1 deviations"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(
    metadata: dict[str, str], given: Normalisation | None, why: str
) -> None:
    with pytest.raises(ClassifierError, match=why):
        preprocessing_for(read(model([1, 1, 8, 8], metadata)), given, TRAINING)


def test_classes_are_in_the_order_of_the_folders_unless_somebody_says_otherwise() -> None:
    silent = read(model([1, 1, 8, 8]))
    telling = read(model([1, 1, 8, 8], {"classes": "scratched\ngood"}))
    folders = ("good", "scratched")

    assert class_columns(silent, None, folders) == ([0, 1], "the folders")
    assert class_columns(telling, None, folders) == ([1, 0], "the file")
    assert class_columns(telling, ("good", "scratched"), folders) == ([0, 1], "the options")


def test_other_classes_than_those_of_the_images_are_refused() -> None:
    telling = read(model([1, 1, 8, 8], {"classes": "cat\ndog"}))

    with pytest.raises(ClassifierError, match=r"tells cat, dog apart.*are of good, scratched"):
        class_columns(telling, None, ("good", "scratched"))
    assert onnx.load_from_string(telling.content).graph.name == "classifier"
