"""Number of trainable parameters of the live graph.

Formula: count of weights, biases, and scales and shifts of normalisations on a path from input to
output. Source: the baseline of Abdelfattah et al. 2021 (arXiv:2101.08134) and of the survey
arXiv:2307.01998. Direction: higher is better. Cost: free.
"""

import math

from host.proxies.base import AZ_NAS_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence


def parameters(evidence: Evidence) -> float:
    """The count, as a float."""
    if evidence.network is not None:
        return float(evidence.network.parameters)
    if evidence.module is None:
        return math.nan
    return float(sum(parameter.numel() for parameter in evidence.module.parameters()))


PARAMETERS = Proxy(
    "parameters",
    version=1,
    higher_is_better=True,
    cost="free",
    needs=frozenset(),
    compute=parameters,
    formula="trainable parameters on a path from input to output",
    source="baseline of Abdelfattah et al., ICLR 2021 (arXiv:2101.08134)",
    published=nasbench201(
        AZ_NAS_TABLE, kendall=(0.578, 0.552, 0.520), spearman=(0.751, 0.726, 0.690)
    ),
)
