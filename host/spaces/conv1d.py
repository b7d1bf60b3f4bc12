"""Networks of one dimension for windows of signals: vibration, current, sound of a machine.

A candidate reads a window of `length` samples from as many sensors as the task has channels, as an
image of height 1: (sensors, 1, length). The long first kernel with a large stride, which filters
out noise as a bank of band-passes would, and the short ones after it are those of WDCNN (Zhang et
al. 2017, Sensors 17(2):425, sec. 3), which `l2048 c16 k63 s16 pool head0 | plain k3 d1 | ...` comes
near. The residual block is that of He et al. 2016 (arXiv:1512.03385, fig. 5), the separable one
that of MobileNets (Howard et al. 2017, arXiv:1704.04861, fig. 3), both in one dimension.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from host.network.graph import (
    Activation,
    Conv,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
    ShapeError,
)
from host.spaces.base import Candidate, SpaceChoiceError, Task
from host.spaces.staged import Item, StagedSpace

STAGE_FACTORS = (1, 2, 4, 4)
"""Channels of each stage, in those of the stem."""


@dataclass(frozen=True)
class Conv1d(StagedSpace):
    """Four stages that halve the signal, from under a thousand to some ten million parameters.

    `kernel` and `stride` are decided for the stem and, but for the stride, for every stage. Stages
    halve the signal by their first convolution or by a max pooling before it. `head` are the units
    of a hidden layer, 0 for none.
    """

    name: ClassVar[str] = "conv1d"
    once: ClassVar[tuple[Item, ...]] = (
        Item("length", (256, 512, 1024, 2048, 4096), "l"),
        Item("width", (4, 8, 16, 24, 32, 64), " c"),
        Item("stem_kernel", (7, 15, 31, 63, 127), " k"),
        Item("stem_stride", (2, 4, 8, 16), " s"),
        Item("halving", ("stride", "pool"), " "),
        Item("head", (0, 32, 64, 128), " head"),
    )
    per_stage: ClassVar[tuple[Item, ...]] = (
        Item("block", ("plain", "residual", "separable")),
        Item("kernel", (3, 5, 9), " k"),
        Item("depth", (1, 2, 3), " d"),
    )
    stages: ClassVar[int] = len(STAGE_FACTORS)
    example: ClassVar[str] = (
        "l2048 c16 k63 s8 pool head64 | plain k3 d1 | plain k3 d1 | plain k3 d1 | residual k3 d1"
    )

    def reading_at_most(self, samples: int) -> Self:
        """The networks among these that read no more samples than that.

        Raises SpaceChoiceError where all read more.
        """
        lengths = next(d.choices for d in self.decisions if d.name == "length")
        fitting = tuple(n for n in lengths if isinstance(n, int) and n <= samples)
        if not fitting:
            raise SpaceChoiceError(
                f"windows have {samples} samples, and conv1d reads {', '.join(map(str, lengths))}: "
                "cut longer windows, or allow a shorter length in [space]"
            )
        return replace(self, restrict={**self.restrict, "length": fitting})

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The network of a candidate.

        Raises ShapeError where a stage has kernels so long for what is left of the signal that
        their outer weights never read anything but padding.
        """
        values = self.values(candidate)
        pooled = values["halving"] == "pool"
        builder = NetworkBuilder((task.channels, 1, values["length"]))
        index = _convolved(
            builder, 0, values["width"], values["stem_kernel"], values["stem_stride"]
        )
        builder.block(index)
        for stage, factor in enumerate(STAGE_FACTORS):
            kernel: int = values[f"kernel{stage}"]
            add = _BLOCKS[values[f"block{stage}"]]
            if pooled:
                halving = Pool("maximum", kernel=(1, 2), stride=(1, 2))
                index = builder.add(halving, index)
            for block in range(values[f"depth{stage}"]):
                stride = 2 if block == 0 and not pooled else 1
                index = add(builder, index, values["width"] * factor, kernel, stride)
                builder.block(index)
            _check_fit(kernel, builder.shape(index)[-1], stage)
        index = builder.add(GlobalPool(), index)
        if values["head"]:
            hidden = builder.add(Linear(values["head"]), index)
            index = builder.add(Activation("relu"), hidden)
        return builder.build(builder.add(Linear(task.classes), index))


def _convolved(
    builder: NetworkBuilder, source: int, channels: int, kernel: int, stride: int
) -> int:
    return builder.conv(source, Conv(channels, (1, kernel), stride=(1, stride)), "relu")


def _residual(builder: NetworkBuilder, start: int, channels: int, kernel: int, stride: int) -> int:
    index = _convolved(builder, start, channels, kernel, stride)
    index = builder.conv(index, Conv(channels, (1, kernel)))
    if builder.shape(start) != builder.shape(index):
        start = builder.conv(start, Conv(channels, kernel=1, stride=(1, stride)))
    return builder.add(Activation("relu"), builder.sum([start, index]))


def _separable(builder: NetworkBuilder, start: int, channels: int, kernel: int, stride: int) -> int:
    before = builder.shape(start)[0]
    depthwise = Conv(before, (1, kernel), stride=(1, stride), groups=before)
    return builder.conv(builder.conv(start, depthwise, "relu"), Conv(channels, kernel=1), "relu")


_BLOCKS = {"plain": _convolved, "residual": _residual, "separable": _separable}


def _check_fit(kernel: int, length: int, stage: int) -> None:
    if kernel // 2 >= length:
        raise ShapeError(
            f"kernels of {kernel} are too long for the {length} samples that stage {stage + 1} is "
            "left with: take a longer window, a smaller stride of the stem or shorter kernels"
        )
