"""Measurements and probes for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.measurement import Energy, Measurement, ProbeResult, ReferenceRun, Verdict
from host.measurement.compare import Comparison
from host.measurement.judge import Baseline
from host.report.measurement_lines import (
    ABSENT,
    figures,
    megabytes,
    milliseconds,
    percent,
    subjects,
)
from host.report.measurement_texts import TEXTS, Language
from host.report.units import MS

VERDICT_STYLE = {"OK": "green", "WARN": "yellow", "REJECT": "bold red"}


@dataclass(frozen=True)
class Named:
    """A measurement with the words that people know it by; a new one may have no number yet."""

    measurement: Measurement
    model: str
    device: str
    number: int | None = None

    @property
    def model_name(self) -> str:
        """The name of the file, or the start of its hash where nobody named it."""
        return self.model or self.measurement.model_sha256[:12]

    def title(self, language: Language = "en") -> str:
        """Model, device and number."""
        words = TEXTS[language]
        title = words["title"].format(model=self.model_name, device=self.device)
        if self.number is None:
            return title
        return f"{title} · {words['numbered'].format(number=self.number)}"


def measurement_block(named: Named, language: Language = "en") -> RenderableType:
    """All of a measurement but its samples, a line or a few for each subject."""
    words = TEXTS[language]
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row(f"  {words['verdict']}", verdict_text(named.measurement.verdict))
    for name, texts in subjects(named.measurement, words):
        for line, text in enumerate(texts):
            # Text, because a device's own words must not be read as markup.
            lines.add_row("" if line else f"  {words[name]}", Text(text))
    return Group(Text(named.title(language), style="bold"), lines)


def verdict_text(verdict: Verdict) -> Text:
    """The level, and a line for each reason."""
    text = Text(verdict.level, style=VERDICT_STYLE[verdict.level])
    for reason in verdict.reasons:
        text.append(f"\n{reason.code}: {reason.sentence}", style="not bold default")
    return text


def measurements_table(rows: Sequence[Named]) -> RenderableType:
    """One row for each measurement."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("device", overflow="fold")
    table.add_column("latency ms\n[95 %]", justify="right", no_wrap=True)
    table.add_column("peak\nMB", justify="right", no_wrap=True)
    table.add_column("energy\nmJ, net", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for named in rows:
        m = named.measurement
        table.add_row(
            ABSENT if named.number is None else str(named.number),
            f"{m.measured_at.astimezone():%Y-%m-%d\n%H:%M}",
            Text(named.model_name).append(f"\n{m.runtime_library} {m.runtime_version}", "dim"),
            Text(named.device),
            _short_latency(m),
            megabytes(m.peak_rss_bytes),
            _short_energy(m.energy),
            Text("\n".join((m.verdict.level, *m.verdict.codes)), VERDICT_STYLE[m.verdict.level]),
        )
    return table


def probe_block(probe: ProbeResult, device: str, before: Mapping[str, Baseline]) -> RenderableType:
    """The device as it is and its reference models, beside the baselines before, by runtime."""
    p = probe.preflight
    swapped = ABSENT if p.swapped_in_pages is None else str(p.swapped_in_pages)
    temperature = (
        "not known" if p.temperature_celsius is None else f"{p.temperature_celsius:.1f} °C"
    )
    facts = {
        "CPU": f"{percent(p.foreign_cpu)} % taken by other programs,"
        f" waited {p.waited_seconds:.1f} s until it was ready",
        "memory": f"{megabytes(p.free_ram_bytes)} MB free, {swapped} pages swapped in",
        "temperature": f"{temperature}; throttled: {', '.join(p.throttled) or 'no'}",
        "clock": f"canary loop {milliseconds(p.canary_seconds)} ms,"
        f" governor {probe.governor or 'not known'}",
    }
    lines = Table.grid(padding=(0, 2, 0, 0))
    for name, fact in facts.items():
        lines.add_row(f"  {name}", Text(fact))
    for problem in p.problems:
        lines.add_row("  problem", Text(problem, style="yellow"))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("reference model on", overflow="fold")
    table.add_column("ms, median", justify="right")
    table.add_column("CPU ms", justify="right")
    table.add_column("n", justify="right")
    table.add_column("against the baseline before", overflow="fold")
    for run in probe.references:
        table.add_row(*_reference_row(run, before.get(run.runtime)))
    return Group(Text(f"Probe of {device}", style="bold"), lines, table)


def _reference_row(run: ReferenceRun, before: Baseline | None) -> tuple[RenderableType, ...]:
    name = Text(f"{run.runtime}: {run.runtime_library} {run.runtime_version}".rstrip())
    if not run.latency_seconds:
        return name, ABSENT, ABSENT, "0", Text(run.failed_because or "no samples")
    seconds = median(run.latency_seconds)
    cpu = median(run.cpu_seconds) if run.cpu_seconds else None
    change = "there was none"
    if before is not None:
        change = (
            f"{seconds / before.reference_seconds - 1:+.1%}"
            f" (of {before.since.astimezone():%Y-%m-%d %H:%M})"
        )
    samples = str(len(run.latency_seconds))
    return name, milliseconds(seconds), milliseconds(cpu), samples, Text(change)


def _short_latency(m: Measurement) -> str:
    low, high = m.latency_interval_seconds
    kind = "" if m.latency_kind == "measured" else f"\n{m.latency_kind}"
    interval = f"\\[{milliseconds(low)}, {milliseconds(high)}]"  # escaped: rich reads brackets
    return f"{milliseconds(m.latency_seconds)}\n{interval}{kind}"


def _short_energy(energy: Energy | None) -> str:
    if energy is None:
        return ABSENT
    kind = "" if energy.kind == "measured" else f"\n{energy.kind}"
    return figures(energy.net_joules * MS, 3) + kind


def comparison_block(first: Named, second: Named, found: Comparison) -> RenderableType:
    """The sentence that decides, and the figures that it rests on."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("device", overflow="fold")
    table.add_column("latency ms\n[95 %]", justify="right", no_wrap=True)
    table.add_column("times the\nreference", justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for named in (first, second):
        m = named.measurement
        table.add_row(
            ABSENT if named.number is None else str(named.number),
            Text(named.model_name),
            Text(named.device),
            _short_latency(m),
            figures(m.latency.relative_to_reference, 3),
            Text("\n".join((m.verdict.level, *m.verdict.codes)), VERDICT_STYLE[m.verdict.level]),
        )
    low, high = found.difference_interval_seconds
    difference = (
        f"difference {found.difference_seconds * MS:+.4g} ms"
        f" [{low * MS:+.4g}, {high * MS:+.4g}], 95 %"
    )
    return Group(Text(found.sentence, style="bold"), table, Text(difference))
