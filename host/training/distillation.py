"""Learning from a larger network's answers besides the labels."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from host.errors import UsageError
from host.network.torch_module import evaluating
from host.preprocessing import AnyPreprocessing, Inputs


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained module whose answers are learned: Hinton et al. 2015 (arXiv:1503.02531), sec. 2.

    It answers on the very samples that the learner sees, changed by augmentation alike, prepared by
    its own `preprocessing` and resized to `size` (height, width) where it is given. `share` is how
    much its answers count, the labels count the rest; both networks' logits are divided by
    `temperature` before they are compared.

    Raises UsageError for values that cannot be.
    """

    module: nn.Module
    preprocessing: AnyPreprocessing
    size: tuple[int, int] | None = None
    temperature: float = 2.0
    share: float = 0.5

    def __post_init__(self) -> None:
        if not (0.0 < self.temperature < math.inf and 0.0 < self.share <= 1.0):
            raise UsageError(
                "distillation needs a temperature above 0 and a share from above 0 to 1, "
                f"got {self.temperature} and {self.share}"
            )

    def logits(self, samples: Inputs) -> torch.Tensor:
        """The answers (N, classes), in evaluation mode and without gradients."""
        with evaluating(self.module), torch.no_grad():
            inputs = torch.from_numpy(self.preprocessing.normalise(samples))
            if self.size is not None and tuple(inputs.shape[2:]) != self.size:
                inputs = functional.interpolate(
                    inputs, self.size, mode="bilinear", antialias=True, align_corners=False
                )
            answers: torch.Tensor = self.module(inputs)
            return answers

    def loss(
        self, logits: torch.Tensor, taught: torch.Tensor, label_loss: torch.Tensor
    ) -> torch.Tensor:
        """Both losses in their shares.

        The divergence is multiplied by the temperature's square, so that its gradients keep their
        size whatever the temperature.
        """
        divergence = functional.kl_div(
            functional.log_softmax(logits / self.temperature, dim=1),
            functional.log_softmax(taught / self.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return (1.0 - self.share) * label_loss + self.share * self.temperature**2 * divergence
