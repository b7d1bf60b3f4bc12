"""How far the images agree on the direction in which each weight should go.

Formula: sum over weights of |sum over images of sign(g_i)|, g_i the gradient of the image's
cross-entropy; the statistics of normalisations are those of the batch, held constant.
Source: Zhang and Jia, GradSign, ICLR 2022 (arXiv:2110.08616). Direction: higher is better.
Cost: per image.
"""

import math

from host.proxies.base import AZ_NAS_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence


def gradsign(evidence: Evidence) -> float:
    """The sum."""
    return math.nan if evidence.sign_agreement is None else evidence.sign_agreement


GRADSIGN = Proxy(
    "gradsign",
    version=1,
    higher_is_better=True,
    cost="per image",
    needs=frozenset({"sign_agreement"}),
    compute=gradsign,
    formula="sum over weights of |sum over images of sign(g_i)|",
    source="Zhang and Jia, GradSign, ICLR 2022 (arXiv:2110.08616)",
    published=nasbench201(AZ_NAS_TABLE, kendall=(0.618, 0.594, 0.575)),
    needs_labels=True,
)
