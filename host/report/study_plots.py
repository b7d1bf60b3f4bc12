"""Pictures of the course of a study, and of scores against what training made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from host.report.plots import fonts, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from host.study.finalist import Trial
    from host.study.front import FrontReport

_LINE = "#0b6e4f"
_TRIAL = "#5f6368"
_FINALIST = "#c2410c"


def hypervolume_figure(front: FrontReport, words: Mapping[str, str]) -> Figure:
    """The share of the objectives that the front dominated, as candidates were scored; small."""
    with fonts():
        figure = new_figure(4.6, 2.2)
        axes = figure.add_subplot()
        scored = [count for count, _ in front.hypervolume]
        shares = [100 * share for _, share in front.hypervolume]
        axes.step(scored, shares, where="post", color=_LINE, lw=1.3)
        axes.plot(scored, shares, "o", color=_LINE, ms=3)
        axes.set_xlabel(words["hypervolume.scored"])
        axes.set_ylabel(words["hypervolume.share"])
        axes.grid(visible=True, alpha=0.2)
    return figure


def agreement_figure(
    pairs: Sequence[tuple[Trial, float]], epochs: int, words: Mapping[str, str]
) -> Figure:
    """Score of the untrained network against its quality after so many epochs."""
    with fonts():
        figure = new_figure(4.6, 3.2)
        axes = figure.add_subplot()
        for finalist, color, marker, size in (
            (False, _TRIAL, "o", 26),
            (True, _FINALIST, "*", 110),
        ):
            own = [(trial.score, quality) for trial, quality in pairs if trial.finalist == finalist]
            if own:
                scores, qualities = zip(*own, strict=True)
                axes.scatter(scores, qualities, s=size, marker=marker, color=color, zorder=3)
        axes.set_xlabel(words["plot.score"])
        axes.set_ylabel(words["plot.quality"].format(epochs=epochs))
        axes.grid(visible=True, alpha=0.2)
    return figure
