"""How much the loss would change if each channel were taken away.

Formula: for each channel of each layer's output a (before its normalisation) half the mean over
images of (sum over positions of a dL/da)^2, L the mean cross-entropy; summed over channels.
Source: Turner et al., BlockSwap, 2020 (arXiv:1906.04113), as in Abdelfattah et al. 2021
(arXiv:2101.08134). Direction: higher is better. Cost: backward.
"""

import math

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


def fisher(evidence: Evidence) -> float:
    """The sum."""
    return math.nan if evidence.saliency is None else evidence.saliency


FISHER = Proxy(
    "fisher",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"saliency"}),
    compute=fisher,
    formula="sum over channels of half the mean over images of (sum over positions a dL/da)^2",
    source="Turner et al., ICLR 2020 (arXiv:1906.04113)",
    needs_labels=True,
)
