"""How many boundaries of linear regions lie between the images.

Formula: the mean over pairs of images of the number of activation units whose on/off codes differ.
A straight line from one image to the other crosses at least one boundary for each such unit
(Hanin and Rolnick 2019, arXiv:1901.09021), so unlike the number of different codes (Chen et al.
2021, TE-NAS, arXiv:2102.11535, sec. 3.2), which every network of ordinary width brings to the size
of the batch, it does not saturate. Direction: higher is better. Cost: forward.
"""

import math

from host.proxies.base import AZ_NAS_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence


def linear_regions(evidence: Evidence) -> float:
    """The mean; nan without activation units."""
    agreement = evidence.code_agreement
    if agreement is None:
        return math.nan
    images = len(agreement)
    units = float(agreement[0, 0])
    agreeing = float(agreement.sum() - agreement.trace()) / (images * (images - 1))
    return units - agreeing


LINEAR_REGIONS = Proxy(
    "linear_regions",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"code_agreement"}),
    compute=linear_regions,
    formula="mean over pairs of images of the activation units whose on/off codes differ",
    source="Hanin and Rolnick, ICML 2019 (arXiv:1901.09021); Chen et al., TE-NAS, ICLR 2021",
    published=nasbench201(
        f"TE-NAS (with the NTK): {AZ_NAS_TABLE}",
        kendall=(0.536, 0.535, 0.492),
        spearman=(0.70, 0.67, 0.64),
    ),
)
