"""Pictures of a front, and how every picture becomes a file or a part of a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category
from xml.etree import ElementTree as ET

from host.report.measurement_texts import Language
from host.report.texts import PLOT_TEXTS
from host.report.units import MS
from host.study.front import FrontReport, FrontRow, OnDevice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_JAPANESE_FONTS = ("Noto Sans CJK JP", "IPAexGothic", "IPAGothic", "Yu Gothic", "Meiryo")
_JAPANESE_FILES = ("notosanscjk-regular", "ipaexg", "ipag", "yugoth", "meiryo")
_FRONT = "#0b6e4f"
_FINALIST = "#c2410c"
_PREDICTED = "#b8860b"
_LIMIT = "#a4262c"
_OTHER = "#9aa0a6"
_LONGEST_NAME = 26
_UNSHOWN = ("Cc", "Cs", "Cn")  # control characters, half of a pair, no character
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def front_figure(
    report: FrontReport, finalists: Sequence[str] = (), language: Language = "en"
) -> Figure:
    """Score against latency, one panel a device profile: the front, what was measured beside it,
    limits, and the finalists by their keys.

    Measured candidates are filled, predictions hollow with their interval.
    """
    words = PLOT_TEXTS[language]
    profiles = report.profiles
    with fonts():
        figure = new_figure(7.5 * max(1, len(profiles)), 4.8)
        for place, profile in enumerate(profiles, start=1):
            axes = figure.add_subplot(1, len(profiles), place)
            _panel(axes, report, profile.name, words, finalists)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8, loc="lower right")
        title = words["plot.title"].format(
            study=report.study, measured=report.measured, scored=report.scored
        )
        figure.suptitle(title, parse_math=False)
    return figure


def panel_figure(
    report: FrontReport, profile: str, words: Mapping[str, str], finalists: Sequence[str] = ()
) -> Figure:
    """The panel of one device profile, without a legend: the page has its own beside it."""
    with fonts():
        figure = new_figure(4.6, 3.5)
        _panel(figure.add_subplot(), report, profile, words, finalists)
    return figure


@cache
def japanese_fonts() -> tuple[str, ...]:
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

    style: Any = {"font.family": ["DejaVu Sans", *japanese_fonts()], "svg.fonttype": "none"}
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


def inline_svg(figure: Figure, label: str) -> str:
    """The picture as an SVG element of HTML: it names no address, not even that of SVG itself, and
    shares no id with another picture of the page. `label` is what it is read out as.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": label}):
        root = ET.fromstring(svg(figure))  # noqa: S314 - matplotlib has just written it
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
    for parent in root.iter():
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    used = _referenced(root)
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def shortened(name: str) -> str:
    """A name that fits below an axis, with a mark for each character that no XML may hold."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if category(c) in _UNSHOWN else c for c in name)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _referenced(root: ET.Element) -> set[str]:
    found: set[str] = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            found.update(_REFERENCE.findall(value))
            if name == "href":
                found.add(value.removeprefix("#"))
    return found


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panel(
    axes: Axes,
    report: FrontReport,
    profile: str,
    words: Mapping[str, str],
    finalists: Sequence[str],
) -> None:
    rows = [
        (number, row, device)
        for number, row in enumerate(report.rows, start=1)
        for device in row.devices
        if device.device == profile
    ]
    _others(axes, report, profile, words)
    _predictions(axes, rows, words)
    if rows:
        _front(axes, rows, words)
        _finalists(axes, rows, words, finalists)
    limit = report.latency_limit_seconds(profile)
    if limit is not None:
        label = words["plot.limit"].format(limit=f"{limit * MS:g}")
        axes.axvline(limit * MS, color=_LIMIT, ls="--", lw=1.2, label=label)
    _scale(axes)
    axes.set_xlabel(words["plot.x"].format(device=shortened(profile)), parse_math=False)
    axes.set_ylabel(words["plot.y"])
    axes.grid(visible=True, which="both", alpha=0.2)


def _scale(axes: Axes) -> None:
    """Logarithmic, with several ticks however small the span: a decade may hold one power of 10."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 5 * low:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    elif high < 200 * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _others(axes: Axes, report: FrontReport, profile: str, words: Mapping[str, str]) -> None:
    """What was measured and is not on the front."""
    for within, marker, label in ((True, "o", "dominated"), (False, "x", "beyond")):
        points = [
            (point.latency_seconds[profile] * MS, point.score)
            for point in report.others
            if point.within_limits == within and profile in point.latency_seconds
        ]
        if points:
            latency, scores = zip(*points, strict=True)
            name = words[f"mark.{label}"]
            axes.scatter(latency, scores, s=22, marker=marker, color=_OTHER, label=name)


def _predictions(
    axes: Axes, rows: Sequence[tuple[int, FrontRow, OnDevice]], words: Mapping[str, str]
) -> None:
    told = [
        (row.score, prediction)
        for _, row, device in rows
        if (prediction := device.predicted_latency_seconds) is not None
    ]
    if not told:
        return
    below = [max(0.0, p.value - p.low) * MS for _, p in told]
    above = [0.0 if p.high is None else max(0.0, p.high - p.value) * MS for _, p in told]
    axes.errorbar(
        [p.value * MS for _, p in told],
        [score for score, _ in told],
        xerr=[below, above],
        fmt="D",
        mfc="none",
        color=_PREDICTED,
        ms=5,
        lw=1,
        capsize=2.5,
        label=words["mark.predicted"],
    )


def _front(
    axes: Axes, rows: Sequence[tuple[int, FrontRow, OnDevice]], words: Mapping[str, str]
) -> None:
    ordered = sorted((device.latency_seconds * MS, row.score) for _, row, device in rows)
    latency, scores = zip(*ordered, strict=True)
    axes.plot(latency, scores, "o-", color=_FRONT, ms=6, lw=1.1, label=words["mark.front"])
    for number, row, device in rows:
        axes.annotate(
            str(number),
            (device.latency_seconds * MS, row.score),
            textcoords="offset points",
            xytext=(5, -11),
            fontsize=8,
            color=_FRONT,
        )


def _finalists(
    axes: Axes,
    rows: Sequence[tuple[int, FrontRow, OnDevice]],
    words: Mapping[str, str],
    finalists: Sequence[str],
) -> None:
    points = [
        (device.latency_seconds * MS, row.score) for _, row, device in rows if row.key in finalists
    ]
    if points:
        latency, scores = zip(*points, strict=True)
        axes.scatter(
            latency,
            scores,
            s=130,
            marker="*",
            color=_FINALIST,
            edgecolors="white",
            linewidths=0.6,
            zorder=4,
            label=words["mark.finalist"],
        )
