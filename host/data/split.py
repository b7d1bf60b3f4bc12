"""What a network learns from and is judged on: samples with their classes, in three parts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from host.preprocessing import Pixels, Preprocessing

Subset = Literal["train", "validation", "test"]
SUBSETS: tuple[Subset, ...] = ("train", "validation", "test")
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Decoded images as uint8 (N, C, H, W) and their classes as int64 (N,)."""

    inputs: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Split:
    """Samples at one size, in three parts.

    The training part teaches, the validation part chooses (when to stop, which finalist), the test
    part is looked at once, at the end.
    """

    classes: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    preprocessing: Preprocessing
    fingerprint: str
    seed: int

    @property
    def majority_class(self) -> int:
        """The class that is most frequent in the training part."""
        return int(np.bincount(self.train.labels, minlength=len(self.classes)).argmax())
