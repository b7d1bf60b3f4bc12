"""How wide, deep and short-cut the blocks of a network are.

Formulas, for each block between two marked ends: w the mean channels of its weight layers, d the
most weight layers on a path through it, l its additions (each is the end of a short cut),
density = l / (d (d + 1) / 2). `nn_mass` is the sum over blocks of w d density, `nn_degree` the sum
of w + l / (weight layers). The papers count concatenated channels of DenseNet-like cells; here a
short cut is an addition. Source: Bhardwaj et al. 2021 (arXiv:1910.00780); Li et al., FLASH, 2021
(arXiv:2108.00568). Direction: higher is better. Cost: free.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from host.network.graph import Add, Conv, Linear, Network
from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


@dataclass(frozen=True)
class _Block:
    width: float
    depth: int
    layers: int
    links: int


def nn_mass(evidence: Evidence) -> float:
    """The sum; nan where no blocks are known."""
    if evidence.network is None or not evidence.network.blocks:
        return math.nan
    return sum(
        block.width * block.depth * block.links / max(1.0, block.depth * (block.depth + 1) / 2)
        for block in _blocks(evidence.network)
    )


def nn_degree(evidence: Evidence) -> float:
    """The sum; nan where no blocks are known."""
    if evidence.network is None or not evidence.network.blocks:
        return math.nan
    return sum(
        block.width + block.links / max(1, block.layers) for block in _blocks(evidence.network)
    )


def _blocks(network: Network) -> Iterator[_Block]:
    """Nodes stand in an order in which they run, so a block is what lies between two ends."""
    start = 1
    for end in network.blocks:
        deepest: dict[int, int] = {}
        widths: list[int] = []
        links = 0
        for index in range(start, end + 1):
            node = network.nodes[index]
            weighs = isinstance(node.layer, Conv | Linear)
            before = max((deepest.get(source, 0) for source in node.inputs), default=0)
            deepest[index] = before + weighs
            links += isinstance(node.layer, Add)
            if weighs:
                widths.append(node.shape[0])
        width = sum(widths) / len(widths) if widths else 0.0
        yield _Block(width, deepest[end], len(widths), links)
        start = end + 1


NN_MASS = Proxy(
    "nn_mass",
    version=1,
    higher_is_better=True,
    cost="free",
    needs=frozenset(),
    compute=nn_mass,
    formula="sum over blocks of width * depth * density of short cuts",
    source="Bhardwaj et al., CVPR 2021 (arXiv:1910.00780)",
)
NN_DEGREE = Proxy(
    "nn_degree",
    version=1,
    higher_is_better=True,
    cost="free",
    needs=frozenset(),
    compute=nn_degree,
    formula="sum over blocks of width + short cuts per weight layer",
    source="Li et al., FLASH, 2021 (arXiv:2108.00568)",
)
