"""The picture of a calibration: what was predicted of each network without having seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from host.report.agreement_plots import Look, agreement_figure, held_out_points
from host.report.calibration import CalibrationReport
from host.report.calibration_texts import TEXTS
from host.report.measurement_texts import Language

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from host.calibration.catalogue import Quantity
    from host.calibration.specimens import SpecimenKind

_STYLE: dict[SpecimenKind, tuple[str, str]] = {
    "micro-graph": ("#0b6e4f", "o"),
    "network": ("#b8860b", "s"),
    "candidate": ("#3b6ea5", "D"),
}


def calibration_figure(report: CalibrationReport, language: Language = "en") -> Figure:
    """Held-out predictions against measurements, one panel a quantity, each with its interval."""
    words = TEXTS[language]
    panels = {
        cast("Quantity", model.quantity): held_out_points(
            model, [row.kind for row in report.rows_of(model)]
        )
        for model in report.models
    }
    title = words["picture_title"].format(device=report.device, setting=report.setting)
    note = words["picture_note"].format(
        level=f"{100 * report.models[0].level:.0f}", n=len(report.calibration.rows)
    )
    looks: dict[str, Look] = {kind: Look(*style, words[kind]) for kind, style in _STYLE.items()}
    return agreement_figure(f"{title}\n{note}", panels, looks, language)
