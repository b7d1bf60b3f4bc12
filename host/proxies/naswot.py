"""How well the on/off codes of the activation units tell the images of a batch apart.

Formula: each image has a binary code, one bit per activation unit, set where the input of the
activation is above zero; K_ij counts the units whose bits agree for images i and j; the score is
log |det K|. For ReLU this is the code of the paper; the same rule on the input of the activation
defines it for every other activation. Gates (sigmoids) carry no code. Normalisations use the
statistics of the batch. Source: Mellor et al. 2021 (arXiv:2006.04647v3).
Direction: higher is better. Cost: forward.
"""

import math

import torch

from host.proxies.base import Evidence, Proxy


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
    needs="activation_codes",
    compute=naswot,
)
