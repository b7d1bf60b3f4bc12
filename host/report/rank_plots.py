"""Pictures of rankings: score against cost."""

from __future__ import annotations

import math
from textwrap import fill
from typing import TYPE_CHECKING

from host.ranking.ranking import MACS
from host.report.measurement_lines import percent
from host.report.plots import fonts
from host.report.rank import networks_text
from host.report.rank_texts import TEXTS
from host.report.units import MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from host.ranking.ranking import Place
    from host.report.measurement_texts import Language
    from host.report.rank import NamedRanking

_FRONT = "#0b6e4f"
_PREDICTED = "#b8860b"
_OTHER = "#9aa0a6"
_MILLIONTH = 1e-6
_TITLE_CHARACTERS = 90
_MOST_LABELS = 15
"""More numbers than this would lie on each other."""


def ranking_figure(named: NamedRanking, language: Language = "en") -> Figure:
    """A panel for each device, or one for MACs: all networks, and the front with its intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = tuple(named.ranking.predictors) or (MACS,)
    with fonts():
        figure = Figure(figsize=(7.5 * len(names), 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        for number, name in enumerate(names, start=1):
            axes = figure.add_subplot(1, len(names), number)
            _panel(axes, named.ranking.places, name, language)
        figure.suptitle(_title(named, _TITLE_CHARACTERS * len(names), language), fontsize=10)
    return figure


def _title(named: NamedRanking, characters: int, language: Language) -> str:
    ensemble = named.ranking.ensemble
    networks = networks_text(len(named.ranking.places), language)
    words = TEXTS[language]["picture"]
    first = words.format(source=named.source, networks=networks, judge=ensemble.name)
    return f"{first}\n{fill(ensemble.formula, characters)}"


def _panel(axes: Axes, places: Sequence[Place], name: str, language: Language) -> None:
    words = TEXTS[language]
    factor = _MILLIONTH if name == MACS else MS
    dominated = [place for place in places if not place.costs[name].on_front]
    front = [place for place in places if place.costs[name].on_front]
    if dominated:
        costs = [place.costs[name].value * factor for place in dominated]
        scores = [place.score for place in dominated]
        axes.scatter(costs, scores, s=16, color=_OTHER, label=words["dominated"], zorder=1)
    _intervals(axes, front, name, words["interval"])
    ordered = sorted(front, key=lambda place: place.costs[name].value)
    costs = [place.costs[name].value * factor for place in ordered]
    scores = [place.score for place in ordered]
    axes.plot(costs, scores, "o-", color=_FRONT, ms=6, lw=1.2, label=words["pareto"], zorder=3)
    for place, cost in _labelled(list(zip(ordered, costs, strict=True))):
        axes.annotate(
            str(place.rank),
            (cost, place.score),
            textcoords="offset points",
            xytext=(6, -12),
            color=_FRONT,
        )
    _log_scale(axes)
    key = "x_macs" if name == MACS else "x_latency"
    axes.set_xlabel(words[key].format(device=name))
    axes.set_ylabel(words["y"])
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right")


def _log_scale(axes: Axes) -> None:
    """Numbers on the axis of costs, enough of them however narrow it is."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high >= 5 * low:
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5) if high < 100 * low else (2, 5)))
    if high < 2000 * low:
        axes.xaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _intervals(axes: Axes, front: Sequence[Place], name: str, label: str) -> None:
    """Those of the predictions on the front; one that is open above is drawn below only."""
    told = [(place.score, p) for place in front if (p := place.costs[name].prediction) is not None]
    if not told:
        return
    below = [(p.value - p.low) * MS for _, p in told]
    above = [0.0 if math.isinf(p.high) else (p.high - p.value) * MS for _, p in told]
    axes.errorbar(
        [p.value * MS for _, p in told],
        [score for score, _ in told],
        xerr=[below, above],
        fmt="none",
        ecolor=_PREDICTED,
        lw=1,
        capsize=3,
        label=label.format(level=percent(told[0][1].level)),
        zorder=2,
    )


def _labelled(points: list[tuple[Place, float]]) -> list[tuple[Place, float]]:
    """So many of them, evenly along the front, the best among them."""
    step = math.ceil(len(points) / _MOST_LABELS)
    return points[::-1][::step]
