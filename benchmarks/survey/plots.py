"""Pictures of the survey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.proxies.bootstrap import Interval
from benchmarks.proxies.judging import TOPS
from benchmarks.survey.figures import Column, Matrix, Row
from host.proxies.ensembles import RECOMMENDED
from host.report.plots import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS = "#0b6e4f"
_ENSEMBLE = "#3b6ea5"
_PROXY = "#5f6368"
_TOP = "#b8860b"
_ZERO = "#9aa0a6"
_CEILING = "#a4262c"

_LETTER, _LINE, _ASIDE, _DOT = 4.3, 8.5, 7.0, 3.0
_STEPS = (0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6, 8, -8)


def correlation_figure(columns: Sequence[Column]) -> Figure:
    """Kendall's correlation of every score, over all cells and within the best ones; a panel for
    each column.
    """
    tallest = max(len(column.rows) for column in columns)
    with fonts():
        figure = _figure(6.4 * len(columns), 1.6 + 0.26 * tallest)
        for place, column in enumerate(columns, start=1):
            _correlations(figure.add_subplot(1, len(columns), place), column)
    return figure


def cost_figure(columns: Sequence[Column]) -> Figure:
    """Kendall's correlation over CPU time; a panel for each column, names at the points."""
    with fonts():
        figure = _figure(7.6 * len(columns), 6.2)
        for place, column in enumerate(columns, start=1):
            _costs(figure.add_subplot(1, len(columns), place), column)
    return figure


def matrix_figure(matrix: Matrix) -> Figure:
    """Spearman's correlations of every two scores."""
    size = 2.6 + 0.29 * len(matrix.names)
    with fonts():
        figure = _figure(size + 0.6, size)
        axes = figure.add_subplot(1, 1, 1)
        image = axes.imshow(matrix.values, cmap="RdBu", vmin=-1.0, vmax=1.0)
        places = range(len(matrix.names))
        axes.set_xticks(places, matrix.names, rotation=90, fontsize=8)
        axes.set_yticks(places, matrix.names, fontsize=8)
        for row in places:
            for place in places:
                value = matrix.values[row, place]
                axes.text(
                    place,
                    row,
                    f"{round(100 * value)}",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="white" if abs(value) > 0.7 else "black",
                )
        figure.colorbar(image, ax=axes, shrink=0.7, label="Spearman (in the cells: x 100)")
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _correlations(axes: Axes, column: Column) -> None:
    rows = column.rows[::-1]
    places = range(len(rows))
    top = f"within the best {TOPS[0]:.0%}"
    axes.axvline(0.0, color=_ZERO, lw=1.0, zorder=0)
    for place, row in zip(places, rows, strict=True):
        value = row.figures.kendall
        if value is not None:
            axes.errorbar(
                [value],
                [place],
                xerr=_arms(value, row.figures.kendall_interval),
                fmt="o",
                color=_color(row),
                ms=6,
                lw=1.2,
                capsize=2,
            )
    within = [(row.figures.kendall_top[0], place) for place, row in zip(places, rows, strict=True)]
    known = [(value, place) for value, place in within if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "D", mfc="none", color=_TOP, ms=5, label=top)
    axes.plot([], [], "o", color=_PROXY, label="all cells, 95 % interval")
    axes.plot([], [], "o", color=_ENSEMBLE, label="ensembles")
    axes.plot([], [], "o", color=_OURS, label=f"ours: {RECOMMENDED.name}")
    if column.ceiling is not None and column.ceiling.kendall is not None:
        axes.axvline(
            column.ceiling.kendall, color=_CEILING, ls="--", lw=1.2, label="trained: validation"
        )
    axes.set_yticks(places, [row.name for row in rows], fontsize=8)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.set_xlabel("Kendall's tau-b with test accuracy")
    axes.set_title(column.name, fontsize=11)
    axes.grid(visible=True, axis="x", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right", framealpha=1.0)


def _costs(axes: Axes, column: Column) -> None:
    from matplotlib.ticker import StrMethodFormatter

    points = [
        (row, row.milliseconds, row.figures.kendall)
        for row in column.rows
        if row.milliseconds is not None and row.figures.kendall is not None
    ]
    for row, spent, tau in points:
        marker = "s" if row.figures.is_ensemble else "o"
        size = 8 if row.name == RECOMMENDED.name else 5
        axes.plot([spent], [tau], marker, color=_color(row), ms=size)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("CPU ms a network, built and scored alone, one thread")
    axes.set_ylabel("Kendall's tau-b with test accuracy, all cells")
    axes.set_title(column.name, fontsize=11)
    axes.margins(x=0.14, y=0.06)
    axes.grid(visible=True, which="both", alpha=0.2)
    pixels = axes.transData.transform([(spent, tau) for _, spent, tau in points])
    places = (pixels * 72.0 / axes.figure.dpi).tolist()
    offsets = spread([row.name for row, _, _ in points], places)
    for (row, spent, tau), (across, up) in zip(points, offsets, strict=True):
        axes.annotate(
            row.name,
            (spent, tau),
            textcoords="offset points",
            xytext=(across, up),
            ha="left" if across > 0 else "right",
            va="center",
            fontsize=7,
            color=_color(row),
            arrowprops={"arrowstyle": "-", "color": _ZERO, "lw": 0.5, "shrinkA": 0, "shrinkB": 2},
        )


def _color(row: Row) -> str:
    if row.name == RECOMMENDED.name:
        return _OURS
    return _ENSEMBLE if row.figures.is_ensemble else _PROXY


def _arms(value: float, interval: Interval | None) -> list[list[float]] | None:
    if interval is None:
        return None
    # A percentile interval need not hold the value itself.
    return [[max(0.0, value - interval.low)], [max(0.0, interval.high - value)]]


def spread(names: Sequence[str], places: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Offsets of names from their dots so that few of them overlap; all in points of 1/72 inch.

    Each name goes to the free place nearest to its dot, right or left of it, the lower ones first.
    """
    taken = [(x - _DOT, x + _DOT, y) for x, y in places]
    found: dict[int, tuple[float, float]] = {}
    for index in sorted(range(len(names)), key=lambda index: places[index][1]):
        x, y = places[index]
        width = _LETTER * len(names[index])
        offsets = [(side * _ASIDE, step * _LINE / 2) for step in _STEPS for side in (1, -1)]
        free = [
            offset
            for offset in offsets
            if not any(_overlap(_box(x, y, offset, width), box) for box in taken)
        ]
        found[index] = (free or offsets)[0]
        taken.append(_box(x, y, found[index], width))
    return [found[index] for index in range(len(names))]


def _box(
    x: float, y: float, offset: tuple[float, float], width: float
) -> tuple[float, float, float]:
    """Left end, right end and middle line of a name."""
    across, up = offset
    ends = (x + across, x + across + width) if across > 0 else (x + across - width, x + across)
    return (*ends, y + up)


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and abs(one[2] - other[2]) < _LINE
