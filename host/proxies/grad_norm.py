"""How large the gradients of the loss are.

Formula: sum over weight tensors of the Euclidean norm of dL/dw, L the mean cross-entropy.
Source: Abdelfattah et al. 2021 (arXiv:2101.08134). Direction: higher is better. Cost: backward.
"""

import math

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


def grad_norm(evidence: Evidence) -> float:
    """The sum."""
    layers = evidence.loss_gradients
    return math.nan if layers is None else sum(float(each.gradient.norm()) for each in layers)


GRAD_NORM = Proxy(
    "grad_norm",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"loss_gradients"}),
    compute=grad_norm,
    formula="sum over weight tensors of ||dL/dw||",
    source="Abdelfattah et al., ICLR 2021 (arXiv:2101.08134)",
    needs_labels=True,
)
