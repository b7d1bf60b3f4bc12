"""Three terms of AZ-NAS: expressivity, progressivity, trainability; its complexity is `flops`.

Formulas, over the outputs of a network's blocks (stem, cells, residual blocks):
expressivity: sum over blocks of the entropy of the normalised eigenvalues of the covariance of the
channels over images and positions; progressivity: the smallest increase of that entropy from a
block to the next; trainability: mean over pairs of consecutive blocks of -s - 1/s + 2, where s is
the spectral norm of the channel Jacobian between them, estimated by least squares from a backward
pass of random signs and the mean over the positions that are merged.
Source: Lee and Ham 2024 (arXiv:2403.19232), sec. 3.2. Direction: higher is better. Cost: forward;
trainability: backward.
"""

import math
from itertools import pairwise

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence

_SOURCE = "Lee and Ham, AZ-NAS, CVPR 2024 (arXiv:2403.19232), sec. 3.2"


def expressivity(evidence: Evidence) -> float:
    """The summed entropies; nan where no blocks are known."""
    entropies = evidence.block_entropies
    return math.nan if entropies is None else sum(entropies)


def progressivity(evidence: Evidence) -> float:
    """The smallest increase of entropy; nan with fewer than two blocks."""
    entropies = evidence.block_entropies
    if entropies is None or len(entropies) < 2:
        return math.nan
    return min(after - before for before, after in pairwise(entropies))


def trainability(evidence: Evidence) -> float:
    """The mean over pairs of blocks; nan with fewer than two, -inf where nothing comes back."""
    norms = evidence.block_jacobians
    if norms is None:
        return math.nan
    if min(norms) <= 0.0:
        return -math.inf
    return sum(2.0 - norm - 1.0 / norm for norm in norms) / len(norms)


AZ_EXPRESSIVITY = Proxy(
    "az_expressivity",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"block_entropies"}),
    compute=expressivity,
    formula="sum over blocks of the entropy of the spectrum of the channel covariance",
    source=_SOURCE,
)
AZ_PROGRESSIVITY = Proxy(
    "az_progressivity",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"block_entropies"}),
    compute=progressivity,
    formula="smallest increase, from block to block, of the entropy of the channel covariance",
    source=_SOURCE,
)
AZ_TRAINABILITY = Proxy(
    "az_trainability",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"block_jacobians"}),
    compute=trainability,
    formula="mean over blocks of 2 - s - 1/s, s spectral norm of the block's channel Jacobian",
    source=_SOURCE,
)
