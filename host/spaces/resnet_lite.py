"""Networks of plain, residual and bottleneck blocks with nothing but ReLU between them.

For int8 on x86 CPUs from before VNNI, which multiply dense blocks of channels fast and have no fast
depthwise convolution: channels are multiples of 16, so that vectors are full, no convolution is
depthwise, and an activation is a maximum that fuses into the step before it. Sources: the residual
block and the bottleneck are those of He et al. 2016 (arXiv:1512.03385, fig. 5, shortcuts of option
B), the plain block is a convolution of Simonyan and Zisserman 2015 (arXiv:1409.1556), here with
batch normalisation.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from host.network.graph import (
    Activation,
    Conv,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
)
from host.spaces.base import Candidate, Task
from host.spaces.staged import Item, StagedSpace

_STEM, _POOL = "stem", "pool"
SCHEDULES: dict[str, tuple[str | int, ...]] = {
    "early": (_STEM, _POOL, 1, 2, 3),
    "middle": (1, 2, _STEM, 3, _POOL),
    "late": (3, 2, 1, _STEM, _POOL),
}
"""Where the map is halved, the first places first: as many of them as the resolution needs. Numbers
are stages, counted from 0. The earlier, the cheaper."""
_LAST_SIDE = 7
_MULTIPLE = 16


@dataclass(frozen=True)
class ResNetLite(StagedSpace):
    """Four stages after a 3x3 stem; the last map has a side of 5 to 8 whatever the resolution.

    `width` are the channels of the first stage, each later stage has `growth` times as many.
    """

    name: ClassVar[str] = "resnet-lite"
    once: ClassVar[tuple[Item, ...]] = (
        Item("resolution", (32, 48, 64, 96, 128, 160, 192, 224), "r"),
        Item("width", (16, 32, 48, 64), " c"),
        Item("growth", (1.5, 2), " g"),
        Item("schedule", tuple(SCHEDULES), " "),
    )
    per_stage: ClassVar[tuple[Item, ...]] = (
        Item("block", ("plain", "residual", "bottleneck")),
        Item("depth", (1, 2, 3, 4), " d"),
    )
    stages: ClassVar[int] = 4
    example: ClassVar[str] = "r96 c32 g2 middle | plain d1 | residual d2 | residual d2 | plain d1"

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The network of a candidate; every candidate of this space has one."""
        values = self.values(candidate)
        resolution: int = values["resolution"]
        halvings = round(math.log2(resolution / _LAST_SIDE))
        halved = SCHEDULES[values["schedule"]][:halvings]
        builder = NetworkBuilder((task.channels, resolution, resolution))
        stem = Conv(values["width"], kernel=3, stride=2 if _STEM in halved else 1)
        index = builder.conv(0, stem, "relu")
        if _POOL in halved:
            index = builder.add(Pool("maximum", kernel=3, stride=2, padding=1), index)
        builder.block(index)
        for stage in range(self.stages):
            add = _BLOCKS[values[f"block{stage}"]]
            channels = _rounded(values["width"] * values["growth"] ** stage)
            for block in range(values[f"depth{stage}"]):
                stride = 2 if block == 0 and stage in halved else 1
                index = builder.block(add(builder, index, channels, stride))
        index = builder.add(GlobalPool(), index)
        return builder.build(builder.add(Linear(task.classes), index))


def _plain(builder: NetworkBuilder, start: int, channels: int, stride: int) -> int:
    return builder.conv(start, Conv(channels, kernel=3, stride=stride), "relu")


def _residual(builder: NetworkBuilder, start: int, channels: int, stride: int) -> int:
    index = builder.conv(start, Conv(channels, kernel=3, stride=stride), "relu")
    index = builder.conv(index, Conv(channels, kernel=3))
    return _joined(builder, start, index, stride)


def _bottleneck(builder: NetworkBuilder, start: int, channels: int, stride: int) -> int:
    inside = _rounded(channels / 4)
    index = builder.conv(start, Conv(inside, kernel=1), "relu")
    index = builder.conv(index, Conv(inside, kernel=3, stride=stride), "relu")
    index = builder.conv(index, Conv(channels, kernel=1))
    return _joined(builder, start, index, stride)


_BLOCKS = {"plain": _plain, "residual": _residual, "bottleneck": _bottleneck}


def _joined(builder: NetworkBuilder, start: int, index: int, stride: int) -> int:
    if builder.shape(start) != builder.shape(index):
        start = builder.conv(start, Conv(builder.shape(index)[0], kernel=1, stride=stride))
    return builder.add(Activation("relu"), builder.sum([start, index]))


def _rounded(channels: float) -> int:
    return max(_MULTIPLE, int(channels / _MULTIPLE + 0.5) * _MULTIPLE)
