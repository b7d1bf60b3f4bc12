"""How a network is trained: settings, and what follows from them for each step."""

import math
from dataclasses import dataclass, field

from host.errors import UsageError
from host.training.augment import Augmentation

_MULTIPLE = 8
_LEAST_SIDE = 48


@dataclass(frozen=True)
class SmallInputs:
    """Some steps read the images smaller, which is cheaper and teaches to bear a change of scale.

    During the first `until` of all epochs a step does with probability `steps`; the sides are then
    multiplied by `side` and rounded to multiples of 8. The rest is for the full size alone, because
    a network answers best at the size that it has seen last (Touvron et al. 2019,
    arXiv:1906.06423). The network must take any size, as one does that ends with a global pooling.

    Raises UsageError for values that cannot be.
    """

    side: float = 0.75
    steps: float = 0.5
    until: float = 0.7

    def __post_init__(self) -> None:
        if not (0.0 < self.side < 1.0 and 0.0 < self.steps <= 1.0 and 0.0 < self.until < 1.0):
            raise UsageError(
                "small inputs need side and until between 0 and 1 and steps from above 0 to 1, "
                f"got {self.side}, {self.until} and {self.steps}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `patience` is how many epochs may pass without a better validation result.

    `averaging_epochs` is about how many epochs back the average of the weights reaches that is
    evaluated and kept; 0 keeps the last weights themselves. `small_inputs` of None reads every
    image at full size.

    Raises UsageError for values that cannot be.
    """

    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    warmup_fraction: float = 0.2
    patience: int = 10
    seed: int = 0
    threads: int = 1
    channels_last: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    label_smoothing: float = 0.05
    averaging_epochs: float = 1.0
    small_inputs: SmallInputs | None = field(default_factory=SmallInputs)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"training needs {name} of 1 or more, got {getattr(self, name)}")
        for name in ("warmup_fraction", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(
                    f"training needs {name} from 0 to below 1, got {getattr(self, name)}"
                )
        for name in ("weight_decay", "averaging_epochs"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise UsageError(f"training needs {name} of 0 or more, got {getattr(self, name)}")
        if not 0.0 < self.learning_rate < math.inf:
            raise UsageError(
                f"training needs a learning_rate above 0, got {self.learning_rate}: try 0.002"
            )


def learning_rate_at(step: int, steps: int, config: TrainConfig) -> float:
    """Linear from a tenth up to the full rate, then half a cosine down to zero.

    A function of the step alone, so that a resumed training needs no state of a scheduler.
    """
    warmup = int(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * (0.1 + 0.9 * step / warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def averaging_decay_at(step: int, span_steps: float) -> float:
    """What the average keeps of itself at that step, counted from 0.

    It rises from 0 to 1 - 1 / span, as the mean of what there is would: an average that kept its
    full decay from the start would be made of the first weights for most of a short training.
    """
    return min(1.0 - 1.0 / span_steps, step / (step + 9.0))


def small_size(height: int, width: int, small: SmallInputs) -> tuple[int, int] | None:
    """The size of an image that is read smaller; None where a side is too small to lose any."""
    if min(height, width) < _LEAST_SIDE:
        return None
    rounded = [round(small.side * side / _MULTIPLE) * _MULTIPLE for side in (height, width)]
    size = max(_MULTIPLE, rounded[0]), max(_MULTIPLE, rounded[1])
    return None if size[0] >= height or size[1] >= width else size
