"""Combinations of complementary proxies by their ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from host.errors import UsageError
from host.proxies.base import AZ_NAS_TABLE, VKDNW_TABLE, Published, nasbench201
from host.proxies.catalogue import PROXIES, proxies_by_name
from host.proxies.rank import directions, log_rank


@dataclass(frozen=True)
class Ensemble:
    """Proxies whose log-ranks are summed, each times its weight."""

    name: str
    weights: Mapping[str, float]
    source: str
    published: tuple[Published, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of its proxies."""
        return tuple(self.weights)

    @property
    def formula(self) -> str:
        """One line for people."""
        terms = (
            name if weight == 1 else f"{weight:g} x {name}" for name, weight in self.weights.items()
        )
        return f"sum of log(rank / N) over {', '.join(terms)}"


def _equal(*members: str) -> dict[str, float]:
    return dict.fromkeys(members, 1.0)


_AZ = ("az_expressivity", "az_progressivity", "az_trainability", "flops")

AZ_NAS = Ensemble(
    "az_nas",
    _equal(*_AZ),
    "Lee and Ham, AZ-NAS, CVPR 2024 (arXiv:2403.19232)",
    nasbench201(AZ_NAS_TABLE, kendall=(0.741, 0.723, 0.710), spearman=(0.913, 0.900, 0.886)),
)
SYNFLOW_AZ = Ensemble(
    "synflow_az",
    _equal(*_AZ, "synflow"),
    "Lee and Ham, AZ-NAS, CVPR 2024, table 5",
    nasbench201("J. Lee and B. Ham, AZ-NAS, CVPR 2024, table 5", kendall=(0.776, 0.758, 0.747)),
)
VKDNW_AGG = Ensemble(
    "vkdnw_agg",
    _equal("vkdnw", "jacob_cov", "az_expressivity", "az_trainability", "flops"),
    "Tybl and Neumann, VKDNW, CVPR 2025 (arXiv:2502.04975)",
    nasbench201(
        VKDNW_TABLE,
        kendall=(0.750, 0.753, 0.743),
        spearman=(0.919, 0.919, 0.906),
        cells="9,445 live",
    ),
)
TE_NAS = Ensemble(
    "te_nas",
    _equal("ntk_condition", "linear_regions"),
    "Chen et al., TE-NAS, ICLR 2021 (arXiv:2102.11535), by log-ranks here",
    nasbench201(AZ_NAS_TABLE, kendall=(0.536, 0.535, 0.492), spearman=(0.70, 0.67, 0.64)),
)
GENBA = Ensemble(
    "genba",
    {
        "flops": 1.0,
        "jacob_cov": 0.75,
        "az_expressivity": 0.5,
        "gradient_balance": 0.5,
        "az_trainability": 0.25,
        "response_variance": 0.25,
        "depth": 0.25,
    },
    "ours; weights chosen by accuracies of some 2,200 random cells of NAS-Bench-201",
)

ENSEMBLES: dict[str, Ensemble] = {
    each.name: each for each in (GENBA, SYNFLOW_AZ, AZ_NAS, VKDNW_AGG, TE_NAS)
}
RECOMMENDED = GENBA


def ensemble_by_name(name: str) -> Ensemble:
    """The ensemble of that name. Raises UsageError for a name that is none."""
    if name not in ENSEMBLES:
        raise UsageError(f'there is no ensemble "{name}"; choose from {", ".join(ENSEMBLES)}')
    return ENSEMBLES[name]


def combine(ensemble: Ensemble, scores: Mapping[str, Sequence[float]]) -> npt.NDArray[np.float64]:
    """The ensemble's rank among these candidates as a number; higher is better.

    `scores` holds one sequence for each member, all over the same candidates. Numbers of two calls
    are not comparable. Raises ValueError where a member's scores are missing.
    """
    missing = sorted(set(ensemble.members) - set(scores))
    if missing:
        raise ValueError(f"the ensemble {ensemble.name} needs scores of {', '.join(missing)}")
    ways = directions(proxies_by_name(tuple(PROXIES)))
    total = np.zeros(len(scores[ensemble.members[0]]))
    for name, weight in ensemble.weights.items():
        total += weight * log_rank({name: scores[name]}, ways)
    return total
