"""Multiply-accumulates of one image through the live graph, which the field calls FLOPs.

Formula: for each convolution, output positions times weights; for each matrix product, its
weights. Source: the baseline of Abdelfattah et al. 2021 (arXiv:2101.08134) and of the survey
arXiv:2307.01998. Direction: higher is better. Cost: free.
"""

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence
from host.proxies.layers import left_as_it_was


def flops(evidence: Evidence) -> float:
    """The count, as a float; of a module that is not of our spaces for an image of the batch."""
    if evidence.network is not None:
        return float(evidence.network.macs)
    if evidence.module is None or evidence.images is None:
        return math.nan
    counter = FlopCounterMode(display=False)
    with left_as_it_was(evidence.module), torch.no_grad(), counter:
        evidence.module.eval()(evidence.images[:1])
    return float(counter.get_total_flops()) / 2


FLOPS = Proxy(
    "flops",
    version=1,
    higher_is_better=True,
    cost="free",
    needs=frozenset(),
    compute=flops,
    formula="multiply-accumulates of one image on a path from input to output",
    source="baseline of Abdelfattah et al., ICLR 2021 (arXiv:2101.08134)",
)
