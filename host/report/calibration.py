"""The card of a calibration: what was learned of a device, how sure it is, and what is missing."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cost_models.energy import WHOLE
from cost_models.nonnegative import NonNegativeModel
from cost_models.words import facts, three_digits
from host.calibration.calibration import Calibration, Row
from host.calibration.energy import EnergyFit
from host.calibration.setting import Setting
from host.report.calibration_texts import RATES, TEXTS
from host.report.measurement_texts import Language

UNKNOWN = "unknown_bytes"
_UNITS_OF_ONE = ("run", "kernel")  # of a single feature
POWER_QUANTITIES = ("power_watts", "energy_joules")


@dataclass(frozen=True)
class CalibrationReport:
    """A calibration with what people know it by; `energy` is the reason where there is none, and
    None where it was not asked for.
    """

    device: str
    setting: Setting
    at: datetime
    calibration: Calibration
    energy: EnergyFit | str | None = None

    @property
    def models(self) -> tuple[NonNegativeModel, ...]:
        """All that were fitted, latency first."""
        fitted: list[NonNegativeModel] = [self.calibration.latency, self.calibration.memory]
        if isinstance(self.energy, EnergyFit):
            fitted += [self.energy.power, self.energy.energy]
        return tuple(fitted)

    def rows_of(self, model: NonNegativeModel) -> tuple[Row, ...]:
        """The networks behind the rows of one of the models."""
        if isinstance(self.energy, EnergyFit) and model.quantity in POWER_QUANTITIES:
            return self.energy.rows
        return self.calibration.rows

    def source_of(self, model: NonNegativeModel) -> str:
        """What measured the power behind a model of power or energy; empty for the others."""
        if isinstance(self.energy, EnergyFit) and model.quantity in POWER_QUANTITIES:
            return self.energy.source
        return ""


def held_out_error(model: NonNegativeModel, quantile: float) -> float | None:
    """That quantile of |prediction / measured - 1| over the rows, each predicted by a model that
    was fitted without it; None for a single row.
    """
    if not len(model.log_errors):
        return None
    return float(np.quantile(np.abs(np.expm1(-model.log_errors)), quantile))


def calibration_card(report: CalibrationReport, language: Language = "en") -> RenderableType:
    """All of it on a page."""
    words = TEXTS[language]
    title = words["title"].format(device=report.device)
    return Group(Text(title, style="bold"), subjects_table(_subjects(report, words, language)))


def subjects_table(subjects: Iterable[tuple[str, Iterable[str]]]) -> Table:
    """What is said of each subject, line by line, beside its name."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, lines in subjects:
        for place, line in enumerate(lines):
            # Text, because a device's own words must not be read as markup.
            table.add_row("" if place else f"  {name}", Text(line))
    return table


def calibration_record(report: CalibrationReport) -> dict[str, Any]:
    """All of it for programs, in SI units."""
    calibration = report.calibration
    energy = report.energy
    return {
        "device": report.device,
        "runtime": report.setting.runtime,
        "library": report.setting.library,
        "version": report.setting.version,
        "threads": report.setting.threads,
        "at": report.at.isoformat(),
        "n": len(calibration.rows),
        "ended": calibration.ended,
        "networks": [
            {
                "name": row.name,
                "kind": row.kind,
                "measurement": row.number,
                "latency_seconds": row.measurement.latency_seconds,
                "peak_rss_bytes": row.measurement.peak_rss_bytes,
                "verdict": row.measurement.verdict.level,
            }
            for row in calibration.rows
        ],
        "left_out": [
            {"name": one.name, "kind": one.kind, "why": one.why} for one in calibration.left_out
        ],
        "models": {model.quantity: model_record(model) for model in report.models},
        "energy_source": energy.source if isinstance(energy, EnergyFit) else None,
        "energy_absent_because": energy if isinstance(energy, str) else None,
    }


