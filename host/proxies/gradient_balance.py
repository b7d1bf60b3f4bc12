"""How evenly gradients arrive at the first and the last block.

Formula: -|log(G_first / G_last)|, G the mean square of the gradient of the summed logits (images
weighed as for `jacob_cov`) with respect to a block's output. Batch normalisation without short cuts
lets gradients grow with depth (Yang et al., ICLR 2019, arXiv:1902.08129); a network that keeps them
level trains more easily (dynamical isometry: Pennington et al., NeurIPS 2017, arXiv:1711.04735).
Ours. Direction: higher is better. Cost: backward, the one of `jacob_cov`.
"""

import math

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


def gradient_balance(evidence: Evidence) -> float:
    """The score; nan with fewer than two blocks, -inf where a block gets no gradient."""
    squares = evidence.block_gradients
    if squares is None or len(squares) < 2:
        return math.nan
    if min(squares[0], squares[-1]) <= 0.0:
        return -math.inf
    return -abs(math.log(squares[0] / squares[-1]))


GRADIENT_BALANCE = Proxy(
    "gradient_balance",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"block_gradients"}),
    compute=gradient_balance,
    formula="-|log(mean square gradient at the first block / at the last block)|",
    source="ours, after Yang et al., ICLR 2019 (arXiv:1902.08129)",
)
