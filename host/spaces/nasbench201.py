"""The cell space of NAS-Bench-201 in its macro skeleton.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020, arXiv:2001.00326, sec. 2 and fig. 1. Published accuracies belong to 3x32x32 images,
16 channels and 5 cells a stage: the defaults.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

from host.network.graph import (
    Activation,
    BatchNorm,
    Conv,
    DeadNetworkError,
    GlobalPool,
    Linear,
    Network,
    NetworkBuilder,
    Pool,
)
from host.spaces.base import Candidate, CandidateTextError, Decision, Task

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(to, from), in the order in which the published strings name them."""
_AVERAGE_3X3 = Pool("average", kernel=3, stride=1, padding=1)


@dataclass(frozen=True)
class NasBench201:
    """Three stages of equal cells with residual reductions between them.

    A cell has four nodes; each of its six edges takes one of five operations.
    """

    resolution: int = 32
    width: int = 16
    cells: int = 5
    name: ClassVar[str] = "nasbench201"
    decisions: ClassVar[tuple[Decision, ...]] = tuple(
        Decision(f"{to}<-{source}", OPERATIONS) for to, source in EDGES
    )

    def text(self, candidate: Candidate) -> str:
        """The published form, e.g. `|nor_conv_3x3~0|+|none~0|none~1|+|...|`."""
        nodes: dict[int, str] = {}
        for (to, source), choice in zip(EDGES, candidate.choices, strict=True):
            nodes[to] = nodes.get(to, "|") + f"{OPERATIONS[choice]}~{source}|"
        return "+".join(nodes.values())

    def parse(self, text: str) -> Candidate:
        """The candidate of a published string. Raises CandidateTextError where it is none."""
        found = re.findall(r"(\w+)~(\d)", text)
        known = [(name, int(source)) for name, source in found if name in OPERATIONS]
        if [source for _, source in known] != [source for _, source in EDGES]:
            raise CandidateTextError(
                f"{text!r} is no NAS-Bench-201 cell: it needs six edges such as 'nor_conv_3x3~0', "
                f"in the order |~0|+|~0|~1|+|~0|~1|~2|, of {', '.join(OPERATIONS)}"
            )
        return Candidate(tuple(OPERATIONS.index(name) for name, _ in known))

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The whole network around the cell, dead edges left out.

        An edge is dead where no path from the input reaches it or it reaches no output: what it
        adds is zero at the start and a constant at best. Raises DeadNetworkError where the cell
        joins nothing to its output.
        """
        builder = NetworkBuilder((task.channels, self.resolution, self.resolution))
        index = builder.conv(0, Conv(self.width, kernel=3))
        for stage in range(3):
            channels = self.width << stage
            if stage:
                index = _reduction(builder, index, channels)
            for _ in range(self.cells):
                index = _cell(builder, index, channels, candidate)
        index = builder.add(Activation("relu"), builder.add(BatchNorm(), index))
        index = builder.add(GlobalPool(), index)
        return builder.build(builder.add(Linear(task.classes), index))


def _cell(builder: NetworkBuilder, start: int, channels: int, candidate: Candidate) -> int:
    values: list[int | None] = [start]
    for node in (1, 2, 3):
        incoming: list[int] = []
        for (to, source), choice in zip(EDGES, candidate.choices, strict=True):
            value = values[source] if to == node else None
            if value is None or OPERATIONS[choice] == "none":
                continue
            incoming.append(_edge(builder, value, OPERATIONS[choice], channels))
        values.append(builder.sum(incoming) if incoming else None)
    output = values[3]
    if output is None:
        raise DeadNetworkError("no edge of this cell leads from its input to its output")
    return output


def _edge(builder: NetworkBuilder, value: int, operation: str, channels: int) -> int:
    if operation == "skip_connect":
        return value
    if operation == "avg_pool_3x3":
        return builder.add(_AVERAGE_3X3, value)
    kernel = 3 if operation == "nor_conv_3x3" else 1
    return builder.conv(builder.add(Activation("relu"), value), Conv(channels, kernel))


def _reduction(builder: NetworkBuilder, index: int, channels: int) -> int:
    main = builder.add(Activation("relu"), index)
    main = builder.conv(main, Conv(channels, kernel=3, stride=2), "relu")
    main = builder.conv(main, Conv(channels, kernel=3))
    short = builder.add(Pool("average", kernel=2, stride=2), index)
    short = builder.conv(short, Conv(channels, kernel=1, norm=False))
    return builder.sum([short, main])
