"""How far the channels of a feature map are from repeating each other.

Formula: for each convolution and matrix product, after its normalisation, the smallest eigenvalue
of the Pearson correlation matrix of the channels over the positions of the first image,
correlations that do not exist taken as 0; summed over layers. Layers with one channel or one
position have none.
Source: Jiang et al., MeCo, NeurIPS 2023. Direction: higher is better. Cost: forward.
"""

import math

from host.proxies.base import Proxy, nasbench201
from host.proxies.evidence import Evidence


def meco(evidence: Evidence) -> float:
    """The sum; nan where no layer has channels to correlate."""
    values = evidence.smallest_correlations
    return math.nan if values is None else sum(values)


MECO = Proxy(
    "meco",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"smallest_correlations"}),
    compute=meco,
    formula="sum over layers of the smallest eigenvalue of the channel correlations of one image",
    source="Jiang et al., MeCo, NeurIPS 2023",
    published=nasbench201("MeCo, table 1", spearman=(0.894, 0.883, 0.845)),
)
