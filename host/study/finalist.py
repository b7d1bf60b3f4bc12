"""What became of a finalist: trained, quantised, measured again, shipped; as plain values."""

from typing import Literal

from host.study.front import OnDevice, Value

Form = Literal["fp32", "int8"]


class Score(Value):
    """A share between 0 and 1 of n test images, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class FormResult(Value):
    """One deployable form of a finalist: its answers on the test images, and its cost.

    Hash and size are of the file that was measured; figures are written into the shipped one.
    `validation_quality` (AUROC with two classes, else accuracy) is what chooses between forms.
    """

    form: Form
    sha256: str
    size_bytes: int
    accuracy: Score
    balanced_accuracy: float
    auroc: Score | None
    validation_quality: float
    devices: list[OnDevice]

    @property
    def quality(self) -> float:
        """AUROC with two classes, else accuracy."""
        return self.accuracy.value if self.auroc is None else self.auroc.value


class Choice(Value):
    """The form to run on a device, and why."""

    device: str
    form: Form
    because: str
    within_limits: bool


class FinalistResult(Value):
    """A finalist of a study. The test images chose nothing: neither epoch nor finalist."""

    format: Literal["genba-finalist/1"] = "genba-finalist/1"
    key: str
    text: str
    score: float
    parameters: int
    macs: int
    classes: list[str]
    epochs: int
    best_epoch: int
    train_seconds: float
    validation_auroc: float | None
    validation_balanced_accuracy: float
    majority_accuracy: float
    forms: list[FormResult]
    choices: list[Choice]
    bundle: str
    manifest_sha256: str

    def form(self, name: Form) -> FormResult:
        """The result of that form."""
        return next(form for form in self.forms if form.form == name)
