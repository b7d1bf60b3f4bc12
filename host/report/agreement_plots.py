"""Pictures of predictions against measurements: a panel for each quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from host.calibration.catalogue import Quantity
from host.report.cost import NAMES
from host.report.cost_texts import TEXTS
from host.report.measurement_texts import Language
from host.report.plots import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cost_models.nonnegative import NonNegativeModel

_LINE = "#5f6368"
_WIDEST = 10.0  # of an interval, on the logarithm; what is wider leaves the picture anyhow


@dataclass(frozen=True)
class Point:
    """One network in SI units; `high` is infinite where the interval is open above."""

    predicted: float
    low: float
    high: float
    measured: float
    group: str


@dataclass(frozen=True)
class Look:
    """How the points of a group are drawn, and what people call the group."""

    color: str
    marker: str
    label: str


def held_out_points(model: NonNegativeModel, groups: Sequence[str]) -> list[Point]:
    """Each network that a model was fitted on, as a model without it predicts it, by the group of
    its row; none where there is a single one.
    """
    widths = np.minimum(model.held_out_widths, _WIDEST)
    return [
        Point(value, value / stretch, value * stretch, measured, group)
        for value, stretch, measured, group in zip(
            model.held_out_values.tolist(),
            np.exp(widths).tolist(),
            model.measured_values.tolist(),
            groups,
            strict=False,
        )
    ]


def agreement_figure(
    title: str,
    panels: Mapping[Quantity, Sequence[Point]],
    looks: Mapping[str, Look],
    language: Language,
) -> Figure:
    """Logarithmic axes; quantities without points are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {quantity: points for quantity, points in panels.items() if points}
    with fonts():
        figure = Figure(figsize=(6.0 * max(1, len(shown)), 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        for place, (quantity, points) in enumerate(shown.items(), start=1):
            _panel(figure.add_subplot(1, len(shown), place), quantity, points, looks, language)
        # Names may hold a dollar, which matplotlib would read as mathematics.
        figure.suptitle(title.replace("$", r"\$"), fontsize=11)
    return figure


def _panel(
    axes: Axes,
    quantity: Quantity,
    points: Sequence[Point],
    looks: Mapping[str, Look],
    language: Language,
) -> None:
    words = TEXTS[language]
    _, unit, factor = NAMES[quantity]
    values = [value * factor for point in points for value in (point.predicted, point.measured)]
    ends = min(values) / 1.3, max(values) * 1.3
    axes.plot(ends, ends, color=_LINE, lw=1.0, label=words["equal"], zorder=1)
    for group, look in looks.items():
        own = [point for point in points if point.group == group]
        if own:
            axes.errorbar(
                [point.measured * factor for point in own],
                [point.predicted * factor for point in own],
                yerr=_bars(own, factor),
                fmt=look.marker,
                color=look.color,
                ms=5,
                lw=0.9,
                capsize=2,
                alpha=0.85,
                label=look.label,
            )
    _scale(axes, ends)
    what = words[quantity]
    axes.set_xlabel(words["measured"].format(what=what, unit=unit))
    axes.set_ylabel(words["predicted"].format(what=what, unit=unit))
    axes.grid(visible=True, which="major", alpha=0.2)
    axes.legend(fontsize=8, loc="upper left")


def _scale(axes: Axes, ends: tuple[float, float]) -> None:
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    low, high = ends
    beyond = (high / low) ** 0.1  # room for intervals, however wide some are
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=(low / beyond, high * beyond))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        # A span below a decade may hold a single major tick.
        axis.set_minor_formatter(
            NullFormatter() if high > 10 * low else StrMethodFormatter("{x:g}")
        )


def _bars(points: Sequence[Point], factor: float) -> list[list[float]]:
    """Lengths below and above; a bar that is open is drawn below only."""
    below = [(p.predicted - p.low) * factor for p in points]
    above = [0.0 if math.isinf(p.high) else (p.high - p.predicted) * factor for p in points]
    return [below, above]
