"""What is published, what `--check` asks for, and what of it is missed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.proxies.judging import TOPS, Figures
from benchmarks.proxies.population import Protocol
from host.proxies.base import Proxy
from host.proxies.catalogue import PROXIES
from host.proxies.ensembles import ENSEMBLES, RECOMMENDED, Ensemble

_POPULATIONS: dict[Protocol, str] = {"all": "15,625", "live": "9,445"}
"""What the name of a published benchmark says of its population."""

Dataset = Literal["CIFAR-10", "CIFAR-100"]

LEAST_CELLS = 2000
KENDALL: dict[Dataset, float] = {"CIFAR-10": 0.80, "CIFAR-100": 0.79}
SPEARMAN: dict[Dataset, float] = {"CIFAR-10": 0.94, "CIFAR-100": 0.935}
KENDALL_TOP = 0.35
"""Within the top 5 %."""
MILLISECONDS = 100.0


@dataclass(frozen=True)
class Baseline:
    """Published Kendall correlations of a label-free score."""

    name: str
    protocol: Protocol
    kendall: dict[Dataset, float]
    source: str


BASELINES = (
    Baseline(
        "Synflow + AZ proxies",
        "all",
        {"CIFAR-10": 0.776, "CIFAR-100": 0.758},
        "Lee and Ham, CVPR 2024, table 5",
    ),
    Baseline(
        "AZ-NAS",
        "all",
        {"CIFAR-10": 0.741, "CIFAR-100": 0.723},
        "Lee and Ham, CVPR 2024, table 1",
    ),
    Baseline(
        "VKDNW_agg", "live", {"CIFAR-10": 0.750, "CIFAR-100": 0.753}, "VKDNW, CVPR 2025, table 1"
    ),
)


def dataset(column: str) -> Dataset | None:
    """The data set of a column, by its name."""
    name = column.lower()
    if name.startswith(("c100", "cifar100", "cifar-100")):
        return "CIFAR-100"
    return "CIFAR-10" if name.startswith(("c10", "cifar10", "cifar-10")) else None


def published(figures: Figures, protocol: Protocol) -> float | None:
    """Kendall's correlation that a paper reports for this proxy or ensemble there."""
    known: Proxy | Ensemble | None = PROXIES.get(figures.name) or ENSEMBLES.get(figures.name)
    on = dataset(figures.column)
    for report in () if known is None else known.published:
        if report.dataset == on and _POPULATIONS[protocol] in report.benchmark:
            return report.kendall
    return None


def missed(
    figures: Sequence[Figures], protocol: Protocol, cells: int, milliseconds: Mapping[str, float]
) -> list[str]:
    """The targets that the recommended ensemble does not reach, each in words."""
    name = RECOMMENDED.name
    found = {dataset(one.column): one for one in figures if one.name == name}
    spent = milliseconds.get(name)
    bars = {
        "the protocol of all cells": protocol == "all",
        f"at least {LEAST_CELLS:,} cells": cells >= LEAST_CELLS,
        f"at most {MILLISECONDS:.0f} ms of CPU a cell": spent is not None and spent <= MILLISECONDS,
    }
    for on, least in KENDALL.items():
        own = found.get(on)
        bars[f"{on} Kendall >= {least}"] = own is not None and _least(own.kendall, least)
        rho = SPEARMAN[on]
        bars[f"{on} Spearman >= {rho}"] = own is not None and _least(own.spearman, rho)
        top = None if own is None else own.kendall_top[TOPS.index(0.05)]
        bars[f"{on} Kendall within the top 5 % >= {KENDALL_TOP}"] = _least(top, KENDALL_TOP)
    return [text for text, holds in bars.items() if not holds]


def _least(value: float | None, bar: float) -> bool:
    return value is not None and value >= bar
