"""How many different patterns over the images the activation units show.

Formula: a unit's pattern is its on/off codes over the images of the batch (63 at most); the score
is the number of distinct patterns over all units. Source: Peng et al., SWAP-NAS, ICLR 2024
(arXiv:2403.04161), without the regularisation by size. Direction: higher is better. Cost: forward.
"""

import math

from host.proxies.base import Proxy, nasbench201
from host.proxies.evidence import Evidence


def swap(evidence: Evidence) -> float:
    """The number; nan without activation units."""
    patterns = evidence.distinct_patterns
    return math.nan if patterns is None else float(patterns)


SWAP = Proxy(
    "swap",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"distinct_patterns"}),
    compute=swap,
    formula="distinct patterns of on/off codes over the images, among all activation units",
    source="Peng et al., SWAP-NAS, ICLR 2024 (arXiv:2403.04161)",
    published=nasbench201(
        "as given by APD, 2025", kendall=(0.634, 0.649, 0.610), spearman=(0.810, 0.820, 0.774)
    ),
)
