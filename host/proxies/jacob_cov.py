"""How differently the untrained network responds to different images.

Formula: J holds, one row per image, the gradient of the summed logits with respect to the image;
R is the correlation matrix of the rows, v its eigenvalues; the score is
-sum(log(v + k) + 1 / (v + k)) with k = 1e-5. Normalisations use the statistics of the batch, so
images are weighed +1 and -1 in turn: the plain sum of a network that ends in a normalisation is the
same whatever the images, and its gradient is rounding.
Source: Mellor et al. 2020 (arXiv:2006.04647v1); Abdelfattah et al. 2021 (arXiv:2101.08134).
Direction: higher is better. Cost: backward.
"""

import math

import torch

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence

_K = 1e-5


def jacob_cov(evidence: Evidence) -> float:
    """The score; nan where the logits do not depend on an image or where a row is constant."""
    rows = correlated_rows(evidence.input_gradients)
    if rows is None:
        return math.nan
    # The matrix is symmetric and positive semi-definite; what rounding takes below zero is zero.
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T).clamp(min=0.0) + _K
    return -float((eigenvalues.log() + 1.0 / eigenvalues).sum())


def correlated_rows(gradients: torch.Tensor | None) -> torch.Tensor | None:
    """Rows whose inner products are their correlations, float64; None where one is constant."""
    if gradients is None:
        return None
    rows = gradients.double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norms).all()) or float(norms.min()) == 0.0:
        return None
    scaled: torch.Tensor = rows / norms
    return scaled


JACOB_COV = Proxy(
    "jacob_cov",
    version=2,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"input_gradients"}),
    compute=jacob_cov,
    formula="-sum(log(v + k) + 1 / (v + k)), v eigenvalues of the correlations of input gradients",
    source="Mellor et al. 2020 (arXiv:2006.04647v1)",
)
