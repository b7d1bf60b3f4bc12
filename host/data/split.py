"""What a network learns from and is judged on: samples with their classes, in three parts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from host.preprocessing import AnyPreprocessing, Inputs

Subset = Literal["train", "validation", "test"]
SUBSETS: tuple[Subset, ...] = ("train", "validation", "test")
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """What a network reads, before it is normalised, and the classes as int64 (N,).

    Images are uint8 (N, C, H, W), windows of signals float32 (N, C, L), or (N, C, 1, L) for
    networks that read a signal as an image of height 1.
    """

    inputs: Inputs
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
    preprocessing: AnyPreprocessing
    fingerprint: str
    seed: int

    @property
    def majority_class(self) -> int:
        """The class that is most frequent in the training part."""
        return int(np.bincount(self.train.labels, minlength=len(self.classes)).argmax())
