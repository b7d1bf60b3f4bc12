"""What became of a finalist: trained, quantised, measured again, shipped; as plain values."""

from typing import TYPE_CHECKING, Literal, Self

from host.export.forms import Form
from host.study.front import OnDevice, Value

if TYPE_CHECKING:
    from host.training.metrics import Estimate


def finalist_memo(key: str) -> str:
    """The name under which the store keeps the result of a finalist."""
    return f"finalist:{key}"


class Score(Value):
    """A share between 0 and 1 of n test samples, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, estimate: "Estimate") -> Self:
        """The same share, as it was counted."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)


class Inspection(Value):
    """How two-class inspection does on the test part at one threshold, chosen on validation.

    The threshold is the one whose costs are the least on the validation part, where a miss and a
    false alarm cost what the study says. `recall` is the share of defects found, at the false-alarm
    rate `false_alarm_rate_limit` (again a threshold from validation, so the test part may differ).
    `confusion` is [[true good, false alarm], [miss, found]] at `threshold`. Costs are per sample.
    """

    defect_class: str
    threshold: float
    confusion: list[list[int]]
    cost_of_miss: float
    cost_of_false_alarm: float
    cost_per_sample: float
    recall: Score
    false_alarm_rate: Score
    false_alarm_rate_limit: float


class FormResult(Value):
    """One deployable form of a finalist: its answers on the test samples, and its cost.

    Hash and size are of the file that was measured; figures are written into the shipped one.
    `validation_quality` (AUROC with two classes, else accuracy) is what chooses between forms.
    `largest_difference` is that of its logits from those of the trained network, relative to the
    largest logit. `float_layers` of an int8 form stayed float, because int8 hurt the answers.
    """

    form: Form
    sha256: str
    size_bytes: int
    accuracy: Score
    balanced_accuracy: float
    auroc: Score | None
    inspection: Inspection | None
    confusion: list[list[int]]
    validation_quality: float
    largest_difference: float
    float_layers: list[str]
    devices: list[OnDevice]

    @property
    def quality(self) -> float:
        """AUROC with two classes, else accuracy."""
        return self.accuracy.value if self.auroc is None else self.auroc.value


class Choice(Value):
    """The form to run on a device profile, and why."""

    device: str
    form: Form
    because: str
    within_limits: bool


class BundleFile(Value):
    """A bundle of a finalist, for the device profiles of one class (architecture and runtime)."""

    device_class: str
    devices: list[str]
    path: str
    manifest_sha256: str


class Trial(Value):
    """A candidate that was trained, as far as it came.

    `rounds` are the epochs at which it was judged with others (successive halving), and the
    quality on the validation part that it had then.
    """

    key: str
    text: str
    score: float
    parameters: int
    rounds: list[tuple[int, float]]
    seconds: float
    finalist: bool


class RankAgreement(Value):
    """How well the score ranked what was trained: Kendall's tau-b between score and quality.

    Quality is that on the validation part after the same `epochs` for all `n`; with the 95 %
    interval by resampling of candidates, None with fewer than 5.
    """

    n: int
    epochs: int
    kendall: float
    low: float | None
    high: float | None


class TrialsReport(Value):
    """Everything that was trained in a study."""

    format: Literal["genba-trials/1"] = "genba-trials/1"
    trials: list[Trial]
    agreement: RankAgreement | None


class FinalistResult(Value):
    """A finalist of a study. The test samples chose nothing: neither epoch nor finalist."""

    format: Literal["genba-finalist/2"] = "genba-finalist/2"
    key: str
    text: str
    score: float
    parameters: int
    macs: int
    classes: list[str]
    epochs: int
    best_epoch: int
    train_seconds: float
    taught_by: str | None
    """The key of the finalist whose answers it learned from besides the labels, if any."""
    validation_auroc: float | None
    validation_balanced_accuracy: float
    majority_accuracy: float
    forms: list[FormResult]
    choices: list[Choice]
    bundles: list[BundleFile]
