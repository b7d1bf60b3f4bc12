"""A comparison for the terminal."""

from collections.abc import Iterator, Sequence
from typing import cast

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.evaluation.entries import Comparison, Dominance, Entry, Measure, Missed
from host.evaluation.texts import TEXTS
from host.report.cost import plain
from host.report.measurement_lines import ABSENT
from host.report.measurement_texts import Language
from host.report.units import (
    MJ,
    measured_latency,
    megabytes,
    milliseconds,
    predicted_latency,
    share,
    significant,
)
from host.study.front import OnDevice
from host.study.limits import Limit, LimitedQuantity


def comparison_block(comparison: Comparison, language: Language = "en") -> RenderableType:
    """A row for every entry and place, kind by kind, and below it what follows."""
    words = TEXTS[language]
    title = words["title"]
    if comparison.study is not None:
        title = words["title_study"].format(study=comparison.study)
    lines = [Text(line) for line in _lines(comparison, language)]
    return Group(Text(title, style="bold"), _table(comparison, language), *lines)


def shown_missed(missed: Missed) -> str:
    """The value that exceeds a limit, as people read it."""
    line = missed.limit
    limit = Limit(cast("LimitedQuantity", line.quantity), line.device, line.maximum)
    return limit.show(missed.value)


def _table(comparison: Comparison, language: Language) -> Table:
    words = TEXTS[language]
    has_energy = any(_energy(on) for entry in comparison.entries for on in entry.on.values())
    has_score = bool(comparison.of_kind("candidate") or comparison.of_kind("finalist"))
    table = plain()
    table.add_column("#", overflow="fold")
    for name in ("kind", "device"):
        table.add_column(words[name], overflow="fold")
    table.add_column(words["predicted"], style="italic", justify="right")
    for name in ("measured", "p90", "peak", *(("energy",) if has_energy else ()), "size"):
        table.add_column(words[name], justify="right", overflow="fold")
    if comparison.measures:
        header = words["quality"].format(measure=_named(comparison.measures))
        table.add_column(header, justify="right", no_wrap=True)
    if has_score:
        table.add_column(words["score"], justify="right", style="dim")
    last = None
    for entry in comparison.entries:
        if last not in (None, entry.kind):
            table.add_section()
        last = entry.kind
        for number, place in enumerate(comparison.places):
            once = [] if number else _once(comparison, entry, has_score=has_score)
            cells = _on_place(entry, place.name, has_energy=has_energy)
            head = ("", "") if number else (entry.label, words[entry.kind])
            table.add_row(*map(Text, head), place.name, *cells, *once)
    return table


def _on_place(entry: Entry, place: str, *, has_energy: bool) -> list[str]:
    found, told = entry.on.get(place), entry.predicted.get(place)
    if found is None:
        blanks = [ABSENT] * (4 if has_energy else 3)
        return [predicted_latency(told, absent=ABSENT), *blanks]
    before = predicted_latency(told or found.predicted_latency_seconds, absent=ABSENT)
    p90 = found.latency_p90_seconds
    energy = _energy(found)
    return [
        before,
        measured_latency(found),
        ABSENT if p90 is None else milliseconds(p90),
        megabytes(found.peak_rss_bytes),
        *([ABSENT if energy is None else significant(energy * MJ)] if has_energy else []),
    ]


def _once(comparison: Comparison, entry: Entry, *, has_score: bool) -> list[str]:
    """What holds at every place."""
    cells = [megabytes(entry.size_bytes)]
    if comparison.measures:
        cells.append(_quality(entry, named=len(comparison.measures) > 1))
    if has_score:
        cells.append(ABSENT if entry.score is None else f"{entry.score:.2f}")
    return cells


def _quality(entry: Entry, *, named: bool) -> str:
    """With its measure where entries have different ones."""
    if entry.quality is None:
        return ABSENT
    figure = share(entry.quality.score)
    return f"{entry.quality.measure} {figure}" if named else figure


def _named(measures: Sequence[Measure]) -> str:
    return " / ".join(measures)


def _energy(on: OnDevice) -> float | None:
    return on.energy_per_inference_joules


def _lines(comparison: Comparison, language: Language) -> Iterator[str]:
    words = TEXTS[language]
    for entry in comparison.entries:
        if entry.name != entry.label:
            yield f"{entry.label:>4}  {entry.name}"
    for entry in comparison.entries:
        if entry.kind == "own model":
            yield from _doubts(entry, language)
    for missed in comparison.missed:
        yield words[_missed_key(missed)].format(
            label=missed.label,
            place=missed.limit.device,
            limit=missed.limit.text,
            value=shown_missed(missed),
        )
    yield from _dominance_lines(comparison, language)
    if comparison.of_kind("candidate"):
        yield words["untrained"]
    yield from comparison.notes


def _missed_key(missed: Missed) -> str:
    if missed.limit.device is None:
        return "missed_file"
    return "missed_median" if missed.limit.quantity == "latency_seconds" else "missed"


def _doubts(entry: Entry, language: Language) -> Iterator[str]:
    words = TEXTS[language]
    for place, why in entry.absent.items():
        yield words["absent"].format(label=entry.label, place=place, why=why)
    for place, on in entry.on.items():
        if on.verdict not in (None, "OK"):
            reasons = "; ".join(on.verdict_reasons)
            yield words["verdict"].format(
                label=entry.label, place=place, verdict=on.verdict, reasons=reasons
            )


def _dominance_lines(comparison: Comparison, language: Language) -> Iterator[str]:
    words = TEXTS[language]
    judged = [entry for entry in comparison.entries if entry.quality is not None]
    measure = _named(comparison.measures)
    if len({entry.quality.origin for entry in judged if entry.quality is not None}) > 1:
        yield words["other_images"].format(measure=measure)
    if len(judged) < 2:
        return
    by_label = {entry.label: entry for entry in comparison.entries}
    for place in comparison.places:
        found = [one for one in comparison.dominances if one.place == place.name]
        for one in found:
            yield _dominance_line(one, by_label, language)
        if not found:
            yield words["nothing_dominates"].format(place=place.name, measure=measure)


def _dominance_line(one: Dominance, by_label: dict[str, Entry], language: Language) -> str:
    words = TEXTS[language]
    winner, loser = by_label[one.winner], by_label[one.loser]
    good, bad = winner.quality, loser.quality
    if good is None or bad is None:
        raise TypeError("what dominates has a quality")
    return words["dominates"].format(
        place=one.place,
        winner=one.winner,
        loser=one.loser,
        measure=good.measure,
        good=f"{good.score.value:.3f}",
        bad=f"{bad.score.value:.3f}",
        fast=milliseconds(winner.on[one.place].latency_seconds),
        slow=milliseconds(loser.on[one.place].latency_seconds),
        how=words["certain" if one.certain else "uncertain"],
    )
