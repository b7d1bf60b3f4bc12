"""What the sentinels of a device say, as a table, as a sentence and as a record for programs."""

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cost_models.drift import Chart
from host.calibration.drift import DriftReport
from host.calibration.sentinels import Reading
from host.report.drift_texts import TEXTS
from host.report.measurement_texts import Language
from host.report.units import milliseconds

ROUNDS_SHOWN = 20
_ABSENT = "–"


def drift_block(report: DriftReport, language: Language = "en") -> RenderableType:
    """Sentinels with their references, the newest rounds, and how the device is."""
    words = TEXTS[language]
    parts: list[RenderableType] = [
        Text(words["title"].format(device=report.device, setting=report.setting), style="bold")
    ]
    if report.references is not None:
        parts += [_references(report, language), _rounds(report, language)]
        hidden = len(report.rounds) - ROUNDS_SHOWN
        if hidden > 0:
            parts.append(Text(words["rounds_left_out"].format(count=hidden)))
    parts.append(Text(state_sentence(report, language)))
    return Group(*parts)


def state_sentence(report: DriftReport, language: Language = "en") -> str:
    """How the device is."""
    words = TEXTS[language]
    if report.drift is None or not any(report.drift.counted):
        return words["nothing"].format(device=report.device)
    match report.verdict:
        case "too little to tell":
            return words["odd"].format(device=report.device)
        case "steady":
            return words["steady"].format(device=report.device)
        case "reshaped":
            return words["reshaped"].format(device=report.device, since=_since(report))
        case "shifted":
            low, high = report.interval or (report.ratio, report.ratio)
            return words["shifted"].format(
                device=report.device,
                since=_since(report),
                ratio=f"{report.ratio:.1%}",
                low=f"{low:.1%}",
                high=f"{high:.1%}",
            )


def drift_record(report: DriftReport) -> dict[str, Any]:
    """The same for programs; absent is null."""
    references = report.references
    return {
        "device": report.device,
        "runtime": report.setting.runtime,
        "library": report.setting.library,
        "version": report.setting.version,
        "threads": report.setting.threads,
        "verdict": report.verdict,
        "ratio": report.ratio,
        "ratio_low": None if report.interval is None else report.interval[0],
        "ratio_high": None if report.interval is None else report.interval[1],
        "since": None if report.since is None else report.since.isoformat(),
        "sentence": report.sentence(),
        "advice": report.advice() or None,
        "calibrated_at": None if references is None else references.measured_at.isoformat(),
        "sentinels": [
            {
                "kind": one.kind,
                "name": one.name,
                "model_sha256": one.model_sha256,
                "reference_seconds": one.reference_seconds,
                "noise": one.noise.round,
                "repeats": one.repeats,
            }
            for one in (() if references is None else references.sentinels)
        ],
        "rounds": [
            {
                "at": one.at.isoformat(),
                "ratios": [reading.ratio for reading in one.readings],
                "verdicts": [reading.verdict for reading in one.readings],
                "not_counted_because": [r.not_counted_because or None for r in one.readings],
                "level": _level(report, index),
            }
            for index, one in enumerate(report.rounds)
        ],
    }


def _references(report: DriftReport, language: Language) -> Table:
    words = TEXTS[language]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "", f"{words['reference']} ms", words["noise"], "n"):
        table.add_column(column, justify="left" if not column else "right")
    for one in report.references.sentinels if report.references is not None else ():
        # Text, because names of networks must not be read as markup.
        table.add_row(
            Text(words[one.kind]),
            Text(one.name),
            milliseconds(one.reference_seconds),
            f"±{one.noise.round:.1%}",
            str(one.repeats),
        )
    return table


def _rounds(report: DriftReport, language: Language) -> Table:
    words = TEXTS[language]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(words["time"])
    for one in report.references.sentinels if report.references is not None else ():
        table.add_column(words[one.kind], justify="right")
    table.add_column(words["together"], justify="right")
    table.add_column(words["state"])
    first = max(0, len(report.rounds) - ROUNDS_SHOWN)
    for index, done in enumerate(report.rounds[first:], start=first):
        table.add_row(
            done.at.astimezone().strftime("%Y-%m-%d %H:%M"),
            *(Text(_reading(reading)) for reading in done.readings),
            _together(report, index),
            Text(_state(report, index, language)),
        )
    return table


def _reading(reading: Reading) -> str:
    if reading.ratio is None:
        return _ABSENT
    ratio = f"{reading.ratio - 1:+.1%}"
    if reading.not_counted_because:
        return f"({ratio}) {reading.verdict}"
    return f"{ratio} {reading.verdict}"


def _together(report: DriftReport, index: int) -> str:
    level = _value(report, index)
    return _ABSENT if level is None else f"{level - 1:+.1%}"


def _state(report: DriftReport, index: int, language: Language) -> str:
    """The state that a round belongs to, and why readings of it do not count."""
    words, drift = TEXTS[language], report.drift
    if drift is None:
        return ""
    reasons = {r.not_counted_because for r in report.rounds[index].readings} - {""}
    left_out = words["not_counted"].format(why=", ".join(sorted(reasons))) if reasons else ""
    if not drift.counted[index]:
        return left_out
    level = drift.common.level_at(index)
    if any(chart.level_at(index) != 0 for chart in drift.shapes):
        state = words["states.reshaped"]
    elif level == 0:
        state = words["states.reference"]
    else:
        state = f"{words['states.shifted']} {_level(report, index) - 1:+.1%}"
    if any(_is_odd(chart, index) for chart in (drift.common, *drift.shapes)):
        state = words["odd_round"].format(state=state)
    return f"{state} ({left_out})" if left_out else state


def _is_odd(chart: Chart, index: int) -> bool:
    """Whether a round was odd and the later ones did not follow it."""
    place = chart.places[index]
    begins = place > 0 and chart.states[place].start == index
    return chart.is_doubtful_at(index) and not begins


def _level(report: DriftReport, index: int) -> float:
    """The ratio of the state that a round belongs to."""
    return 1.0 if report.drift is None else math.exp(report.drift.common.level_at(index))


def _value(report: DriftReport, index: int) -> float | None:
    """The ratio of a round itself, all sentinels together; None where it does not count."""
    if report.drift is None or not report.drift.counted[index]:
        return None
    return math.exp(report.drift.common.values[index])


def _since(report: DriftReport) -> str:
    since = report.since
    return _ABSENT if since is None else since.astimezone().strftime("%Y-%m-%d %H:%M")
