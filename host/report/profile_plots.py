"""Pictures of profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host.measurement import Profile
from host.report.measurement_texts import TEXTS, Language
from host.report.plots import fonts
from host.report.profile import OperatorShare, by_kind, profile_note, slowest_operators

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KIND = "#0b6e4f"
_OPERATOR = "#3b6ea5"
_REST = "#9aa0a6"
_KINDS_SHOWN = 12
_OPERATORS_SHOWN = 12
_LONGEST_NAME = 42


@dataclass(frozen=True)
class NamedProfile:
    """A profile with the words that people know it by."""

    profile: Profile
    model: str
    device: str


def profiles_figure(profiles: Sequence[NamedProfile], language: Language = "en") -> Figure:
    """Shares by kind of operator beside the slowest operators, one row of panels a profile."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with fonts():
        figure = Figure(figsize=(13, 4.6 * len(profiles)), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subfigures(len(profiles), 1, squeeze=False)[:, 0]
        for row, named in zip(rows, profiles, strict=True):
            _draw(row.subplots(1, 2, width_ratios=(1, 1.3)), named, language)
            words = TEXTS[language]
            title = words["profile_title"].format(model=named.model, device=named.device)
            row.suptitle(f"{title}\n{profile_note(named.profile, language)}", fontsize=11)
    return figure


def _draw(panels: Sequence[Axes], named: NamedProfile, language: Language) -> None:
    words = TEXTS[language]
    kinds = _few(by_kind(named.profile, language), words["others"])
    _bars(panels[0], kinds, _KIND, words["profile_kind"])
    _bars(
        panels[1],
        slowest_operators(named.profile, _OPERATORS_SHOWN),
        _OPERATOR,
        words["profile_operator"],
    )
    for panel in panels:
        panel.set_xlabel(words["profile_share_axis"])


def _bars(axes: Axes, rows: Sequence[OperatorShare], color: str, title: str) -> None:
    places = range(len(rows))
    colors = [color if row.count else _REST for row in rows]
    bars = axes.barh(places, [row.share * 100 for row in rows], color=colors)
    labels = [_short(row.name) + (f" ×{row.count}" if row.count > 1 else "") for row in rows]
    axes.set_yticks(list(places), labels, fontsize=8)
    axes.bar_label(bars, [f"{row.share:.1%}" for row in rows], padding=3, fontsize=8)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, axis="x", alpha=0.2)


def _few(rows: list[OperatorShare], others: str) -> list[OperatorShare]:
    """The first rows, and the rest of them as one."""
    if len(rows) <= _KINDS_SHOWN:
        return rows
    shown, rest = rows[: _KINDS_SHOWN - 1], rows[_KINDS_SHOWN - 1 :]
    seconds, share = sum(row.seconds for row in rest), sum(row.share for row in rest)
    return [*shown, OperatorShare(others.format(count=len(rest)), 0, seconds, share)]


def _short(name: str) -> str:
    """The end of a long name: that is where names of operators differ."""
    name = name.replace("$", r"\$")  # matplotlib would read mathematics
    return name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}"
