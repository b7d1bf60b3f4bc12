"""Pictures of measurements: their samples over time, and two of them beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host.measurement import Block, Measurement
from host.measurement.statistics import SampleState, sample_states
from host.report.measurement import Named
from host.report.measurement_lines import milliseconds
from host.report.measurement_texts import TEXTS, Language
from host.report.plots import fonts
from host.report.units import MS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS: dict[SampleState, str] = {
    "clean": "#0b6e4f",
    "delayed": "#a4262c",
    "unsettled": "#b8860b",
}
_MARKERS: dict[SampleState, str] = {"clean": "o", "delayed": "x", "unsettled": "^"}
_FIRST, _SECOND = "#0b6e4f", "#3b6ea5"
_REFERENCE = "#5f6368"
_OUTSIDE = 3.0  # samples beyond so many times the figure are drawn at the edge


@dataclass(frozen=True)
class PlacedSample:
    """One sample of a measurement; seconds since its first block began, and of one inference."""

    process: int
    block: int
    at_seconds: float
    latency_seconds: float
    cpu_seconds: float | None
    run_delay_seconds: float | None
    state: SampleState


def placed_samples(m: Measurement) -> list[PlacedSample]:
    """All samples in the order in which they were taken. Within a block they are placed one after
    the other up to its end: a block says when it began and how long it lasted, canary and
    reference runs first.
    """
    states = iter(sample_states(m.processes, m.threads))
    start = _started(m)
    return [
        PlacedSample(number, place, at - start, latency, cpu, delay, next(states))
        for number, process in enumerate(m.processes)
        for place, block in enumerate(process.blocks)
        for at, latency, cpu, delay in _samples(block, process.runs_per_sample)
    ]


def samples_figure(named: Named, language: Language = "en") -> Figure:
    """Every sample over time, what disturbed it, the figure with its interval, and below the
    reference model beside each block.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    m, words = named.measurement, TEXTS[language]
    with fonts():
        figure = Figure(figsize=(10, 6), layout="constrained")
        FigureCanvasAgg(figure)
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _samples_panel(top, m, words)
        _reference_panel(below, m, words)
        figure.suptitle(f"{named.title(language)} · {m.verdict.level}", fontsize=11)
    return figure


def compare_figure(first: Named, second: Named, sentence: str, language: Language = "en") -> Figure:
    """The samples that each figure comes from, as cumulative shares, with the figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = TEXTS[language]
    with fonts():
        figure = Figure(figsize=(10, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for named, color in ((first, _FIRST), (second, _SECOND)):
            _cumulative(axes, named, color, words)
        derived = "derived" in (first.measurement.latency_kind, second.measurement.latency_kind)
        axes.set_xlabel(words["cpu_axis" if derived else "latency_axis"])
        axes.set_ylabel(words["compare_axis"])
        axes.set_ylim(0, 1)
        axes.grid(visible=True, alpha=0.2)
        axes.legend(loc="lower right", fontsize=9)
        title = words["compare_title"].format(a=first.number, b=second.number)
        figure.suptitle(f"{title}\n{_wrapped(sentence)}", fontsize=10)
    return figure


def _samples_panel(axes: Axes, m: Measurement, words: Mapping[str, str]) -> None:
    derived = m.latency_kind == "derived"
    samples = placed_samples(m)
    top = _OUTSIDE * m.latency_seconds
    for state, color in _COLORS.items():
        found = [s for s in samples if s.state == state]
        if not found:
            continue
        seconds = [(s.cpu_seconds or 0.0) if derived else s.latency_seconds for s in found]
        beyond = sum(value > top for value in seconds)
        label = f"{words[state]} ({len(found)})"
        axes.scatter(
            [s.at_seconds for s in found],
            [min(value, top) * MS for value in seconds],
            s=12,
            marker=_MARKERS[state],
            color=color,
            linewidths=0.8,
            label=label + (words["edge"].format(count=beyond) if beyond else ""),
        )
    low, high = m.latency_interval_seconds
    axes.axhspan(low * MS, high * MS, color=_FIRST, alpha=0.25, lw=0)
    axes.axhline(
        m.latency_seconds * MS,
        color="black",
        lw=1,
        label=words["figure"].format(value=milliseconds(m.latency_seconds)),
    )
    axes.set_ylabel(words["cpu_axis" if derived else "latency_axis"])
    # Above the panel: anywhere inside it would hide samples.
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    axes.grid(visible=True, alpha=0.2)
    _mark_processes(axes, m, words)


def _reference_panel(axes: Axes, m: Measurement, words: Mapping[str, str]) -> None:
    start = _started(m)
    points = [
        (block.started_monotonic_seconds - start, seconds * MS)
        for process in m.processes
        for block in process.blocks
        for seconds in block.reference_seconds
        if seconds > 0
    ]
    if points:
        at, values = zip(*points, strict=True)
        axes.scatter(at, values, s=10, color=_REFERENCE)
    axes.set_ylabel(words["reference_axis"])
    axes.set_xlabel(words["time"])
    axes.grid(visible=True, alpha=0.2)


def _mark_processes(axes: Axes, m: Measurement, words: Mapping[str, str]) -> None:
    if len(m.processes) < 2:
        return
    start = _started(m)
    for number, process in enumerate(m.processes, start=1):
        if not process.blocks:
            continue
        at = process.blocks[0].started_monotonic_seconds - start
        axes.axvline(at, color=_REFERENCE, lw=0.6, ls=":")
        axes.annotate(
            words["process"].format(number=number),
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -10),
            textcoords="offset points",
            fontsize=8,
            color=_REFERENCE,
        )


def _cumulative(axes: Axes, named: Named, color: str, words: Mapping[str, str]) -> None:
    m = named.measurement
    values = _values_of_figure(m)
    low, high = m.latency_interval_seconds
    label = words["compare_label"].format(
        number=named.number,
        model=named.model_name,
        device=named.device,
        value=milliseconds(m.latency_seconds),
        low=milliseconds(low),
        high=milliseconds(high),
    )
    axes.ecdf([value * MS for value in values], color=color, lw=1.6, label=label)
    axes.axvspan(low * MS, high * MS, color=color, alpha=0.2, lw=0)
    axes.axvline(m.latency_seconds * MS, color=color, lw=1, ls="--")


def _values_of_figure(m: Measurement) -> Sequence[float]:
    samples = placed_samples(m)
    if m.latency_kind == "derived":
        return [s.cpu_seconds for s in samples if s.cpu_seconds is not None]
    clean = [s.latency_seconds for s in samples if s.state == "clean"]
    return [s.latency_seconds for s in samples] if m.latency.contended else clean


def _samples(
    block: Block, runs_per_sample: int
) -> Iterator[tuple[float, float, float | None, float | None]]:
    """End, latency, CPU time and run delay of each sample of a block."""
    lasted = sum(block.latency_seconds) * runs_per_sample
    at = block.started_monotonic_seconds + max(0.0, block.lasted_seconds - lasted)
    count = len(block.latency_seconds)
    whole_cpu = len(block.cpu_seconds) == count
    delays = block.run_delay_seconds or ()
    for i, latency in enumerate(block.latency_seconds):
        at += latency * runs_per_sample
        cpu = block.cpu_seconds[i] if whole_cpu else None
        yield at, latency, cpu, delays[i] if len(delays) == count else None


def _started(m: Measurement) -> float:
    return min(
        (b.started_monotonic_seconds for process in m.processes for b in process.blocks),
        default=0.0,
    )


def _wrapped(sentence: str) -> str:
    import textwrap

    return textwrap.fill(sentence, 110)
