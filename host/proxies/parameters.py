"""Number of trainable parameters of the live graph.

Formula: count of weights, biases, and scales and shifts of normalisations on a path from input to
output. Source: the baseline of Abdelfattah et al. 2021 (arXiv:2101.08134) and of the survey
arXiv:2307.01998. Direction: higher is better. Cost: free.
"""

from host.proxies.base import Evidence, Proxy


def parameters(evidence: Evidence) -> float:
    """The count, as a float."""
    return float(evidence.network.parameters)


PARAMETERS = Proxy(
    "parameters",
    version=1,
    higher_is_better=True,
    cost="free",
    needs="network",
    compute=parameters,
)
