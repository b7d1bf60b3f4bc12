"""How good a user's classifier is on images, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host.data.dataset import open_data
from host.data.images import ImageLoader
from host.data.listing import ExcludedFile
from host.data.split import Labels, Samples, Split, Subset
from host.errors import UsageError
from host.evaluation.classifier import (
    Classifier,
    LabelsSource,
    Normalisation,
    PreprocessingSource,
    class_columns,
    preprocessing_for,
)
from host.export.check import Floats
from host.preprocessing import Preprocessing
from host.study.finalist import Score
from host.training.metrics import Evaluation, evaluate


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their classes, in three parts."""

    loader: ImageLoader

    @property
    def origin(self) -> str:
        """Which images the parts hold: accuracies are compared only where it is the same."""
        return origin_of(self.loader.fingerprint, self.loader.seed)

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the folders."""
        return self.loader.classes

    @property
    def excluded(self) -> tuple[ExcludedFile, ...]:
        """The files that are left out, and why."""
        return self.loader.excluded

    @property
    def separates_test(self) -> bool:
        """Whether the data themselves say which images are for the test; the seed draws others."""
        return any(item.subset == "test" for item in self.loader.folder.items)

    def split(self, classifier: Classifier) -> Split:
        """All of them at the size and with the channels that the classifier reads."""
        return self.loader.split(classifier.height, classifier.width, classifier.channels)


@dataclass(frozen=True)
class Told:
    """What the user says of the own classifiers: normalisation, and classes in their order."""

    normalisation: Normalisation | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Judged:
    """A classifier's answers on one part of the images. AUROC is for two classes only."""

    part: Subset
    origin: str
    accuracy: Score
    balanced_accuracy: float
    auroc: Score | None
    majority_accuracy: float
    preprocessing: Preprocessing
    preprocessing_from: PreprocessingSource
    labels_from: LabelsSource

    @property
    def quality(self) -> Score:
        """AUROC with two classes, else accuracy."""
        return self.accuracy if self.auroc is None else self.auroc

    @property
    def measure(self) -> str:
        """What `quality` is."""
        return "accuracy" if self.auroc is None else "AUROC"


def images_in(folder: Path, *, seed: int) -> Images:
    """The images of a folder with a sub-folder for each class; see `open_data`.

    Raises UsageError.
    """
    data = open_data(folder, kind="images", seed=seed)
    if not isinstance(data, ImageLoader):
        raise TypeError(f"images were asked for: {type(data)}")
    return Images(data)


def origin_of(fingerprint: str, seed: int) -> str:
    """Which images the parts hold that were divided by that seed."""
    return f"{fingerprint} {seed}"


@dataclass(frozen=True, eq=False)
class Exam:
    """A part of the images as a classifier reads it, and how its answers become figures.

    `columns` has the column of each class in the answers.
    """

    part: Subset
    samples: Samples
    preprocessing: Preprocessing
    preprocessing_from: PreprocessingSource
    columns: Sequence[int]
    labels_from: LabelsSource
    majority_class: int
    origin: str

    def inputs(self) -> Floats:
        """The images (N, C, H, W), normalised."""
        return self.preprocessing.normalise(self.samples.inputs)

    def evaluated(self, answers: Floats) -> Evaluation:
        """All figures of answers (N, classes) as the classifier gives them."""
        labels: Labels = self.samples.labels
        ordered = answers[:, self.columns]
        return evaluate(labels, ordered, majority_class=self.majority_class)

    def judged(self, answers: Floats) -> Judged:
        """The same as plain values, and what they rest on."""
        found = self.evaluated(answers)
        return Judged(
            part=self.part,
            origin=self.origin,
            accuracy=Score.of(found.accuracy),
            balanced_accuracy=found.balanced_accuracy,
            auroc=None if found.auroc is None else Score.of(found.auroc),
            majority_accuracy=found.majority_accuracy,
            preprocessing=self.preprocessing,
            preprocessing_from=self.preprocessing_from,
            labels_from=self.labels_from,
        )


def exam_of(classifier: Classifier, images: Images, told: Told, part: Subset) -> Exam:
    """The part of the images that a classifier is examined on.

    Raises ClassifierError where the classifier does not fit the images.
    """
    split = images.split(classifier)
    preprocessing, source = preprocessing_for(classifier, told.normalisation, _of_training(split))
    columns, labels_from = class_columns(classifier, told.labels, images.classes)
    parts: Mapping[Subset, Samples] = {
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    return Exam(
        part=part,
        samples=parts[part],
        preprocessing=preprocessing,
        preprocessing_from=source,
        columns=columns,
        labels_from=labels_from,
        majority_class=split.majority_class,
        origin=images.origin,
    )


def judge(classifier: Classifier, images: Images, told: Told, part: Subset) -> Judged:
    """Accuracy on a part of the images, and AUROC where there are two classes.

    Raises ClassifierError where the classifier does not fit the images.
    """
    exam = exam_of(classifier, images, told, part)
    return exam.judged(classifier.answers(exam.inputs(), len(images.classes)))


def _of_training(split: Split) -> Preprocessing:
    if not isinstance(split.preprocessing, Preprocessing):
        raise TypeError(f"images were asked for: {type(split.preprocessing)}")
    return split.preprocessing


def read_labels(path: Path) -> tuple[str, ...]:
    """The names in a file, one a line. Raises UsageError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the labels {path} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    _require_once(path, names)
    return tuple(names)


def _require_once(path: Path, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not names:
        what = "is empty" if twice is None else f"names {twice!r} twice"
        raise UsageError(f"the labels {path} {what}: write each class once, one a line")
