"""The picture of a calibration: what was predicted of each network without having seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from host.report.calibration import CalibrationReport
from host.report.calibration_texts import TEXTS
from host.report.measurement_texts import Language
from host.report.plots import fonts
from host.report.units import MB, MS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cost_models.nonnegative import NonNegativeModel
    from host.calibration.calibration import Row
    from host.calibration.specimens import SpecimenKind

_STYLE: dict[SpecimenKind, tuple[str, str]] = {
    "micro-graph": ("o", "#0b6e4f"),
    "network": ("s", "#b8860b"),
    "candidate": ("D", "#3b6ea5"),
}
_DIAGONAL = "#9aa0a6"
_WIDEST = 10.0  # on the logarithm; what is wider leaves the picture anyhow
_SCALES = {"latency_seconds": MS, "peak_rss_bytes": MB, "power_watts": 1.0, "energy_joules": MS}


def calibration_figure(report: CalibrationReport, language: Language = "en") -> Figure:
    """Held-out predictions against measurements, one panel a quantity, each with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = TEXTS[language]
    with fonts():
        models = report.models
        figure = Figure(figsize=(6.2 * len(models), 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        for place, model in enumerate(models, start=1):
            rows = report.rows_of(model)
            _panel(figure.add_subplot(1, len(models), place), model, rows, language)
        title = words["picture_title"].format(device=report.device, setting=report.setting)
        note = words["picture_note"].format(
            level=f"{100 * models[0].level:.0f}", n=len(report.calibration.rows)
        )
        figure.suptitle(f"{title}\n{note}", fontsize=11)
    return figure


def _panel(axes: Axes, model: NonNegativeModel, rows: tuple[Row, ...], language: Language) -> None:
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    words = TEXTS[language]
    scale = _SCALES[model.quantity]
    measured, predicted = model.measured_values * scale, model.held_out_values * scale
    widths = np.minimum(model.held_out_widths, _WIDEST)
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    span = [ends[0] / 1.3, ends[1] * 1.3]
    axes.plot(span, span, color=_DIAGONAL, lw=1.2, label=words["exact"], zorder=1)
    for kind, (marker, color) in _STYLE.items():
        of_kind = np.array([row.kind == kind for row in rows])
        if not of_kind.any():
            continue
        values, stretch = predicted[of_kind], np.exp(widths[of_kind])
        axes.errorbar(
            measured[of_kind],
            values,
            yerr=[values - values / stretch, values * stretch - values],
            fmt=marker,
            color=color,
            ms=5,
            lw=0.8,
            capsize=2,
            alpha=0.85,
            label=words[kind],
        )
    for setter in (axes.set_xscale, axes.set_yscale):
        setter("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        # A span below a decade may hold a single major tick.
        axis.set_minor_formatter(
            NullFormatter() if span[1] / span[0] > 10 else StrMethodFormatter("{x:g}")
        )
    name = words[f"axis.{model.quantity}"]
    beyond = (span[1] / span[0]) ** 0.1  # room for intervals, however wide some are
    axes.set(xlim=span, ylim=[span[0] / beyond, span[1] * beyond])
    axes.set_xlabel(name.format(what=words["axis.measured"]))
    axes.set_ylabel(name.format(what=words["axis.predicted"]))
    axes.grid(visible=True, which="major", alpha=0.2)
    axes.legend(fontsize=8, loc="upper left")
