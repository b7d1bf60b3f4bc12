"""How much signal flows through the untrained network, whatever the data.

Formulas, over the network of magnitudes (see `flow`) and R the sum of its logits for an image of
ones: `synflow` is log(sum over weights of w dR/dw); `log_synflow` takes log(1 + dR/dw) for the
gradient, so that a few enormous ones do not decide alone. The logarithm outside keeps the order
and lets people read it. Source: Tanaka et al. 2020 (arXiv:2006.05467), Abdelfattah et al. 2021
(arXiv:2101.08134); Cavagnero et al., FreeREA, 2023 (arXiv:2207.05135). Direction: higher is better.
Cost: backward, of a single image.
"""

import math

from host.proxies.base import AZ_NAS_TABLE, Proxy, nasbench201
from host.proxies.evidence import Evidence


def synflow(evidence: Evidence) -> float:
    """The score; -inf where no signal arrives."""
    if evidence.flow is None:
        return math.nan
    pairs = zip(evidence.flow.weights, evidence.flow.gradients, strict=True)
    return _log(sum(float((weight * gradient).sum()) for weight, gradient in pairs))


def log_synflow(evidence: Evidence) -> float:
    """The score; -inf where no signal arrives."""
    if evidence.flow is None:
        return math.nan
    pairs = zip(evidence.flow.weights, evidence.flow.gradients, strict=True)
    return _log(sum(float((weight * gradient.log1p()).sum()) for weight, gradient in pairs))


def _log(total: float) -> float:
    return math.log(total) if total > 0.0 else -math.inf


SYNFLOW = Proxy(
    "synflow",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"flow"}),
    compute=synflow,
    formula="log(sum over weights of |w| dR/d|w|), R the summed logits of an image of ones",
    source="Tanaka et al., NeurIPS 2020 (arXiv:2006.05467)",
    published=nasbench201(
        AZ_NAS_TABLE, kendall=(0.571, 0.565, 0.555), spearman=(0.769, 0.758, 0.745)
    ),
)
LOG_SYNFLOW = Proxy(
    "log_synflow",
    version=1,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"flow"}),
    compute=log_synflow,
    formula="log(sum over weights of |w| log(1 + dR/d|w|)), R as for synflow",
    source="Cavagnero et al., FreeREA, WACV 2023 (arXiv:2207.05135)",
)
