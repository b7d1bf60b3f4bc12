"""How steady the gradients are from one half of the batch to the other.

Formula: for each weight tensor the logarithm of the sum over its weights of mean|g| / std|g|, over
the gradients of the two halves (statistics of magnitudes, as the paper writes them, std of the
population); weights whose deviation is 0 are left out, and tensors with none left; summed over
tensors. The halves share one forward pass, so normalisations see the whole batch.
Source: Li et al., ZiCo, ICLR 2023 (arXiv:2301.11300), eq. 16. Direction: higher is better.
Cost: backward, twice.
"""

import math

from host.proxies.base import AZ_NAS_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence


def zico(evidence: Evidence) -> float:
    """The sum; nan where no gradient differs between the halves."""
    total, found = 0.0, False
    for layer in evidence.loss_gradients or ():
        if layer.halves is None:
            continue
        first, second = (half.abs() for half in layer.halves)
        # Of two numbers: the mean is half their sum, the deviation half their difference.
        deviation = (first - second).abs()
        ratios = ((first + second) / deviation)[deviation > 0]
        if len(ratios):
            total += math.log(float(ratios.double().sum()))
            found = True
    return total if found else math.nan


ZICO = Proxy(
    "zico",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"half_gradients"}),
    compute=zico,
    formula="sum over layers of log(sum over weights of mean|g| / std|g|), over two half batches",
    source="Li et al., ZiCo, ICLR 2023 (arXiv:2301.11300)",
    published=nasbench201(
        AZ_NAS_TABLE, kendall=(0.589, 0.590, 0.584), spearman=(0.784, 0.813, 0.804)
    ),
    needs_labels=True,
)
