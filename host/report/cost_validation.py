"""How predictions stood the test: tables for the terminal, and the same for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from host.calibration.calibration import LeftOut
from host.calibration.catalogue import Quantity, calibrate_command
from host.calibration.prediction import Predictor
from host.calibration.validation import LEAST_TO_JUDGE, Check, Summary
from host.report.cost import NAMES, amount, interval, plain
from host.report.cost_records import finite
from host.report.measurement_lines import percent

Record = dict[str, Any]


@dataclass(frozen=True)
class Validation:
    """What was predicted and then measured, by quantity, and what does not count."""

    predictor: Predictor
    checks: Mapping[Quantity, Sequence[Check]]
    summaries: Mapping[Quantity, Summary]
    left_out: Sequence[LeftOut]

    @property
    def holds(self) -> bool | None:
        """Whether all intervals that could be judged hold; None where none could be."""
        verdicts = [summary.holds for summary in self.summaries.values()]
        if False in verdicts:
            return False
        return True if True in verdicts else None

    def verdict(self) -> str:
        """What it means for the device, in one sentence."""
        name = self.predictor.device.name
        if self.holds is None:
            return (
                f"too few intervals of {name} could be judged, {LEAST_TO_JUDGE} are needed: ask for"
                " more with --count"
            )
        if self.holds:
            return f"the intervals hold: what is predicted for {name} can be relied on"
        failed = [NAMES[q][0] for q, summary in self.summaries.items() if summary.holds is False]
        return (
            f"the intervals of {' and '.join(failed)} do not hold: calibrate again with"
            f" `{calibrate_command(self.predictor.device, self.predictor.setting)}`"
        )


def validation_block(validation: Validation) -> RenderableType:
    """A table for each quantity with its figures below, and the verdict."""
    parts: list[RenderableType] = []
    for quantity, checks in validation.checks.items():
        if checks:
            parts += [Text(_title(validation.predictor, quantity), style="bold")]
            parts += [_table(quantity, checks)]
            parts += map(Text, _figures(validation.summaries[quantity]))
    for one in validation.left_out:
        parts.append(Text(f"does not count: {one.name} ({one.why})"))
    sentence = validation.verdict()
    style = {True: "green", False: "bold red", None: "yellow"}[validation.holds]
    parts += [Text(""), Text(sentence[0].upper() + sentence[1:] + ".", style=style)]
    return Group(*parts)


def validation_record(validation: Validation) -> Record:
    """SI units; an interval that is open above has no `predicted_high`."""
    setting = validation.predictor.setting
    return {
        "device": validation.predictor.device.name,
        "runtime": setting.runtime,
        "runtime_library": setting.library,
        "runtime_version": setting.version,
        "threads": setting.threads,
        "quantities": {
            quantity: {
                "models": [_check_record(check) for check in checks],
                "summary": _summary_record(validation.summaries.get(quantity)),
            }
            for quantity, checks in validation.checks.items()
        },
        "left_out": [{"model": one.name, "because": one.why} for one in validation.left_out],
        "holds": validation.holds,
        "verdict": validation.verdict(),
    }


def _title(predictor: Predictor, quantity: Quantity) -> str:
    name = NAMES[quantity][0].capitalize()
    return f"{name} on {predictor.device.name}, {predictor.setting}: predicted, then measured"


def _table(quantity: Quantity, checks: Sequence[Check]) -> RenderableType:
    unit = NAMES[quantity][1]
    level = percent(checks[0].prediction.level)
    table = plain()
    table.add_column("model", overflow="fold")
    table.add_column(f"predicted\n{unit}", justify="right", style="italic", no_wrap=True)
    table.add_column(f"interval\n[{level} %]", justify="right", style="italic", no_wrap=True)
    table.add_column(f"measured\n{unit}", justify="right", no_wrap=True)
    table.add_column("error\n%", justify="right", no_wrap=True)
    table.add_column("inside", no_wrap=True)
    for check in checks:
        table.add_row(
            Text(check.name),
            amount(quantity, check.prediction.value),
            interval(quantity, check.prediction),
            amount(quantity, check.measured),
            f"{100 * check.error:+.1f}",
            _inside(check),
        )
    return table


def _inside(check: Check) -> Text:
    if check.is_inside is None:
        return Text("open", style="yellow")
    return Text("yes") if check.is_inside else Text("no", style="bold red")


def _figures(summary: Summary) -> list[str]:
    rho = "" if summary.rho is None else f", Spearman {summary.rho:.3f}"
    count = "1 model" if summary.n == 1 else f"{summary.n} models"
    errors = (
        f"{count}: median error {100 * summary.median_error:.1f} %, within ±10 %:"
        f" {100 * summary.within_10_percent:.0f} %, within ±25 %:"
        f" {100 * summary.within_25_percent:.0f} %{rho}"
    )
    lines = [errors]
    if summary.judged:
        low, high = summary.expected
        wanted = str(low) if low == high else f"{low} to {high}"
        lines.append(
            f"inside {percent(summary.level)} % intervals: {summary.inside} of {summary.judged},"
            f" expected {wanted}"
        )
    if summary.judged < summary.n:
        lines.append(
            f"{summary.n - summary.judged} without an upper bound: could not fail, not counted"
        )
    return lines


def _check_record(check: Check) -> Record:
    prediction = check.prediction
    return {
        "model": check.name,
        "predicted": prediction.value,
        "predicted_low": prediction.low,
        "predicted_high": finite(prediction.high),
        "level": prediction.level,
        "flagged": list(prediction.flagged),
        "measured": check.measured,
        "error": check.error,
        "inside": check.is_inside,
    }


def _summary_record(summary: Summary | None) -> Record | None:
    if summary is None:
        return None
    low, high = summary.expected
    return {
        "n": summary.n,
        "median_error": summary.median_error,
        "within_10_percent": summary.within_10_percent,
        "within_25_percent": summary.within_25_percent,
        "spearman": summary.rho,
        "judged": summary.judged,
        "inside": summary.inside,
        "expected_inside_low": low,
        "expected_inside_high": high,
        "level": summary.level,
        "holds": summary.holds,
    }
