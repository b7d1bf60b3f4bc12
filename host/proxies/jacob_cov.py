"""How differently the untrained network responds to different images.

Formula: J holds, one row per image, the gradient of the summed logits with respect to the image;
R is the correlation matrix of the rows, v its eigenvalues; the score is
-sum(log(v + k) + 1 / (v + k)) with k = 1e-5. Normalisations use the statistics of the batch.
Source: Mellor et al. 2020 (arXiv:2006.04647v1); Abdelfattah et al. 2021 (arXiv:2101.08134).
Direction: higher is better. Cost: backward.
"""

import math

import torch

from host.proxies.base import Evidence, Proxy

_K = 1e-5


def jacob_cov(evidence: Evidence) -> float:
    """The score; nan where the logits do not depend on an image or where a row is constant."""
    gradients = evidence.input_gradients
    if gradients is None:
        return math.nan
    rows = gradients.double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norms).all()) or float(norms.min()) == 0.0:
        return math.nan
    rows = rows / norms
    # The matrix is symmetric and positive semi-definite; what rounding takes below zero is zero.
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T).clamp(min=0.0) + _K
    return -float((eigenvalues.log() + 1.0 / eigenvalues).sum())


JACOB_COV = Proxy(
    "jacob_cov",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs="input_gradients",
    compute=jacob_cov,
)
