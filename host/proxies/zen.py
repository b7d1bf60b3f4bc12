"""How much a Gaussian network stretches small differences of its input.

Formula: log of the mean of |f(x) - f(x')| plus the sum over normalisation layers of
log sqrt(mean over channels of the variance of their input + e), with Gaussian weights, Gaussian
images x, x' = x + 0.01 noise, f the features before the global pooling and e = 1e-5.
Source: Lin et al., Zen-NAS, ICCV 2021 (arXiv:2102.01063), alg. 1. Direction: higher is better.
Cost: forward, twice.
"""

import math

from host.proxies.base import AZ_NAS_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence

_E = 1e-5


def zen(evidence: Evidence) -> float:
    """The score; -inf where nothing moves."""
    seen = evidence.perturbation
    if seen is None:
        return math.nan
    if seen.difference <= 0.0:
        return -math.inf
    return math.log(seen.difference) + sum(math.log(each + _E) / 2 for each in seen.variances)


ZEN = Proxy(
    "zen",
    version=1,
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"perturbation"}),
    compute=zen,
    formula="log mean|f(x) - f(x + 0.01 noise)| + sum over normalisations of log deviation",
    source="Lin et al., Zen-NAS, ICCV 2021 (arXiv:2102.01063)",
    published=nasbench201(
        AZ_NAS_TABLE, kendall=(0.296, 0.283, 0.303), spearman=(0.365, 0.338, 0.372)
    ),
)
