"""A comparison as a picture: quality against latency, and apart from it the untrained scores."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from host.evaluation.entries import KINDS
from host.evaluation.texts import TEXTS
from host.report.plots import fonts, new_figure
from host.report.units import MS, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from host.evaluation.entries import Comparison, Entry, Kind, Measure
    from host.report.measurement_texts import Language
    from host.study.front import OnDevice, Predicted

    _Panel = Callable[[Axes, Comparison, str, Mapping[str, str]], None]

_COLOURS: dict[Kind, str] = {
    "own model": "#1d4e89",
    "finalist": "#c2410c",
    "candidate": "#0b6e4f",
}
_MARKS: dict[Kind, str] = {"own model": "s", "finalist": "*", "candidate": "o"}
_PREDICTED = "#b8860b"
_LIMIT = "#a4262c"
_SIZES: dict[Kind, float] = {"own model": 8.0, "finalist": 13.0, "candidate": 7.0}


def comparison_figure(comparison: Comparison, language: Language = "en") -> Figure:
    """A column for each place. In the first row what is trained, quality against latency, and where
    qualities are of two measures a row for each; in the last the untrained candidates by score, a
    number of another kind, with own models as lines. Without any quality and any candidate the
    latencies alone.
    """
    words = TEXTS[language]
    rows: list[_Panel] = [partial(_quality_panel, measure) for measure in comparison.measures]
    if comparison.of_kind("candidate"):
        rows.append(_score_panel)
    rows = rows or [_latency_panel]
    columns = len(comparison.places)
    with fonts():
        figure = new_figure(7.5 * columns, 4.6 * len(rows))
        for column, place in enumerate(comparison.places):
            top = None
            for row, draw in enumerate(rows):
                cell = row * columns + column + 1
                axes = figure.add_subplot(len(rows), columns, cell, sharex=top)
                top = top or axes
                axes.set_xscale("log")
                axes.margins(x=0.2)
                draw(axes, comparison, place.name, words)
                _finish(axes, comparison, place.name, words)
            for axes in figure.axes[-len(rows) :]:
                _name_ticks(axes)
        title = words["title"]
        if comparison.study is not None:
            title = words["title_study"].format(study=comparison.study)
        figure.suptitle(title, parse_math=False)
    return figure


def _quality_panel(
    measure: Measure, axes: Axes, comparison: Comparison, place: str, words: Mapping[str, str]
) -> None:
    before = words["interval"]
    for kind in KINDS:
        label = words[kind]
        for entry in comparison.of_kind(kind):
            found = entry.on.get(place)
            if found is None or entry.quality is None or entry.quality.measure != measure:
                continue
            score = entry.quality.score
            _cost_interval(axes, found, score.value)
            _marked(axes, entry, found, score.value, label)
            told = entry.predicted.get(place)
            if told is not None:
                _prediction(axes, told, score.value, before)
                before = "_nolegend_"
            axes.errorbar(
                [found.latency_seconds * MS],
                [score.value],
                yerr=[[score.value - score.low], [score.high - score.value]],
                fmt="none",
                ecolor=_COLOURS[kind],
                lw=1,
                capsize=3,
            )
            label = "_nolegend_"
    without = [e for e in comparison.of_kind("own model") if e.quality is None]
    _lines(axes, without, place, words["own_no_quality"])
    axes.set_ylabel(words["y_quality"].format(measure=measure))


def _score_panel(axes: Axes, comparison: Comparison, place: str, words: Mapping[str, str]) -> None:
    label = words["candidate"]
    for entry in comparison.of_kind("candidate"):
        found = entry.on.get(place)
        if found is None or entry.score is None:
            continue
        _cost_interval(axes, found, entry.score)
        _marked(axes, entry, found, entry.score, label)
        label = "_nolegend_"
    _lines(axes, comparison.of_kind("own model"), place, words["own_line"])
    axes.set_ylabel(words["y_score"])


def _latency_panel(
    axes: Axes, comparison: Comparison, place: str, words: Mapping[str, str]
) -> None:
    entries = [entry for entry in comparison.entries if entry.on.get(place) is not None]
    label = words["interval"]
    for row, entry in enumerate(reversed(entries)):
        found = entry.on[place]
        _cost_interval(axes, found, row)
        _marked(axes, entry, found, row, "_nolegend_")
        told = entry.predicted.get(place)
        if told is not None:
            _prediction(axes, told, row - 0.2, label)
            label = "_nolegend_"
    axes.set_yticks([])
    axes.set_ylim(-0.8, max(0.8, len(entries) - 0.2))


def _marked(axes: Axes, entry: Entry, found: OnDevice, height: float, label: str) -> None:
    """The entry at its latency and that height; hollow where the verdict rejects the figure."""
    colour = _COLOURS[entry.kind]
    axes.plot(
        [found.latency_seconds * MS],
        [height],
        marker=_MARKS[entry.kind],
        ls="none",
        color=colour,
        mfc="none" if found.verdict == "REJECT" else colour,
        ms=_SIZES[entry.kind],
        label=label,
        zorder=3,
    )
    axes.annotate(
        entry.label,
        (found.latency_seconds * MS, height),
        textcoords="offset points",
        xytext=(7, 5),
        color=colour,
        fontsize=9,
        parse_math=False,
    )


def _cost_interval(axes: Axes, found: OnDevice, height: float) -> None:
    value = found.latency_seconds
    below, above = value - found.latency_low_seconds, found.latency_high_seconds - value
    axes.errorbar(
        [value * MS],
        [height],
        xerr=[[max(0.0, below) * MS], [max(0.0, above) * MS]],
        fmt="none",
        ecolor="#444444",
        lw=1,
        capsize=2,
    )


def _prediction(axes: Axes, told: Predicted, height: float, label: str) -> None:
    high = told.value if told.high is None or math.isinf(told.high) else told.high
    axes.errorbar(
        [told.value * MS],
        [height],
        xerr=[[(told.value - told.low) * MS], [(high - told.value) * MS]],
        fmt="D",
        mfc="none",
        color=_PREDICTED,
        ms=5,
        lw=1,
        capsize=3,
        label=label,
    )


def _lines(axes: Axes, entries: Sequence[Entry], place: str, label: str) -> None:
    """Own models at their latency, without a height: they have no such number."""
    for entry in entries:
        found = entry.on.get(place)
        if found is None:
            continue
        at = found.latency_seconds * MS
        axes.axvline(at, color=_COLOURS["own model"], lw=1.4, ls=":", label=label)
        axes.annotate(
            entry.label,
            (at, 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="right",
            color=_COLOURS["own model"],
            fontsize=9,
            parse_math=False,
        )
        label = "_nolegend_"


def _finish(axes: Axes, comparison: Comparison, place: str, words: Mapping[str, str]) -> None:
    for limit in comparison.limits:
        if limit.device == place and limit.quantity == "latency_seconds":
            at = limit.maximum * MS
            text = words["limit"].format(ms=significant(at))
            axes.axvline(at, color=_LIMIT, ls="--", lw=1.2, label=text)
    axes.set_xlabel(words["x_latency"].format(place=place), parse_math=False)
    axes.grid(visible=True, which="both", alpha=0.2)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, loc="best")


def _name_ticks(axes: Axes) -> None:
    """Numbers on the axis of latencies, enough of them however narrow it is."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if high < 100 * low:
        subs = (1.5, 2, 3, 4, 5, 6, 8) if high < 10 * low else (2, 3, 5)
        axes.xaxis.set_minor_locator(LogLocator(subs=subs))
        axes.xaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
