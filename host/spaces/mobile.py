"""Inverted residual networks for small machines, from some ten thousand to 60 million parameters.

The block is that of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, fig. 3) with the optional
squeeze-and-excite and hard-swish of MobileNetV3 (Howard et al. 2019, arXiv:1905.02244, sec. 5).
"""

from dataclasses import dataclass
from typing import ClassVar

from host.network.graph import (
    ActivationKind,
    Conv,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Scale,
)
from host.spaces.base import Candidate, Task
from host.spaces.staged import Item, StagedSpace

STAGE_CHANNELS = (16, 24, 40, 80, 160)
"""At width 1."""


@dataclass(frozen=True)
class Mobile(StagedSpace):
    """Five stages of inverted residual blocks, after a strided stem and before a 1x1 head.

    `stem` is the stride of the first convolution, `head` the channels of the last at width 1.
    """

    name: ClassVar[str] = "mobile"
    once: ClassVar[tuple[Item, ...]] = (
        Item("resolution", (32, 48, 64, 96, 128, 160, 192, 224), "r"),
        Item("width", (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0), " w"),
        Item("activation", ("relu", "relu6", "hard_swish"), " "),
        Item("stem", (2, 4), " stem"),
        Item("head", (0, 320, 640, 1280), " head"),
    )
    per_stage: ClassVar[tuple[Item, ...]] = (
        Item("kernel", (3, 5, 7), "k"),
        Item("expansion", (1, 3, 4, 6), "e"),
        Item("depth", (1, 2, 3, 4, 6), "d"),
        Item("squeeze", (False, True), "se"),
    )
    stages: ClassVar[int] = len(STAGE_CHANNELS)
    example: ClassVar[str] = (
        "r64 w0.5 relu stem2 head320 | k3e3d2 | k5e6d1se | k3e3d1 | k3e3d1 | k3e3d1"
    )

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The network of a candidate; every candidate of this space has one."""
        values = self.values(candidate)
        width: float = values["width"]
        kind: ActivationKind = values["activation"]
        builder = NetworkBuilder((task.channels, values["resolution"], values["resolution"]))
        stem = Conv(
            _rounded(16 * width), kernel=3 if values["stem"] == 2 else 5, stride=values["stem"]
        )
        index = builder.block(builder.conv(0, stem, kind))
        # The stem that strides by four takes over the first reduction of the stages.
        strides = (1, 1 if values["stem"] == 4 else 2, 2, 2, 2)
        for stage, base in enumerate(STAGE_CHANNELS):
            for block in range(values[f"depth{stage}"]):
                index = _inverted_residual(
                    builder,
                    index,
                    _rounded(base * width),
                    Block(
                        kernel=values[f"kernel{stage}"],
                        expansion=values[f"expansion{stage}"],
                        stride=strides[stage] if block == 0 else 1,
                        squeeze=values[f"squeeze{stage}"],
                        activation=kind,
                    ),
                )
        if values["head"]:
            head = Conv(_rounded(values["head"] * width), kernel=1)
            index = builder.block(builder.conv(index, head, kind))
        index = builder.add(GlobalPool(), index)
        return builder.build(builder.add(Linear(task.classes), index))


@dataclass(frozen=True, slots=True)
class Block:
    """What an inverted residual block is made of."""

    kernel: int
    expansion: int
    stride: int
    squeeze: bool
    activation: ActivationKind


def _inverted_residual(builder: NetworkBuilder, start: int, channels: int, block: Block) -> int:
    inside = builder.shape(start)[0] * block.expansion
    index = start
    if block.expansion > 1:
        index = builder.conv(index, Conv(inside, kernel=1), block.activation)
    depthwise = Conv(inside, block.kernel, stride=block.stride, groups=inside)
    index = builder.conv(index, depthwise, block.activation)
    if block.squeeze:
        index = _squeeze_and_excite(builder, index)
    index = builder.conv(index, Conv(channels, kernel=1))
    if builder.shape(index) == builder.shape(start):
        index = builder.sum([start, index])
    return builder.block(index)


def _squeeze_and_excite(builder: NetworkBuilder, index: int) -> int:
    channels = builder.shape(index)[0]
    gate = builder.add(GlobalPool(), index)
    reduced = Conv(_rounded(channels / 4), kernel=1, norm=False, bias=True)
    gate = builder.conv(gate, reduced, "relu")
    gate = builder.conv(gate, Conv(channels, kernel=1, norm=False, bias=True), "hard_sigmoid")
    return builder.add(Scale(), index, gate)


def _rounded(channels: float) -> int:
    """A multiple of eight, at least eight: what vector units like."""
    return max(8, int(channels / 8 + 0.5) * 8)
