"""What became of a training, epoch by epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch cost and gave. `learning_rate` is that of its last step."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_auroc: float | None
    validation_accuracy: float
    validation_balanced_accuracy: float
    seconds: float

    @property
    def monitored(self) -> float:
        """What stops the training: AUROC for two classes, else balanced accuracy."""
        if self.validation_auroc is not None:
            return self.validation_auroc
        return self.validation_balanced_accuracy

    @property
    def quality(self) -> float:
        """What networks are compared by: AUROC for two classes, else accuracy."""
        if self.validation_auroc is not None:
            return self.validation_auroc
        return self.validation_accuracy

    @property
    def merit(self) -> tuple[float, float]:
        """Epochs in order of merit: the monitored figure, then the smaller validation loss."""
        return self.monitored, -self.validation_loss


@dataclass(frozen=True)
class TrainResult:
    """The whole history; `best_epoch` (from 1) is the one whose weights the module now has."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    seconds: float

    @property
    def best(self) -> EpochRecord:
        return self.history[self.best_epoch - 1]

    def best_until(self, epochs: int) -> EpochRecord:
        """The best of the first so many epochs."""
        return max(self.history[:epochs], key=lambda record: record.merit)
