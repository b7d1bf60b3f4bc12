"""How differently the untrained network responds to images of one class.

Formula: rows J as in jacob_cov; R_c the correlation matrix of the rows of class c; the score is the
sum over classes of |sum over entries log(|R_c| + k)| with k = 1e-5. Classes with one image have
nothing to compare and are left out. Source: Lopes et al. 2021 (arXiv:2102.08099), for up to 100
classes. Direction: higher is better. Cost: backward.
"""

import math

from host.proxies.base import Proxy
from host.proxies.evidence import Evidence
from host.proxies.jacob_cov import correlated_rows

_K = 1e-5


def epe_nas(evidence: Evidence) -> float:
    """The score; nan without two images of one class, and where a row is constant."""
    rows, labels = correlated_rows(evidence.input_gradients), evidence.labels
    if rows is None or labels is None:
        return math.nan
    total, compared = 0.0, False
    for label in set(labels.tolist()):
        same = rows[labels == label]
        if len(same) > 1:
            compared = True
            total += abs(float(((same @ same.T).abs() + _K).log().sum()))
    return total if compared else math.nan


EPE_NAS = Proxy(
    "epe_nas",
    version=2,
    higher_is_better=True,
    cost="backward",
    needs=frozenset({"input_gradients"}),
    compute=epe_nas,
    formula="sum over classes of |sum log(|R_c| + k)|, R_c correlations of input gradients",
    source="Lopes et al., EPE-NAS, 2021 (arXiv:2102.08099)",
    needs_labels=True,
)