def model_record(model: NonNegativeModel) -> dict[str, Any]:
    """A fitted model for programs; a half-width without an end is null."""
    return {
        "n": model.n,
        "level": model.level,
        "half_width": None if math.isinf(model.half_width) else model.half_width,
        "held_out_error_median": held_out_error(model, 0.5),
        "held_out_error_90": held_out_error(model, 0.9),
        "transferred": model.is_transferred,
        "corrected": model.is_corrected,
        "coefficients": model.coefficients,
        "undetermined": list(undetermined(model)),
    }


def undetermined(model: NonNegativeModel) -> tuple[str, ...]:
    """The features that no measured network has; unknown operators are flagged anyhow."""
    absent = zip(model.feature_names, model.unseen.tolist(), strict=True)
    return tuple(name for name, is_unseen in absent if is_unseen and name != UNKNOWN)


def _subjects(
    report: CalibrationReport, words: Mapping[str, str], language: Language
) -> Iterator[tuple[str, Sequence[str]]]:
    calibration = report.calibration
    kinds = Counter(row.kind for row in calibration.rows)
    yield words["setting"], [str(report.setting)]
    yield words["when"], [f"{report.at.astimezone():%Y-%m-%d %H:%M}"]
    yield (
        words["measured"],
        [
            words["measured_line"].format(
                n=len(calibration.rows),
                micro=kinds["micro-graph"],
                whole=kinds["network"],
                candidates=kinds["candidate"],
                ended=words[f"ended.{calibration.ended}"],
            )
        ],
    )
    for model in report.models:
        yield words[model.quantity], list(model_lines(model, words, language))
    if isinstance(report.energy, EnergyFit):
        fit = report.energy
        source = words["energy_source"].format(
            source=fit.source, scope=fit.scope, kind=fit.kind, n=fit.power.n
        )
        yield "", [source]
    elif report.energy is not None:
        yield words["energy_joules"], [words["energy_absent"].format(why=report.energy)]
    left_out = [
        words["left_out_line"].format(name=one.name, why=one.why) for one in calibration.left_out
    ]
    if left_out:
        left_out.append(words["again"])
    yield words["left_out"], left_out or [words["nothing_left_out"]]


def model_lines(
    model: NonNegativeModel, words: Mapping[str, str], language: Language
) -> Iterator[str]:
    """What a model has learned, how sure it is, and what it has not seen."""
    yield from rates_in_words(model, language)
    median, high = held_out_error(model, 0.5), held_out_error(model, 0.9)
    if median is not None and high is not None:
        width = (
            words["no_width"]
            if math.isinf(model.half_width)
            else words["width"].format(factor=f"{math.exp(model.half_width):.2f}")
        )
        yield words["error_line"].format(
            median=f"{100 * median:.1f}",
            high=f"{100 * high:.0f}",
            level=f"{100 * model.level:.0f}",
            width=width,
        )
    uses = [
        words[name]
        for name, on in (("transferred", model.is_transferred), ("corrected", model.is_corrected))
        if on
    ]
    yield "; ".join(uses) or words["plain"]
    absent = undetermined(model)
    if absent:
        yield words["undetermined"].format(
            names=", ".join(feature_in_words(name, language) for name in absent)
        )


def feature_in_words(name: str, language: Language = "en") -> str:
    """What people call a feature."""
    return RATES[language].get(name, name.replace("_", " "))


def rates_in_words(model: NonNegativeModel, language: Language = "en") -> list[str]:
    """The fitted rates as people say them, one text for each unit, such as "41 µs per operator".

    Rates that the measurements leave undetermined are left out.
    """
    words = RATES[language]
    kinds = dict(model.columns)
    found: dict[tuple[str, str], list[str]] = {}
    for fact in facts(model):
        key = "whole" if fact.name == WHOLE else f"{model.quantity} {kinds[fact.name]}"
        if fact.value is not None and key in words:
            alone = fact.name == WHOLE or kinds[fact.name] in _UNITS_OF_ONE
            what = "" if alone else f"{feature_in_words(fact.name, language)} "
            unit = fact.unit.partition(" per ")[0]
            found.setdefault((key, unit), []).append(what + three_digits(fact.value))
    return [
        words[key].format(rates=", ".join(rates), unit=unit) for (key, unit), rates in found.items()
    ]
