"""How much taking weights away would change the flow of gradients.

Formula: -sum over weights of w (H g), H the Hessian of the mean cross-entropy and g its gradient.
Source: Wang et al., GraSP, 2020 (arXiv:2002.07376), with the sign of Abdelfattah et al. 2021
(arXiv:2101.08134). Direction: higher is better. Cost: second derivative.
"""

import math

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


def grasp(evidence: Evidence) -> float:
    """The sum."""
    layers = evidence.loss_gradients
    if layers is None:
        return math.nan
    return -sum(
        float((each.weight * each.curvature).double().sum())
        for each in layers
        if each.curvature is not None
    )


GRASP = Proxy(
    "grasp",
    version=1,
    higher_is_better=True,
    cost="second derivative",
    needs=frozenset({"curvature"}),
    compute=grasp,
    formula="-sum over weights of w (H g)",
    source="Wang et al., GraSP, ICLR 2020 (arXiv:2002.07376)",
    needs_labels=True,
)
