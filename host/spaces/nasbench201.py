"""The cell space of NAS-Bench-201 in its macro skeleton.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020, arXiv:2001.00326, sec. 2 and fig. 1. Published accuracies belong to 3x32x32 images,
16 channels and 5 cells a stage: the defaults.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from host.spaces.base import (
    Candidate,
    CandidateTextError,
    Choices,
    Decision,
    Task,
    restricted,
)

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(to, from), in the order in which the published strings name them."""
_AVERAGE_3X3 = Pool("average", kernel=3, stride=1, padding=1)


@dataclass(frozen=True)
class NasBench201:
    """Three stages of equal cells with residual reductions between them.

    A cell has four nodes; each of its six edges takes one of five operations, or of those to which
    `restrict` narrows "operation". A stage has `cells` cells; proxies look at `scoring_cells`.
    """

    resolution: int = 32
    width: int = 16
    cells: int = 5
    scoring_cells: int = 4
    restrict: Mapping[str, Choices] = field(default_factory=dict)
    name: ClassVar[str] = "nasbench201"

    def __post_init__(self) -> None:
        """Raises SpaceChoiceError for a restriction to what the space does not offer."""
        self._operations()

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """What stands on each edge, named as `to<-from`."""
        operations = self._operations()
        return tuple(Decision(f"{to}<-{source}", operations) for to, source in EDGES)

    def text(self, candidate: Candidate) -> str:
        """The published form, e.g. `|nor_conv_3x3~0|+|none~0|none~1|+|...|`."""
        nodes: dict[int, str] = {}
        for (to, source), operation in self._edges(candidate).items():
            nodes[to] = nodes.get(to, "|") + f"{operation}~{source}|"
        return "+".join(nodes.values())

    def parse(self, text: str) -> Candidate:
        """The candidate of a published string. Raises CandidateTextError where it is none."""
        operations = self._operations()
        found = re.findall(r"(\w+)~(\d)", text)
        known = [(name, int(source)) for name, source in found if name in operations]
        if [source for _, source in known] != [source for _, source in EDGES]:
            raise CandidateTextError(
                f"{text!r} is no NAS-Bench-201 cell: it needs six edges such as 'nor_conv_3x3~0', "
                f"in the order |~0|+|~0|~1|+|~0|~1|~2|, of {', '.join(operations)}"
            )
        return Candidate(tuple(operations.index(name) for name, _ in known))

    def build(self, candidate: Candidate, task: Task) -> Network:
        """The whole network around the cell, dead edges left out.

        An edge is dead where no path from the input reaches it or it reaches no output: what it
        adds is zero at the start and a constant at best. Raises DeadNetworkError where the cell
        joins nothing to its output.
        """
        edges = self._edges(candidate)
        builder = NetworkBuilder((task.channels, self.resolution, self.resolution))
        index = builder.block(builder.conv(0, Conv(self.width, kernel=3)))
        for stage in range(3):
            channels = self.width << stage
            if stage:
                index = builder.block(_reduction(builder, index, channels))
            for _ in range(self.cells):
                index = builder.block(_cell(builder, index, channels, edges))
        index = builder.add(Activation("relu"), builder.add(BatchNorm(), index))
        index = builder.add(GlobalPool(), index)
        return builder.build(builder.add(Linear(task.classes), index))

    def scoring_network(self, candidate: Candidate, task: Task) -> Network:
        """The network with `scoring_cells` cells a stage: its cells are equal, so fewer rank alike.

        Raises DeadNetworkError as `build` does.
        """
        return replace(self, cells=min(self.cells, self.scoring_cells)).build(candidate, task)

    def _operations(self) -> tuple[str, ...]:
        offered = restricted(self.name, {"operation": OPERATIONS}, self.restrict)
        return tuple(str(operation) for operation in offered["operation"])

    def _edges(self, candidate: Candidate) -> dict[tuple[int, int], str]:
        """The operation on each edge."""
        chosen = zip(self.decisions, candidate.choices, strict=True)
        operations = [str(decision.choices[index]) for decision, index in chosen]
        return dict(zip(EDGES, operations, strict=True))


def _cell(
    builder: NetworkBuilder, start: int, channels: int, edges: Mapping[tuple[int, int], str]
) -> int:
    values: list[int | None] = [start]
    for node in (1, 2, 3):
        incoming: list[int] = []
        for (to, source), operation in edges.items():
            value = values[source] if to == node else None
            if value is None or operation == "none":
                continue
            incoming.append(_edge(builder, value, operation, channels))
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
