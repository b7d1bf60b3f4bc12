"""The picture of drift: every sentinel over the rounds, and the sums that decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cost_models.drift import CLIP, H, K
from host.calibration.sentinels import SentinelKind
from host.report.drift import state_sentence
from host.report.drift_texts import TEXTS
from host.report.plots import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cost_models.drift import Chart, Drift
    from host.calibration.drift import DriftReport
    from host.calibration.sentinels import References
    from host.report.measurement_texts import Language

_COLORS: Mapping[SentinelKind, str] = {
    "compute": "#3b6ea5",
    "memory": "#b8860b",
    "overhead": "#7b4b94",
}
_MARKERS: Mapping[SentinelKind, str] = {"compute": "o", "memory": "s", "overhead": "^"}
_TOGETHER = "#0b6e4f"
_ALARM = "#a4262c"
_BAND = "#9aa0a6"
_TIMES_SHOWN = 12
_SLOWER = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 4.0, 9.0)
_CHANGES = (-0.9, -0.75, -0.5, -0.3, -0.2, -0.1, -0.05, 0.0, *_SLOWER)
"""Where the axis of ratios has marks, within what is shown."""


def drift_figure(report: DriftReport, language: Language = "en") -> Figure:
    """Ratios over the rounds above, CUSUM of the common part and of each sentinel's share below.

    Needs references; without rounds the panels are empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = TEXTS[language]
    with fonts():
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        FigureCanvasAgg(figure)
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        if report.references is not None and report.drift is not None:
            _ratios(top, report, report.references, report.drift, words)
            _sums(below, report.references, report.drift, words)
            _times(below, report, words)
        title = words["title"].format(device=report.device, setting=report.setting)
        figure.suptitle(f"{title}\n{state_sentence(report, language)}", fontsize=10)
    return figure


def _ratios(
    axes: Axes,
    report: DriftReport,
    references: References,
    drift: Drift,
    words: Mapping[str, str],
) -> None:
    from matplotlib.ticker import NullLocator

    sigma = math.sqrt(
        sum(one.noise.round**2 + one.noise.reference**2 for one in references.sentinels)
        / len(references.sentinels)
    )
    axes.axhline(0, color=_BAND, lw=0.8)
    axes.axhspan(-K * sigma, K * sigma, color=_BAND, alpha=0.18, lw=0, label=words["band"])
    for column, one in enumerate(references.sentinels):
        counted: list[tuple[int, float]] = []
        left_out: list[tuple[int, float]] = []
        for index, done in enumerate(report.rounds, start=1):
            reading = done.readings[column]
            if reading.ratio is not None and reading.ratio > 0:
                place = left_out if reading.not_counted_because else counted
                place.append((index, math.log(reading.ratio)))
        color, marker = _COLORS[one.kind], _MARKERS[one.kind]
        # Names may hold a dollar, which matplotlib would read as mathematics.
        label = f"{words[one.kind]}: {one.name}".replace("$", r"\$")
        _scatter(axes, counted, color=color, marker=marker, label=label)
        _scatter(axes, left_out, color=color, marker="x", label=None)
    if any(reading.not_counted_because for done in report.rounds for reading in done.readings):
        axes.scatter([], [], color=_BAND, marker="x", label=words["uncounted"])
    _levels(axes, drift.common, words["level"])
    axes.set_ylabel(words["axis"])
    low, high = axes.get_ylim()
    low, high = min(low, -2 * K * sigma), max(high, 2 * K * sigma)
    shown = [change for change in _CHANGES if low <= math.log1p(change) <= high]
    axes.set_yticks([math.log1p(change) for change in shown], [f"{c:+.0%}" for c in shown])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)
    axes.grid(visible=True, alpha=0.2)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _scatter(
    axes: Axes, points: Sequence[tuple[int, float]], *, color: str, marker: str, label: str | None
) -> None:
    at, values = [place for place, _ in points], [value for _, value in points]
    axes.scatter(at, values, color=color, marker=marker, s=26, linewidths=1.0, label=label)


def _levels(axes: Axes, chart: Chart, label: str) -> None:
    """A step for each state, with its interval."""
    for place, state in enumerate(chart.states):
        rounds = [index for index, of in enumerate(chart.places, start=1) if of == place]
        if not rounds:
            continue
        ends = [rounds[0] - 0.5, rounds[-1] + 0.5]
        axes.plot(ends, [state.level] * 2, color=_TOGETHER, lw=1.8, label=label)
        if state.level != 0:
            low, high = state.level - state.half_width, state.level + state.half_width
            axes.fill_between(ends, low, high, color=_TOGETHER, alpha=0.15, lw=0)
        label = ""


def _sums(axes: Axes, references: References, drift: Drift, words: Mapping[str, str]) -> None:
    """Upwards the sums of slower, downwards those of quicker."""
    axes.axhline(0, color=_BAND, lw=0.8)
    for sign in (1, -1):
        axes.axhline(sign * H, color=_ALARM, ls="--", lw=1.0, label=words["alarm"] * (sign > 0))
    series = [(words["together"], _TOGETHER, "-", drift.common)]
    for one, chart in zip(references.sentinels, drift.shapes, strict=True):
        label = words["shape"].format(kind=words[one.kind])
        series.append((label, _COLORS[one.kind], ":", chart))
    for label, color, style, chart in series:
        rounds = range(1, len(chart.peaks) + 1)
        line: dict[str, Any] = {"color": color, "ls": style, "lw": 1.3, "marker": ".", "ms": 4}
        axes.plot(rounds, [up for up, _ in chart.peaks], label=label, **line)
        axes.plot(rounds, [-down for _, down in chart.peaks], **line)
    axes.set_ylim(-2 * CLIP, 2 * CLIP)
    axes.set_ylabel(f"{words['sums']}\n← {words['down']} | {words['up']} →", fontsize=9)
    axes.grid(visible=True, alpha=0.2)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _times(axes: Axes, report: DriftReport, words: Mapping[str, str]) -> None:
    """The rounds stand at equal distances, as they do in the sums; their times stand below."""
    count = len(report.rounds)
    axes.set_xlim(0.4, max(count, 1) + 0.6)
    step = max(1, math.ceil(count / _TIMES_SHOWN))
    shown = range(0, count, step)
    axes.set_xticks(
        [index + 1 for index in shown],
        [report.rounds[index].at.astimezone().strftime("%m-%d\n%H:%M") for index in shown],
        fontsize=8,
    )
    axes.set_xlabel(words["rounds_axis"])
