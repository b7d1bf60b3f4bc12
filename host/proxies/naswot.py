"""How well the on/off codes of the activation units tell the images of a batch apart.

Formula: each image has a binary code, one bit per activation unit, set where the input of the
activation is above zero; K_ij counts the units whose bits agree for images i and j; the score is
log |det K|. For ReLU this is the code of the paper; the same rule on the input of the activation
defines it for every other activation. Gates (sigmoids) carry no code. Normalisations use the
statistics of the batch. Source: Mellor et al. 2021 (arXiv:2006.04647v3), also called Logdet.
Direction: higher is better. Cost: forward.
"""

import math

import torch

from host.proxies.base import AZ_NAS_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence


def naswot(evidence: Evidence) -> float:
    """The score; nan without activation units, -inf where two images have the same code."""
    if evidence.code_agreement is None:
        return math.nan
    return float(torch.linalg.slogdet(evidence.code_agreement.double()).logabsdet)


NASWOT = Proxy(
    "naswot",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"code_agreement"}),
    compute=naswot,
    formula="log |det K|, K_ij = activation units whose on/off codes agree for images i and j",
    source="Mellor et al., ICML 2021 (arXiv:2006.04647v3)",
    published=nasbench201(
        AZ_NAS_TABLE, kendall=(0.557, 0.579, 0.573), spearman=(0.743, 0.769, 0.760)
    ),
)
