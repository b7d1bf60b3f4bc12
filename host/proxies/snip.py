"""How much the loss would change if each weight were taken away, to first order.

Formulas: `snip` is the sum over weights of |w dL/dw|, `plain` the sum of w dL/dw.
Source: Lee et al., SNIP, 2019 (arXiv:1810.02340); both as in Abdelfattah et al. 2021
(arXiv:2101.08134). Direction: higher is better, though `plain` is published with a negative
correlation. Cost: backward.
"""

import math

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence


def snip(evidence: Evidence) -> float:
    """The sum of magnitudes."""
    layers = evidence.loss_gradients
    if layers is None:
        return math.nan
    return sum(float((each.weight * each.gradient).abs().sum()) for each in layers)


def plain(evidence: Evidence) -> float:
    """The sum with its signs."""
    layers = evidence.loss_gradients
    if layers is None:
        return math.nan
    return sum(float((each.weight * each.gradient).double().sum()) for each in layers)


SNIP = Proxy(
    "snip",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"loss_gradients"}),
    compute=snip,
    formula="sum over weights of |w dL/dw|",
    source="Lee et al., SNIP, ICLR 2019 (arXiv:1810.02340)",
    needs_labels=True,
)
PLAIN = Proxy(
    "plain",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"loss_gradients"}),
    compute=plain,
    formula="sum over weights of w dL/dw",
    source="Abdelfattah et al., ICLR 2021 (arXiv:2101.08134)",
    needs_labels=True,
)
