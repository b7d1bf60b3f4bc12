"""How much the sums of short cuts add up to.

Formula: the logarithm of the variance of the last block's output over images, channels and
positions. Normalised branches have variance 1 each, so it tells how many of them reach the output
side by side, through short cuts (De and Smith, NeurIPS 2020, arXiv:2002.10444). Ours.
Direction: higher is better. Cost: forward.
"""

import math

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


def response_variance(evidence: Evidence) -> float:
    """The logarithm; nan where no blocks are known, -inf for a constant output."""
    variances = evidence.block_variances
    if variances is None:
        return math.nan
    return math.log(variances[-1]) if variances[-1] > 0.0 else -math.inf


RESPONSE_VARIANCE = Proxy(
    "response_variance",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"block_variances"}),
    compute=response_variance,
    formula="log of the variance of the last block's output",
    source="ours, after De and Smith, NeurIPS 2020 (arXiv:2002.10444)",
)
