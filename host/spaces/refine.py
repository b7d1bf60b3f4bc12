"""Narrows the space `mobile` to what the devices of a plant run at a fair price.

Squeeze-and-excite and hard-swish raise accuracy a little and cost latency: little on a phone, much
on a CPU whose runtime does not fuse them. What is worth its price follows from what width buys:
MobileNetV3-Large at width 1 has 75.2 % at 51.2 ms, at width 0.75 73.3 % at 39.8 ms (Pixel 1; the
authors' table of checkpoints, Howard et al. 2019, arXiv:1905.02244), so a factor f on latency buys
7.5 ln(f) points. Hard-swish brings 0.7 points over ReLU (there, table 5), as much as f = 1.10
does; squeeze-and-excite 1.5 points in ResNet-50 (Hu et al. 2018, arXiv:1709.01507, table 2), as
much as f = 1.22. What costs more is dear.

The price on a device is the geometric mean, over matched pairs of networks that differ in nothing
else, of the ratio of their predicted latencies. With several devices the dearest one decides.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from cost_models.base import CostModel
from host.network.kernels import kernels_of
from host.spaces.base import Choices, Task, sample
from host.spaces.mobile import Mobile

_PAIRS = 16
_SEED = 0


@dataclass(frozen=True)
class Luxury:
    """A choice that is dear where it multiplies latency by more than `worth`."""

    decision: str
    choice: Hashable
    instead: Choices
    worth: float
    words: str


LUXURIES = (
    Luxury("squeeze", True, (False,), worth=1.22, words="squeeze-and-excite"),
    Luxury("activation", "hard_swish", ("relu", "relu6"), worth=1.10, words="hard-swish"),
)


@dataclass(frozen=True)
class Price:
    """By how much a luxury multiplies the predicted latency on the device where that is most.

    `device` is absent where no device's model was fitted on anything like it.
    """

    luxury: Luxury
    device: str | None
    factor: float

    @classmethod
    def of(
        cls, luxury: Luxury, space: Mobile, models: Mapping[str, CostModel], task: Task
    ) -> Self | None:
        """The price in this space; absent where the space leaves no choice of it."""
        left = next(d.choices for d in space.decisions if d.name.startswith(luxury.decision))
        instead = next((choice for choice in luxury.instead if choice in left), None)
        if instead is None or luxury.choice not in left:
            return None
        rng = np.random.default_rng(_SEED)
        drawn = [sample(space, rng) for _ in range(_PAIRS)]
        dear, plain = (
            [
                kernels_of(space.build(space.taking(each, luxury.decision, choice), task))
                for each in drawn
            ]
            for choice in (luxury.choice, instead)
        )
        factors = {}
        for device, model in models.items():
            pairs = list(zip(model.predict(dear), model.predict(plain), strict=True))
            if not any(one.flagged for one, _ in pairs):
                logs = [math.log(one.value / other.value) for one, other in pairs]
                factors[device] = math.exp(sum(logs) / len(logs))
        dearest = max(factors, key=lambda device: factors[device], default=None)
        return cls(luxury, dearest, factors[dearest] if dearest is not None else math.nan)

    @property
    def is_dear(self) -> bool:
        """Whether it costs more than it is worth."""
        return self.device is not None and self.factor > self.luxury.worth

    def sentence(self) -> str:
        """What was decided, and why."""
        words, worth = self.luxury.words, _percent(self.luxury.worth)
        if self.device is None:
            return f"{words} stays: no device has measured anything that tells what it costs there"
        price = f"{_percent(self.factor)} of latency on {self.device}"
        if self.is_dear:
            return f"{words} is left out: it costs {price} and is worth {worth}"
        return f"{words} stays: it costs {price}, where that is most, and is worth {worth}"


@dataclass(frozen=True)
class Refinement:
    """A space without what is dear, and a sentence on each thing that was looked at."""

    space: Mobile
    reasons: tuple[str, ...]


def refine(space: Mobile, models: Mapping[str, CostModel], task: Task) -> Refinement:
    """The space without what is dear on one of the devices.

    `models` are fitted latency models by the device's name. A choice that is the only one left
    stays. Raises NotFittedError for a model that was never fitted, ValueError without models.
    """
    if not models:
        raise ValueError("a space is refined for one device or more")
    found = [Price.of(luxury, space, models, task) for luxury in LUXURIES]
    prices = [price for price in found if price is not None]
    restrict = dict(space.restrict)
    for price in prices:
        if price.is_dear:
            name = price.luxury.decision
            left = next(d.choices for d in space.decisions if d.name.startswith(name))
            restrict[name] = tuple(choice for choice in left if choice != price.luxury.choice)
    return Refinement(
        replace(space, restrict=restrict), tuple(price.sentence() for price in prices)
    )


def _percent(factor: float) -> str:
    return f"{100 * (factor - 1):.0f} %"
