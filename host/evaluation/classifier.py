"""A user's ONNX file as a classifier of images: what it reads, and what its answers stand for."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from host.errors import UsageError
from host.export.check import Floats, logits_of_onnx
from host.export.errors import ExportError
from host.export.metadata import metadata_of, parse
from host.preprocessing import Channels, Preprocessing

PreprocessingSource = Literal["the file", "the options", "the training images"]
LabelsSource = Literal["the file", "the options", "the folders"]


class ClassifierError(UsageError):
    """The file is not a classifier of such images."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """An ONNX file with one image input (1, C, H, W) and one output with a number for each class.

    `metadata` are the file's `metadata_props`.
    """

    name: str
    content: bytes
    channels: Channels
    height: int
    width: int
    metadata: Mapping[str, str]

    def answers(self, images: Floats, classes: int) -> Floats:
        """The numbers (N, classes) for normalised images (N, C, H, W).

        Raises ClassifierError where there are not so many of them, or they are not finite.
        """
        try:
            numbers = logits_of_onnx(self.content, images)
        except ExportError as error:
            raise ClassifierError(f"{self.name}: {error}") from error
        if numbers.ndim != 2 or numbers.shape[1] != classes:
            sizes = "x".join(map(str, numbers.shape[1:])) or "1"
            raise ClassifierError(
                f"{self.name} answers an image with {sizes} numbers, and the images have {classes}"
                " classes: one number for each class is needed"
            )
        return numbers


def read_classifier(path: Path, content: bytes) -> Classifier:
    """The classifier in an ONNX file's bytes. Raises ClassifierError."""
    try:
        proto = parse(content)
    except ExportError as error:
        raise ClassifierError(f"{path}: {error}") from error
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        raise ClassifierError(
            f"{path} has {len(inputs)} inputs and {len(proto.graph.output)} outputs: a classifier"
            " of images has one of each"
        )
    channels, height, width = _image_shape(path, inputs[0])
    return Classifier(path.name, content, channels, height, width, metadata_of(content))


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of each channel, for (pixel / 255 - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def preprocessing_for(
    classifier: Classifier, given: Normalisation | None, of_training: Preprocessing
) -> tuple[Preprocessing, PreprocessingSource]:
    """How images become what the classifier reads, and who says so.

    What the user has `given` counts before what the file says, and that before the mean and
    deviation of the training images. Raises ClassifierError where it does not fit the channels.
    """
    stated = _stated_by(classifier)
    chosen = given or stated
    if chosen is None:
        return of_training, "the training images"
    source: PreprocessingSource = "the file" if given is None else "the options"
    if {len(chosen.mean), len(chosen.std)} != {classifier.channels}:
        raise ClassifierError(
            f"{classifier.name} reads {classifier.channels} channels, and {source} has"
            f" {len(chosen.mean)} means and {len(chosen.std)} deviations: one of each a channel"
        )
    if not all(map(math.isfinite, (*chosen.mean, *chosen.std))) or min(chosen.std) <= 0:
        raise ClassifierError(
            f"{classifier.name}: {source} has a mean or a deviation (std) that is not finite, or a"
            " deviation that is not above 0: say --mean and --std"
        )
    return (
        Preprocessing(
            classifier.height, classifier.width, classifier.channels, chosen.mean, chosen.std
        ),
        source,
    )


def class_columns(
    classifier: Classifier, given: Sequence[str] | None, classes: Sequence[str]
) -> tuple[list[int], LabelsSource]:
    """The column of each of the `classes` in the classifier's answers, and who says so.

    Raises ClassifierError where the names are not those of the classes.
    """
    stated = classifier.metadata.get("classes", "").splitlines()
    names = list(given) if given is not None else stated
    if not names:
        return list(range(len(classes))), "the folders"
    source: LabelsSource = "the file" if given is None else "the options"
    if sorted(names) != sorted(classes):
        raise ClassifierError(
            f"{classifier.name} tells {', '.join(names)} apart, as {source} says, and the images"
            f" are of {', '.join(classes)}: name the same classes with --labels FILE, one a line in"
            " the order of the model's outputs"
        )
    return [names.index(name) for name in classes], source


def _image_shape(path: Path, value: onnx.ValueInfoProto) -> tuple[Channels, int, int]:
    tensor = value.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
    shown = ", ".join(str(size) if size > 0 else "?" for size in sizes)
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4:
        raise ClassifierError(
            f"{path} reads [{shown}] of {_type_name(tensor.elem_type)}: an image as"
            " float32 (1, channels, height, width) is needed"
        )
    batch, channels, height, width = sizes
    if batch > 1 or height < 1 or width < 1 or channels not in (1, 3):
        raise ClassifierError(
            f"{path} reads [{shown}]: one image at a time, of 1 or 3 channels and of a fixed height"
            " and width, is needed (1, channels, height, width)"
        )
    return 1 if channels == 1 else 3, height, width


def _type_name(number: int) -> str:
    """A file may name a type that no version of ONNX knows."""
    names = {known: name for name, known in onnx.TensorProto.DataType.items()}
    return names.get(number, f"an unknown type ({number})")


def _stated_by(classifier: Classifier) -> Normalisation | None:
    """What genba wrote into the file; None where somebody else made it."""
    metadata = classifier.metadata
    if "mean" not in metadata or "std" not in metadata:
        return None
    return Normalisation(_numbers(classifier, "mean"), _numbers(classifier, "std"))


def _numbers(classifier: Classifier, key: str) -> tuple[float, ...]:
    try:
        found = json.loads(classifier.metadata[key])
        return tuple(float(number) for number in found)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ClassifierError(
            f"{classifier.name} has the property {key}, which is no list of numbers: say --mean and"
            " --std"
        ) from error
