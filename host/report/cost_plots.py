"""Pictures of cost models: what was predicted against what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from host.calibration.catalogue import Quantity
from host.report.cost import NAMES
from host.report.cost_texts import TEXTS
from host.report.measurement_lines import percent
from host.report.measurement_texts import Language
from host.report.plots import fonts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from host.calibration.prediction import Predictor
    from host.report.cost_validation import Validation

Place = Literal["held out", "inside", "outside", "unbounded"]
_STYLES: dict[Place, tuple[str, str]] = {
    "held out": ("#3b6ea5", "o"),
    "inside": ("#0b6e4f", "o"),
    "outside": ("#a4262c", "X"),
    "unbounded": ("#b8860b", "^"),
}
_PLACES: dict[bool | None, Place] = {True: "inside", False: "outside", None: "unbounded"}
_LINE = "#5f6368"


@dataclass(frozen=True)
class Point:
    """One network in SI units; `high` is infinite where the interval is open above."""

    predicted: float
    low: float
    high: float
    measured: float
    place: Place


def validation_figure(validation: Validation, language: Language = "en") -> Figure:
    """A panel for each quantity: predictions with their intervals over the measurements."""
    points = {
        quantity: [
            Point(
                check.prediction.value,
                check.prediction.low,
                check.prediction.high,
                check.measured,
                _PLACES[check.is_inside],
            )
            for check in checks
        ]
        for quantity, checks in validation.checks.items()
        if checks
    }
    return _figure(points, validation.predictor, "validated", language)


def held_out_figure(predictor: Predictor, language: Language = "en") -> Figure:
    """A panel for each quantity: each measured network as models without it predict it.

    The intervals are those of the model that knows it, so none is said to hold or not.
    """
    points: dict[Quantity, list[Point]] = {}
    for quantity, found in predictor.models.items():
        model = found.model
        points[quantity] = [
            Point(value, value * p.low / p.value, value * p.high / p.value, measured, "held out")
            for p, value, measured in zip(
                model.predict_rows(model.measured_rows),
                model.held_out_values.tolist() or model.measured_values.tolist(),
                model.measured_values.tolist(),
                strict=True,
            )
        ]
    return _figure(points, predictor, "picture", language)


def _figure(
    points: Mapping[Quantity, Sequence[Point]],
    predictor: Predictor,
    title: str,
    language: Language,
) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = TEXTS[language]
    level = next(iter(predictor.models.values())).model.level
    with fonts():
        figure = Figure(figsize=(6.0 * len(points), 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        for place, (quantity, of_quantity) in enumerate(points.items(), start=1):
            axes = figure.add_subplot(1, len(points), place)
            _panel(axes, quantity, of_quantity, percent(level), language)
        named = words[title].format(device=predictor.device.name)
        figure.suptitle(f"{named}\n{predictor.setting}", fontsize=11)
    return figure


def _panel(
    axes: Axes, quantity: Quantity, points: Sequence[Point], level: str, language: Language
) -> None:
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    words = TEXTS[language]
    _, unit, factor = NAMES[quantity]
    values = [value for p in points for value in (p.predicted * factor, p.measured * factor)]
    ends = [min(values) / 1.3, max(values) * 1.3]
    axes.plot(ends, ends, color=_LINE, lw=1.0, label=words["equal"], zorder=1)
    for place, (color, marker) in _STYLES.items():
        own = [point for point in points if point.place == place]
        if own:
            axes.errorbar(
                [p.measured * factor for p in own],
                [p.predicted * factor for p in own],
                yerr=_ends_of(own, factor),
                fmt=marker,
                color=color,
                ms=6,
                lw=0.9,
                capsize=2,
                label=words[place].format(level=level),
            )
    axes.set(xscale="log", yscale="log", xlim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        minor: Any = StrMethodFormatter("{x:g}") if ends[1] < 10 * ends[0] else NullFormatter()
        axis.set_minor_formatter(minor)
    what = words[quantity]
    axes.set_xlabel(words["measured"].format(what=what, unit=unit))
    axes.set_ylabel(words["predicted"].format(what=what, unit=unit))
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8, loc="upper left")


def _ends_of(points: Sequence[Point], factor: float) -> list[list[float]]:
    """Lengths of the bars below and above; an open one is drawn below only."""
    below = [(p.predicted - p.low) * factor for p in points]
    above = [0.0 if math.isinf(p.high) else (p.high - p.predicted) * factor for p in points]
    return [below, above]
