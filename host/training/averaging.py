"""An average over the last weights of a training, which answers better than the last ones."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from host.training.recipe import averaging_decay_at


class WeightAverage:
    """Follows a module's weights and buffers as an exponential moving average.

    `span_steps` is about how many steps it reaches back. Buffers are averaged too: the statistics
    of a normalisation belong to the weights before it.
    """

    def __init__(self, module: nn.Module, span_steps: float) -> None:
        self.module = copy.deepcopy(module)
        self._span = span_steps
        own, followed = self.module.state_dict(), module.state_dict()
        floats = [name for name, value in own.items() if value.is_floating_point()]
        self._averaged = [own[name] for name in floats]
        self._followed = [followed[name] for name in floats]
        self._counters = [
            (value, followed[name]) for name, value in own.items() if not value.is_floating_point()
        ]

    def update(self, step: int) -> None:
        """Take in the module's weights after that step, counted from 0."""
        decay = averaging_decay_at(step, self._span)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(self._averaged, self._followed, step)
        for own, followed in self._counters:
            own.copy_(followed)

    def state(self) -> dict[str, torch.Tensor]:
        """All that a checkpoint needs."""
        return dict(self.module.state_dict())

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what `state` gave."""
        self.module.load_state_dict(state)
