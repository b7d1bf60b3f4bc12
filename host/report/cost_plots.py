"""Pictures of cost models: what was predicted against what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from host.report.agreement_plots import Look, Point, agreement_figure, held_out_points
from host.report.cost_texts import TEXTS
from host.report.measurement_lines import percent
from host.report.measurement_texts import Language

if TYPE_CHECKING:
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


def validation_figure(validation: Validation, language: Language = "en") -> Figure:
    """A panel for each quantity: predictions with their intervals over the measurements."""
    panels = {
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
    }
    predictor = validation.predictor
    return agreement_figure(
        _title(predictor, "validated", language), panels, _looks(predictor, language), language
    )


def held_out_figure(predictor: Predictor, language: Language = "en") -> Figure:
    """A panel for each quantity: each measured network as a model without it predicts it."""
    panels = {
        quantity: held_out_points(found.model, ["held out"] * found.model.n)
        for quantity, found in predictor.models.items()
    }
    return agreement_figure(
        _title(predictor, "picture", language), panels, _looks(predictor, language), language
    )


def _title(predictor: Predictor, which: str, language: Language) -> str:
    named = TEXTS[language][which].format(device=predictor.device.name)
    return f"{named}\n{predictor.setting}"


def _looks(predictor: Predictor, language: Language) -> dict[str, Look]:
    words = TEXTS[language]
    level = percent(next(iter(predictor.models.values())).model.level)
    return {
        place: Look(*style, words[place].format(level=level)) for place, style in _STYLES.items()
    }
