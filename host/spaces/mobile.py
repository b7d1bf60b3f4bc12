"""Inverted residual networks for small machines, from some ten thousand to 60 million parameters.

The block is that of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, fig. 3) with the optional
squeeze-and-excite and hard-swish of MobileNetV3 (Howard et al. 2019, arXiv:1905.02244, sec. 5).
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from host.network.graph import (
    ActivationKind,
    Conv,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Scale,
)
from host.spaces.base import Candidate, CandidateTextError, Decision, SpaceChoiceError, Task

STAGE_CHANNELS = (16, 24, 40, 80, 160)
"""At width 1."""

CHOICES: Mapping[str, tuple[Hashable, ...]] = {
    "resolution": (32, 48, 64, 96, 128, 160, 192, 224),
    "width": (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
    "activation": ("relu", "relu6", "hard_swish"),
    "stem": (2, 4),
    "head": (0, 320, 640, 1280),
    "kernel": (3, 5, 7),
    "expansion": (1, 3, 4, 6),
    "depth": (1, 2, 3, 4, 6),
    "squeeze": (False, True),
}
"""What may be chosen. `kernel`, `expansion`, `depth` and `squeeze` are decided for every stage;
`stem` is the stride of the first convolution, `head` the channels of the last at width 1."""

_PER_STAGE = ("kernel", "expansion", "depth", "squeeze")
_GLOBAL = tuple(name for name in CHOICES if name not in _PER_STAGE)


@dataclass(frozen=True)
class Mobile:
    """Five stages of inverted residual blocks, after a strided stem and before a 1x1 head.

    `restrict` narrows decisions by name to some of their choices.
    """

    restrict: Mapping[str, tuple[Hashable, ...]] = field(default_factory=dict)
    name: ClassVar[str] = "mobile"

    def __post_init__(self) -> None:
        for name, wanted in self.restrict.items():
            if name not in CHOICES:
                raise SpaceChoiceError(
                    f"the space 'mobile' has no decision {name!r}; it has {', '.join(CHOICES)}"
                )
            unknown = [choice for choice in wanted if choice not in CHOICES[name]]
            if unknown or not wanted:
                raise SpaceChoiceError(
                    f"{name} = {list(wanted)} must name some of {list(CHOICES[name])}"
                )

    @property
    def decisions(self) -> tuple[Decision, ...]:
        per_stage = (
            Decision(f"{name}{stage}", self._choices(name))
            for stage in range(len(STAGE_CHANNELS))
            for name in _PER_STAGE
        )
        return (*(Decision(name, self._choices(name)) for name in _GLOBAL), *per_stage)

    def text(self, candidate: Candidate) -> str:
        """For example `r64 w0.5 relu stem2 head320 | k3e3d2 | k5e6d1se | ...`."""
        values = self._values(candidate)
        stages = [
            f"k{values[f'kernel{s}']}e{values[f'expansion{s}']}d{values[f'depth{s}']}"
            + ("se" if values[f"squeeze{s}"] else "")
            for s in range(len(STAGE_CHANNELS))
        ]
        first = (
            f"r{values['resolution']} w{values['width']} {values['activation']} "
            f"stem{values['stem']} head{values['head']}"
        )
        return " | ".join([first, *stages])

    def parse(self, text: str) -> Candidate:
        """The inverse of `text`. Raises CandidateTextError where it names no candidate."""
        first, *stages = (part.strip() for part in text.split("|"))
        found = re.fullmatch(r"r(\d+) w([\d.]+) (\w+) stem(\d) head(\d+)", first)
        blocks = [re.fullmatch(r"k(\d)e(\d)d(\d)(se)?", stage) for stage in stages]
        if found is None or len(blocks) != len(STAGE_CHANNELS):
            raise CandidateTextError(_not_mobile(text))
        values: dict[str, Hashable] = {
            "resolution": int(found[1]),
            "width": float(found[2]),
            "activation": found[3],
            "stem": int(found[4]),
            "head": int(found[5]),
        }
        for stage, block in enumerate(blocks):
            if block is None:
                raise CandidateTextError(_not_mobile(text))
            values[f"kernel{stage}"] = int(block[1])
            values[f"expansion{stage}"] = int(block[2])
            values[f"depth{stage}"] = int(block[3])
            values[f"squeeze{stage}"] = block[4] is not None
        for decision in self.decisions:
            if values[decision.name] not in decision.choices:
                raise CandidateTextError(
                    f"{text!r}: {decision.name} must be one of {list(decision.choices)}"
                )
        return Candidate(tuple(d.choices.index(values[d.name]) for d in self.decisions))

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The network of a candidate; every candidate of this space has one."""
        values = self._values(candidate)
        width: float = values["width"]
        kind: ActivationKind = values["activation"]
        builder = NetworkBuilder((task.channels, values["resolution"], values["resolution"]))
        stem = Conv(
            _rounded(16 * width), kernel=3 if values["stem"] == 2 else 5, stride=values["stem"]
        )
        index = builder.conv(0, stem, kind)
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
            index = builder.conv(index, head, kind)
        index = builder.add(GlobalPool(), index)
        return builder.build(builder.add(Linear(task.classes), index))

    def _choices(self, name: str) -> tuple[Hashable, ...]:
        wanted = self.restrict.get(name)
        return CHOICES[name] if wanted is None else tuple(c for c in CHOICES[name] if c in wanted)

    def _values(self, candidate: Candidate) -> dict[str, Any]:
        chosen = zip(self.decisions, candidate.choices, strict=True)
        return {decision.name: decision.choices[index] for decision, index in chosen}


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
    return index


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


def _not_mobile(text: str) -> str:
    return (
        f"{text!r} names no candidate of the space 'mobile': write it as "
        "'r64 w0.5 relu stem2 head320 | k3e3d2 | k5e6d1se | k3e3d1 | k3e3d1 | k3e3d1'"
    )
