"""Multiply-accumulates of one image through the live graph, which the field calls FLOPs.

Formula: for each convolution, output positions times weights; for each matrix product, its
weights. Source: the baseline of Abdelfattah et al. 2021 (arXiv:2101.08134) and of the survey
arXiv:2307.01998. Direction: higher is better. Cost: free.
"""

from host.proxies.base import Evidence, Proxy


def flops(evidence: Evidence) -> float:
    """The count, as a float."""
    return float(evidence.network.macs)


FLOPS = Proxy(
    "flops", version=1, higher_is_better=True, cost="free", needs="network", compute=flops
)
