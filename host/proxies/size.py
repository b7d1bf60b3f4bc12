"""Gradient-free baselines: how many layers, how deep, how large the weights.

Formulas: `layers` counts weight tensors of convolutions and matrix products; `depth` is the most of
them on one path from input to output; `l2_norm` sums the Euclidean norms of these tensors.
Source: the baselines of Abdelfattah et al. 2021 (arXiv:2101.08134, l2_norm) and of Tybl and
Neumann 2025 (layers). Direction: higher is better. Cost: free; `l2_norm` draws the weights.
"""

import math

from host.network.graph import Conv, Linear
from host.proxies.base import Proxy
from host.proxies.evidence import Evidence
from host.proxies.layers import weight_layers


def layers(evidence: Evidence) -> float:
    """The number of weight tensors."""
    if evidence.network is not None:
        return float(sum(isinstance(n.layer, Conv | Linear) for n in evidence.network.nodes))
    return math.nan if evidence.module is None else float(len(weight_layers(evidence.module)))


def depth(evidence: Evidence) -> float:
    """The most weight tensors on a path; nan for a module that is not of our spaces."""
    if evidence.network is None:
        return math.nan
    deepest: list[int] = []
    for node in evidence.network.nodes:
        before = max((deepest[index] for index in node.inputs), default=0)
        deepest.append(before + isinstance(node.layer, Conv | Linear))
    return float(deepest[-1])


def l2_norm(evidence: Evidence) -> float:
    """The sum of the tensors' norms."""
    if evidence.module is None:
        return math.nan
    return float(sum(float(each.weight.detach().norm()) for each in weight_layers(evidence.module)))


LAYERS = Proxy(
    "layers",
    version=1,
    higher_is_better=True,
    cost="free",
    needs=frozenset(),
    compute=layers,
    formula="number of weight tensors of convolutions and matrix products",
    source="Tybl and Neumann, CVPR 2025 (part of VKDNW)",
)
DEPTH = Proxy(
    "depth",
    version=1,
    higher_is_better=True,
    cost="free",
    needs=frozenset(),
    compute=depth,
    formula="most weight tensors on a path from input to output",
    source="baseline of the survey (arXiv:2307.01998)",
)
L2_NORM = Proxy(
    "l2_norm",
    version=1,
    higher_is_better=True,
    cost="free",
    needs=frozenset({"module"}),
    compute=l2_norm,
    formula="sum over weight tensors of ||w||",
    source="baseline of Abdelfattah et al., ICLR 2021 (arXiv:2101.08134)",
)
