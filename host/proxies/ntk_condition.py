"""How unevenly the network would learn: the condition number of its neural tangent kernel.

Formula: K_ij is the inner product, over all weights, of the gradients of the summed logits for
images i and j; the score is its largest over its smallest eigenvalue. The statistics of
normalisations are those of the batch, held constant. Source: Chen et al., TE-NAS, ICLR 2021
(arXiv:2102.11535), sec. 3.1. Direction: LOWER is better. Cost: per image.
"""

import math

import torch

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


def ntk_condition(evidence: Evidence) -> float:
    """The ratio; inf where the kernel is singular."""
    if evidence.kernel_matrix is None:
        return math.nan
    eigenvalues = torch.linalg.eigvalsh(evidence.kernel_matrix.double())
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    return largest / smallest if smallest > 0.0 else math.inf


NTK_CONDITION = Proxy(
    "ntk_condition",
    version=1,
    higher_is_better=False,
    cost="per image",
    needs=frozenset({"kernel_matrix"}),
    compute=ntk_condition,
    formula="largest over smallest eigenvalue of the neural tangent kernel of the batch",
    source="Chen et al., TE-NAS, ICLR 2021 (arXiv:2102.11535)",
)
