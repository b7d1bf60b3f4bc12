"""What the survey says of each proxy on a column of accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from benchmarks.proxies.collecting import Collected
from benchmarks.proxies.judging import Figures, judge
from benchmarks.proxies.metrics import partial_spearman, spearman
from benchmarks.proxies.options import validation_of
from benchmarks.proxies.targets import published
from cost_models.nnls import FloatArray
from host.proxies.catalogue import PROXIES
from host.proxies.ensembles import ENSEMBLES

SIZE = "parameters"
"""The proxy that the others must say something beside."""


@dataclass(frozen=True)
class Row:
    """One proxy or ensemble: its figures, Spearman's correlation that its size does not explain,
    CPU time a network, Kendall's correlation that a paper reports, and what it is.
    """

    figures: Figures
    beside_size: float | None
    milliseconds: float | None
    published: float | None
    formula: str
    source: str
    cost: str
    needs_labels: bool

    @property
    def name(self) -> str:
        """Of the proxy or ensemble."""
        return self.figures.name


@dataclass(frozen=True)
class Matrix:
    """Spearman's correlation of every two merits, similar ones side by side; 0 where it is none."""

    names: tuple[str, ...]
    values: FloatArray


@dataclass(frozen=True)
class Column:
    """A column: its rows from the best to the worst, how alike they are, and the ceiling, which is
    what the validation accuracy of trained networks reaches.
    """

    name: str
    classes: int
    rows: tuple[Row, ...]
    matrix: Matrix
    ceiling: Figures | None


def columns_of(
    collected: Collected, milliseconds: Mapping[str, float], *, resamples: int, seed: int
) -> list[Column]:
    """The survey of every column."""
    return [
        _column(collected, name, milliseconds, resamples=resamples, seed=seed)
        for name in collected.population.accuracy
    ]


def _column(
    collected: Collected,
    name: str,
    milliseconds: Mapping[str, float],
    *,
    resamples: int,
    seed: int,
) -> Column:
    found, merits = collected.population, collected.merits(name)
    figures = judge(found, name, merits, resamples=resamples, seed=seed)
    rows = [
        _row(one, merits, found.accuracy[name], milliseconds, published(one, found.protocol))
        for one in figures
    ]
    trained = found.further.get(validation_of(name))
    ceiling = None
    if trained is not None:
        validation = {"validation accuracy": trained}
        (ceiling,) = judge(found, name, validation, resamples=resamples, seed=seed)
    ordered = sorted(
        rows, key=lambda row: -2.0 if row.figures.kendall is None else row.figures.kendall
    )
    return Column(
        name=name,
        classes=collected.settings[name][0].classes,
        rows=tuple(reversed(ordered)),
        matrix=matrix_of(merits),
        ceiling=ceiling,
    )


def _row(
    figures: Figures,
    merits: Mapping[str, FloatArray],
    accuracy: FloatArray,
    milliseconds: Mapping[str, float],
    said: float | None,
) -> Row:
    name = figures.name
    size = merits.get(SIZE)
    beside = None if size is None else partial_spearman(merits[name], accuracy, size)
    ensemble, proxy = ENSEMBLES.get(name), PROXIES.get(name)
    known = ensemble or proxy
    return Row(
        figures=figures,
        beside_size=beside,
        milliseconds=milliseconds.get(name),
        published=said,
        formula="" if known is None else known.formula,
        source="" if known is None else known.source,
        cost="ensemble" if proxy is None else proxy.cost,
        needs_labels=_needs_labels(name),
    )


def _needs_labels(name: str) -> bool:
    ensemble = ENSEMBLES.get(name)
    members = (name,) if ensemble is None else ensemble.members
    return any(PROXIES[member].needs_labels for member in members if member in PROXIES)


def matrix_of(merits: Mapping[str, FloatArray]) -> Matrix:
    """How alike merits order the cells, in the order of an average-linkage clustering."""
    names = list(merits)
    values = np.eye(len(names))
    for row, left in enumerate(names):
        for place, right in enumerate(names[:row]):
            values[row, place] = values[place, row] = spearman(merits[left], merits[right]) or 0.0
    order = _clustered(values)
    return Matrix(tuple(names[place] for place in order), values[np.ix_(order, order)])


def _clustered(values: FloatArray) -> Sequence[int]:
    if len(values) < 3:
        return range(len(values))
    distances = np.clip(1.0 - values, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    order: list[int] = leaves_list(linkage(squareform(distances, checks=False), "average")).tolist()
    return order
