"""Tables for the terminal."""

from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.export.forms import Form
from host.report.study_answer import recommended
from host.report.units import (
    measured_latency,
    megabytes,
    milliseconds,
    power,
    predicted_latency,
    share,
)
from host.study.finalist import Choice, FinalistResult
from host.study.front import FrontReport

NOTES_SHOWN = 6


def front_table(report: FrontReport) -> RenderableType:
    """The front, a row for every candidate and device; predictions in italics."""
    table = _table(f"Pareto front of {report.study}")
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("device", overflow="fold")
    table.add_column("latency ms\npredicted\n[90 %]", style="italic", justify="right")
    table.add_column("latency ms\nmeasured\n[95 %]", justify="right", overflow="fold")
    table.add_column("peak RSS\nMB\nmeasured", justify="right")
    table.add_column("power\nW\nmeasured", justify="right", overflow="fold")
    table.add_column("params\nM", justify="right")
    for number, row in enumerate(report.rows, start=1):
        for first, device in enumerate(row.devices):
            table.add_row(
                "" if first else str(number),
                "" if first else f"{row.score:.2f}",
                device.device,
                predicted_latency(device.predicted_latency_seconds),
                measured_latency(device),
                megabytes(device.peak_rss_bytes),
                power(device),
                "" if first else f"{row.parameters / 1e6:.3f}",
            )
    notes = [Text(f"{n:>3}  {row.text}") for n, row in enumerate(report.rows, start=1)]
    chosen = Text(
        f"chosen from {report.scored} scored and {report.measured} measured candidates of the "
        f"space {report.space}; score: {' + '.join(report.proxies)} by log-rank, untrained"
    )
    limits = Text("limits: " + ("; ".join(limit.text for limit in report.limits) or "none"))
    power_notes = [
        Text(f"power on {name}: none, because {why}") for name, why in absent_power(report).items()
    ]
    doubts = [Text(doubt) for doubt in verdict_notes(report)]
    return Group(table, *notes, chosen, limits, *power_notes, *doubts)


def finalists_table(finalists: Sequence[FinalistResult]) -> RenderableType:
    """What training, quantising and the devices made of each finalist."""
    table = _table("Finalists, on test images")
    for name in ("#", "form", "accuracy\n[95 %]", "majority\nclass", "AUROC\n[95 %]"):
        table.add_column(name, justify="right")
    table.add_column("device", overflow="fold")
    for name in ("latency ms\nmeasured\n[95 %]", "peak RSS\nMB", "file\nMB", "chosen"):
        table.add_column(name, justify="right")
    for number, finalist in enumerate(finalists, start=1):
        chosen = {choice.device: choice for choice in finalist.choices}
        for form in finalist.forms:
            for device in form.devices:
                table.add_row(
                    str(number),
                    form.form,
                    share(form.accuracy),
                    f"{finalist.majority_accuracy:.3f}",
                    share(form.auroc),
                    device.device,
                    measured_latency(device),
                    megabytes(device.peak_rss_bytes),
                    megabytes(form.size_bytes),
                    _chosen(form.form, chosen.get(device.device)),
                )
    lines = []
    for number, finalist in enumerate(finalists, start=1):
        lines.append(Text(f"{number:>3}  {finalist.text}"))
        lines.extend(
            Text(f"     {choice.device}: {choice.form}, {choice.because}")
            for choice in finalist.choices
        )
    return Group(table, *lines)


def stage_table(seconds: Sequence[tuple[str, float]]) -> RenderableType:
    """Wall-clock time of every stage."""
    table = _table("Time per stage")
    table.add_column("stage")
    table.add_column("s", justify="right")
    for name, spent in seconds:
        table.add_row(name, f"{spent:.1f}")
    table.add_row("total", f"{sum(spent for _, spent in seconds):.1f}")
    return table


def three_figures(
    report: FrontReport, finalists: Sequence[FinalistResult]
) -> list[tuple[str, str]]:
    """What a manager asks of the recommended on the first device: how good, how fast, how large.
    Names are keys of the page's texts.
    """
    if not report.profiles:
        return []
    pick = recommended(finalists, report.profiles[0])
    if pick is None:
        return []
    form, device = pick.form, pick.row
    limit = report.latency_limit_seconds(device.device)
    latency = f"{milliseconds(device.latency_seconds)} ms"
    if limit is not None:
        latency += f" / {milliseconds(limit)} ms"
    quality = "accuracy" if form.auroc is None else "auroc"
    return [
        (quality, f"{form.quality:.3f}"),
        ("latency", latency),
        ("memory", f"{megabytes(device.peak_rss_bytes)} MB"),
    ]


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _chosen(form: Form, choice: Choice | None) -> str:
    if choice is None or choice.form != form:
        return ""
    return "yes" if choice.within_limits else "yes, but beyond a limit"


def verdict_notes(report: FrontReport) -> list[str]:
    """What speaks against measurements of the front, most frequent first, by device."""
    counts = Counter(
        f"{device.device}: {device.verdict}: {reason}"
        for row in report.rows
        for device in row.devices
        for reason in device.verdict_reasons
    )
    shown = [text for text, _ in counts.most_common(NOTES_SHOWN)]
    more = len(counts) - len(shown)
    return shown + ([f"and {more} more"] if more else [])


def absent_power(report: FrontReport) -> dict[str, str]:
    """Why there is no power, by device; devices that measured it are left out."""
    return {
        device.device: device.power_absent_because
        for row in report.rows
        for device in row.devices
        if device.power_watts is None
    }
