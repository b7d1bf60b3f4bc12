"""Predictions of cost models for the terminal, and where they come from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cost_models.base import Prediction
from cost_models.kernels import KernelGraph
from host.calibration.catalogue import Quantity
from host.calibration.explanation import Explanation, KernelShare
from host.calibration.prediction import Absent, Forecast, Predictor
from host.report.measurement_lines import ABSENT, percent
from host.report.units import MB, MJ, MS, significant

MAX_KERNELS = 20
"""Longer graphs are shown by class, and then with their DEAREST kernels only."""
DEAREST = 12

NAMES: Mapping[Quantity, tuple[str, str, float]] = {
    "latency_seconds": ("latency", "ms", MS),
    "peak_rss_bytes": ("peak memory", "MB", MB),
    "energy_joules": ("energy", "mJ", MJ),
    "power_watts": ("power", "W", 1.0),
}
"""What people call a quantity, the unit that they read it in, and the factor to it from SI."""


@dataclass(frozen=True)
class PredictedModel:
    """A model's file and what a device's cost models say of it."""

    model: str
    predictor: Predictor
    graph: KernelGraph
    forecasts: Mapping[Quantity, Forecast]

    @property
    def latency_seconds(self) -> float:
        """The predicted one. Raises KeyError where the device has no model of it."""
        found = self.forecasts["latency_seconds"]
        if isinstance(found, Absent):
            raise KeyError(found.because)
        return found.value


def amount(quantity: Quantity, value: float) -> str:
    """Three significant figures in the unit of NAMES, without the unit."""
    return significant(value * NAMES[quantity][2])


def interval(quantity: Quantity, prediction: Prediction) -> str:
    """The interval in the unit of NAMES; one that is open above says so."""
    high = "no bound" if math.isinf(prediction.high) else amount(quantity, prediction.high)
    return f"[{amount(quantity, prediction.low)}, {high}]"


def plain() -> Table:
    """A table without lines around it."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def predictions_block(rows: Sequence[PredictedModel]) -> RenderableType:
    """What one device's models say of each file, and every reservation below."""
    predictor = rows[0].predictor
    title = f"Predicted for {predictor.device.name}, {predictor.setting}"
    table = plain()
    table.add_column("model", overflow="fold")
    for quantity in rows[0].forecasts:
        table.add_column(_header(quantity, rows), justify="right", style="italic", no_wrap=True)
    for row in rows:
        cells = (_cell(quantity, forecast) for quantity, forecast in row.forecasts.items())
        table.add_row(Text(row.model), *cells)
    return Group(Text(title, style="bold"), table, *map(Text, reservations(rows)))


def reservations(rows: Sequence[PredictedModel]) -> list[str]:
    """Why a quantity is absent, what no calibration network held, and how the device drifted."""
    predictor = rows[0].predictor
    reasons: dict[str, list[str]] = {}
    for quantity, absent in predictor.absent.items():
        reasons.setdefault(absent.because, []).append(NAMES[quantity][0])
    lines = [f"{', '.join(names)}: {ABSENT} ({reason})" for reason, names in reasons.items()]
    for row in rows:
        flags: dict[tuple[str, ...], list[str]] = {}
        for quantity, forecast in row.forecasts.items():
            if isinstance(forecast, Prediction) and forecast.flagged:
                flags.setdefault(forecast.flagged, []).append(NAMES[quantity][0])
        lines += [
            f"{row.model}: no calibration network had {', '.join(flagged)}; the {' and '.join(of)}"
            " is charged at the dearest known rate"
            for flagged, of in flags.items()
        ]
    return lines + predictor.notes


def explanation_block(row: PredictedModel, explanation: Explanation) -> RenderableType:
    """The predicted latency of one model as a sum over its kernels."""
    title = f"Where the predicted latency of {row.model} on {row.predictor.device.name} goes"
    parts: list[RenderableType] = [Text(title, style="bold")]
    shown: Sequence[KernelShare] = explanation.kernels
    if len(shown) > MAX_KERNELS:
        parts.append(_by_class(explanation))
        shown = sorted(shown, key=lambda kernel: -kernel.seconds)[:DEAREST]
    parts.append(_kernels(explanation, shown))
    return Group(*parts, *map(Text, _sum_lines(explanation)))


def _header(quantity: Quantity, rows: Sequence[PredictedModel]) -> str:
    name, unit, _ = NAMES[quantity]
    known = [f for row in rows if isinstance(f := row.forecasts[quantity], Prediction)]
    if not known:
        return f"{name} {unit}"
    return f"{name} {unit}\n[{percent(known[0].level)} %], n = {known[0].n}"


def _cell(quantity: Quantity, forecast: Forecast) -> str:
    if isinstance(forecast, Absent):
        return ABSENT
    flag = " (!)" if forecast.flagged else ""
    return f"{amount(quantity, forecast.value)}{flag}\n{interval(quantity, forecast)}"


def _by_class(explanation: Explanation) -> Table:
    table = _work_table("class", "kernels")
    groups: dict[str, list[KernelShare]] = {}
    for kernel in explanation.kernels:
        groups.setdefault(kernel.kind, []).append(kernel)
    for kind, kernels in sorted(groups.items(), key=lambda g: -sum(k.seconds for k in g[1])):
        table.add_row(
            kind,
            str(len(kernels)),
            *_work(
                sum(k.macs for k in kernels),
                sum(k.moved_bytes for k in kernels),
                sum(k.seconds for k in kernels),
                explanation.sum_seconds,
            ),
        )
    return table


def _kernels(explanation: Explanation, shown: Sequence[KernelShare]) -> Table:
    table = _work_table("#", "class", "operators")
    for kernel in shown:
        table.add_row(
            str(kernel.index),
            kernel.kind,
            Text(" + ".join(kernel.operators)),
            *_work(kernel.macs, kernel.moved_bytes, kernel.seconds, explanation.sum_seconds),
        )
    return table


def _work_table(*names: str) -> Table:
    table = plain()
    for name in names:
        numbers = name in {"#", "kernels"}
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for name in ("MMAC", "MB moved", "ms", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _work(macs: int, moved_bytes: int, seconds: float, total: float) -> tuple[str, ...]:
    share = seconds / total if total > 0 else 0.0
    return (
        significant(macs / 1e6) if macs else ABSENT,
        significant(moved_bytes * MB),
        significant(seconds * MS),
        f"{100 * share:.1f} %",
    )


def _sum_lines(explanation: Explanation) -> list[str]:
    total = len(explanation.kernels)
    hidden = total - DEAREST if total > MAX_KERNELS else 0
    lines = []
    if hidden > 0:
        lines.append(f"{hidden} cheaper kernels are not shown: --json has all")
    kernels = sum(kernel.seconds for kernel in explanation.kernels)
    terms = [f"kernels {significant(kernels * MS)} ms"]
    terms.append(f"constant {significant(explanation.constant_seconds * MS)} ms")
    if explanation.whole_seconds:
        terms.append(f"network as a whole {significant(explanation.whole_seconds * MS)} ms")
    lines.append(f"{' + '.join(terms)} = {significant(explanation.sum_seconds * MS)} ms")
    if abs(explanation.factor - 1) > 1e-9:
        lines.append(
            f"× {explanation.factor:.3f}, which the model learned beyond this sum, ="
            f" {significant(explanation.total_seconds * MS)} ms"
        )
    return lines
