"""Pictures of a front."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host.report.units import MS
from host.study.front import FrontReport, OnDevice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_JAPANESE_FONTS = ("Noto Sans CJK JP", "IPAexGothic", "IPAGothic", "Yu Gothic", "Meiryo")
_JAPANESE_FILES = ("notosanscjk-regular", "ipaexg", "ipag", "yugoth", "meiryo")
_FRONT = "#0b6e4f"
_PREDICTED = "#b8860b"
_LIMIT = "#a4262c"
_OTHER = "#9aa0a6"


def front_figure(report: FrontReport) -> Figure:
    """Score against latency, one panel a device: the front, what was measured beside it, limits.

    Measured candidates are filled, predictions hollow with their interval.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with fonts():
        devices = [device.device for device in report.rows[0].devices]
        figure = Figure(figsize=(7.5 * len(devices), 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        for place, device in enumerate(devices, start=1):
            _panel(figure.add_subplot(1, len(devices), place), report, device)
        figure.suptitle(
            f"{report.study}: front of {report.measured} measured and {report.scored} scored "
            "candidates"
        )
    return figure


@cache
def _japanese_fonts() -> tuple[str, ...]:
    """Those that this machine has, also where they are younger than matplotlib's list of fonts."""
    from matplotlib.font_manager import findSystemFonts, fontManager, get_font_names

    if not any(name in get_font_names() for name in _JAPANESE_FONTS):
        for file in findSystemFonts():
            if Path(file).stem.lower().startswith(_JAPANESE_FILES):
                fontManager.addfont(file)
    return tuple(name for name in _JAPANESE_FONTS if name in get_font_names())


@contextmanager
def fonts() -> Iterator[None]:
    """Draws Japanese names where this machine has a font for them; in SVG the browser does."""
    import matplotlib as mpl

    style: Any = {"font.family": ["DejaVu Sans", *_japanese_fonts()], "svg.fonttype": "none"}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def png(figure: Figure) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    with fonts():
        figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The picture as an SVG element to put into a page."""
    buffer = io.StringIO()
    with fonts():
        figure.savefig(
            buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _panel(axes: Axes, report: FrontReport, device: str) -> None:
    from matplotlib.ticker import StrMethodFormatter

    rows = [(row.score, next(d for d in row.devices if d.device == device)) for row in report.rows]
    _others(axes, report, device)
    _predictions(axes, rows)
    _front(axes, rows)
    limit = report.device_limits_seconds.get(device)
    if limit is not None:
        axes.axvline(limit * MS, color=_LIMIT, ls="--", lw=1.2, label=f"limit {limit * MS:g} ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel(f"latency on {device}, ms (median)")
    axes.set_ylabel("score (log-rank, higher is better)")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right")


def _others(axes: Axes, report: FrontReport, device: str) -> None:
    """What was measured and is not on the front."""
    for within, marker, label in (
        (True, "o", "measured, dominated"),
        (False, "x", "measured, beyond a limit"),
    ):
        points = [point for point in report.others if point.within_limits == within]
        if points:
            latency = [point.latency_seconds[device] * MS for point in points]
            scores = [point.score for point in points]
            axes.scatter(latency, scores, s=28, marker=marker, color=_OTHER, label=label)


def _predictions(axes: Axes, rows: list[tuple[float, OnDevice]]) -> None:
    told = [(s, p) for s, d in rows if (p := d.predicted_latency_seconds) is not None]
    if not told:
        return
    below = [(p.value - p.low) * MS for _, p in told]
    above = [(p.value if p.high is None else p.high) * MS - p.value * MS for _, p in told]
    axes.errorbar(
        [p.value * MS for _, p in told],
        [score for score, _ in told],
        xerr=[below, above],
        fmt="D",
        mfc="none",
        color=_PREDICTED,
        ms=6,
        lw=1,
        capsize=3,
        label="predicted before measuring, 90 % interval",
    )


def _front(axes: Axes, rows: list[tuple[float, OnDevice]]) -> None:
    ordered = sorted((d.latency_seconds * MS, score) for score, d in rows)
    latency, scores = zip(*ordered, strict=True)
    label = "Pareto front, measured"
    axes.plot(latency, scores, "o-", color=_FRONT, ms=8, lw=1.2, label=label)
    for number, (score, measured) in enumerate(rows, start=1):
        axes.annotate(
            str(number),
            (measured.latency_seconds * MS, score),
            textcoords="offset points",
            xytext=(6, -12),
            color=_FRONT,
        )
