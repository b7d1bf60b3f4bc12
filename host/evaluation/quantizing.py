"""A user's classifier as int8: what it costs in quality, and what it saves in bytes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from host.evaluation.classifier import read_classifier
from host.evaluation.judging import Exam, Images, Judged, Told, exam_of
from host.export.check import Floats
from host.export.forms import spread
from host.export.metadata import input_metadata, with_metadata
from host.export.onnx_files import quantize_onnx_file

CALIBRATION_IMAGES = 128
"""Of the training part, evenly over it; the ranges of activations are what they make them."""


@dataclass(frozen=True, eq=False)
class Quantised:
    """The int8 form of a classifier, and both judged on the validation part.

    `float_layers` stayed float, because int8 hurt the answers there. Sizes are of the files.
    """

    content: bytes
    size_before_bytes: int
    before: Judged
    after: Judged
    float_layers: tuple[str, ...]
    calibration_images: int

    @property
    def size_bytes(self) -> int:
        """Of the int8 file."""
        return len(self.content)

    @property
    def drop(self) -> float:
        """By how much the quality is less; negative where it is more."""
        return self.before.quality.value - self.after.quality.value


def quantise(path: Path, images: Images, told: Told, *, max_drop: float) -> Quantised:
    """The int8 form of an ONNX file, with layers that hurt left in float.

    The file says how images become what it reads, as far as that was known. Raises ClassifierError
    where the classifier does not fit the images, OnnxFileError where the file cannot be quantised,
    and NoGainError where int8 would lose more than `max_drop` of the quality (AUROC with two
    classes, else accuracy) or save nothing.
    """
    classifier = read_classifier(path, path.read_bytes())
    classes = len(images.classes)
    exam = exam_of(classifier, images, told, "validation")
    inputs = exam.inputs()
    before = exam.judged(classifier.answers(inputs, classes))
    calibration = _calibration(exam_of(classifier, images, told, "train"))
    made = quantize_onnx_file(
        path,
        calibration,
        inputs,
        max_drop=max_drop,
        quality=lambda answers: exam.judged(answers).quality.value,
    )
    content = with_metadata(made.model, _properties(exam, images))
    int8 = replace(classifier, content=content)
    return Quantised(
        content=content,
        size_before_bytes=len(classifier.content),
        before=before,
        after=exam.judged(int8.answers(inputs, classes)),
        float_layers=made.float_layers,
        calibration_images=len(calibration),
    )


def _calibration(training: Exam) -> Floats:
    """Images of all classes: the training part is in the order of its files."""
    return training.preprocessing.normalise(spread(training.samples.inputs, CALIBRATION_IMAGES))


def _properties(exam: Exam, images: Images) -> dict[str, str]:
    """What `genba evaluate` and people must know of the file to give it images."""
    preprocessing = exam.preprocessing
    names = [""] * len(images.classes)
    for name, column in zip(images.classes, exam.columns, strict=True):
        names[column] = name
    return {
        "classes": "\n".join(names),
        **input_metadata(preprocessing),
        "mean": json.dumps(preprocessing.mean),
        "std": json.dumps(preprocessing.std),
    }
