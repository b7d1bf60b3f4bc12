"""What a proxy is: a number from an untrained network, and what it is computed from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from host.proxies.evidence import Evidence

Cost = Literal["free", "forward", "backward", "second derivative", "per image"]
"""What one score takes: the graph alone, forward passes, a forward and backward passes over the
batch, a derivative of the gradient, or a gradient for each image of the batch."""

Need = Literal[
    "module",
    "code_agreement",
    "distinct_patterns",
    "block_entropies",
    "block_variances",
    "block_gradients",
    "smallest_correlations",
    "input_gradients",
    "block_jacobians",
    "loss_gradients",
    "half_gradients",
    "curvature",
    "saliency",
    "kernel_matrix",
    "sign_agreement",
    "fisher_spectrum",
    "flow",
    "perturbation",
]
"""A part of the evidence: see the attribute of `Evidence` of that name."""


@dataclass(frozen=True)
class Published:
    """A correlation of scores with accuracies that a paper reports."""

    benchmark: str
    dataset: str
    kendall: float | None
    spearman: float | None
    source: str


@dataclass(frozen=True)
class Proxy:
    """A named way to score an untrained network; scores of two versions are not compared.

    `compute` is a pure function of the network and of the evidence named by `needs`; it may return
    a number that is not finite where the network has no score. `formula` is one line for people.
    """

    name: str
    version: int
    higher_is_better: bool
    cost: Cost
    needs: frozenset[Need]
    compute: Callable[[Evidence], float]
    formula: str
    source: str
    published: tuple[Published, ...] = ()
    needs_labels: bool = False


AZ_NAS_TABLE = "J. Lee and B. Ham, AZ-NAS, CVPR 2024 (arXiv:2403.19232), table 1"
VKDNW_TABLE = "O. Tybl and L. Neumann, VKDNW, CVPR 2025, table 1"


def nasbench201(
    source: str,
    *,
    kendall: tuple[float, float, float] | None = None,
    spearman: tuple[float, float, float] | None = None,
    cells: Literal["all 15,625", "9,445 live"] = "all 15,625",
) -> tuple[Published, ...]:
    """Published correlations on CIFAR-10, CIFAR-100 and ImageNet16-120, in this order."""
    names = ("CIFAR-10", "CIFAR-100", "ImageNet16-120")
    nothing = (None, None, None)
    return tuple(
        Published(f"NAS-Bench-201, {cells} cells", name, tau, rho, source)
        for name, tau, rho in zip(names, kendall or nothing, spearman or nothing, strict=True)
    )
