"""How evenly the parameters matter: the entropy of the spectrum of a Fisher matrix.

Formula: F is the Fisher information of the softmax output for one weight of each layer, the mean
over images of J^T (diag(p) - p p^T) J; q are the nine deciles of its eigenvalues divided by their
sum; the score is the number of weight layers plus -sum q log q. The statistics of normalisations
are those of the batch, held constant. Source: Tybl and Neumann, VKDNW, CVPR 2025
(arXiv:2502.04975). Direction: higher is better. Cost: per image, a backward for each class.
"""

import math

import torch

from host.proxies.base import VKDNW_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence


def vkdnw(evidence: Evidence) -> float:
    """The score; nan where no weight has any information."""
    spectrum = evidence.fisher_spectrum
    if spectrum is None:
        return math.nan
    deciles = torch.quantile(spectrum, torch.linspace(0.1, 0.9, 9, dtype=spectrum.dtype))
    shares = deciles / deciles.sum()
    return len(spectrum) + float(torch.special.entr(shares).sum())


VKDNW = Proxy(
    "vkdnw",
    version=1,
    higher_is_better=True,
    cost="per image",
    needs=frozenset({"fisher_spectrum"}),
    compute=vkdnw,
    formula="weight layers + entropy of the deciles of the Fisher matrix's spectrum",
    source="Tybl and Neumann, VKDNW, CVPR 2025 (arXiv:2502.04975)",
    published=nasbench201(
        VKDNW_TABLE,
        kendall=(0.618, 0.634, 0.622),
        spearman=(0.815, 0.829, 0.814),
        cells="9,445 live",
    ),
)
