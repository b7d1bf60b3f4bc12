"""The chapter on the front: what was found, measured and predicted told apart."""

from collections.abc import Iterator, Sequence

from host.report.plots import inline_svg, panel_figure
from host.report.study_blocks import (
    Block,
    Cell,
    Paragraph,
    Picture,
    Pictures,
    Section,
    Table,
    table,
    text,
)
from host.report.study_facts import StudyReport, row_on
from host.report.study_numbers import (
    Words,
    measured_latency,
    percent,
    predicted_interval,
    verdict,
)
from host.report.study_plots import hypervolume_figure
from host.report.units import MB, MS, megabytes
from host.study.front import FrontReport, FrontRow, OnDevice, Profile

COURSE_ROWS = 12
MARKS = ("front", "finalist", "predicted", "dominated", "beyond", "limit")


def front_section(report: StudyReport, words: Words) -> Section:
    """A picture for every device profile, the same as a table, and the course of the search."""
    return Section(words["front"], list(_blocks(report, words)))


def coverage(front: FrontReport) -> tuple[int, int, float] | None:
    """How many medians lie in the interval that was predicted before, of how many, and the level
    of those intervals; None where nothing was predicted.
    """
    told = [
        (row.latency_seconds, prediction)
        for one in front.rows
        for row in one.devices
        if (prediction := row.predicted_latency_seconds) is not None
    ]
    if not told:
        return None
    held = sum(p.low <= value and (p.high is None or value <= p.high) for value, p in told)
    return held, len(told), told[0][1].level


def _blocks(report: StudyReport, words: Words) -> Iterator[Block]:
    front = report.front
    if not front.rows:
        yield Paragraph(words["front.empty"], style="doubt")
        return
    yield Paragraph(words["front.line"].format(proxies=" + ".join(front.proxies)))
    finalists = [finalist.key for finalist in report.finalists]
    pictures = [
        Picture(
            inline_svg(
                panel_figure(front, profile.name, words, finalists),
                words["front.picture"].format(device=profile.name),
            ),
            words["front.picture"].format(device=profile.name),
        )
        for profile in front.profiles
    ]
    yield Pictures(pictures, [(mark, words[f"mark.{mark}"]) for mark in MARKS])
    found = coverage(front)
    if found is not None:
        held, n, level = found
        yield Paragraph(words["front.coverage"].format(held=held, n=n, level=f"{100 * level:.0f}"))
    yield _table(front, finalists, words)
    if front.hypervolume:
        yield Paragraph(words["hypervolume.line"])
        svg = inline_svg(hypervolume_figure(front, words), words["hypervolume"])
        yield Pictures([Picture(svg, words["hypervolume"])])
        yield _course(front, words)


def _table(front: FrontReport, finalists: Sequence[str], words: Words) -> Table:
    columns = ("number", "candidate", "score", "parameters", "device")
    devices = ("latency_predicted", "latency_measured", "memory_predicted", "memory_measured")
    return table(
        words["front.table"],
        [words[f"column.{name}"] for name in (*columns, *devices, "verdict")],
        [
            [
                *(_candidate(number, one, finalists) if first else _repeated(number)),
                *_on_profile(one, profile, words),
            ]
            for number, one in enumerate(front.rows, start=1)
            for profile, first in _with_first(front.profiles)
        ],
    )


def _candidate(number: int, one: FrontRow, finalists: Sequence[str]) -> list[Cell | str]:
    mark = " ★" if one.key in finalists else ""
    return [f"{number}{mark}", text(one.text), f"{one.score:.2f}", f"{one.parameters:,}"]


def _repeated(number: int) -> list[Cell | str]:
    """In front of a further device profile of the same candidate."""
    return [str(number), text(""), "", ""]


def _with_first(profiles: Sequence[Profile]) -> Iterator[tuple[Profile, bool]]:
    for place, profile in enumerate(profiles):
        yield profile, place == 0


def _on_profile(one: FrontRow, profile: Profile, words: Words) -> list[Cell | str]:
    row = row_on(one.devices, profile.name)
    if row is None:
        return [text(profile.name), *(Cell(words["not_measured"], "doubt"),) * 4, text("")]
    return [text(profile.name), *figures(row, words)]


def figures(row: OnDevice, words: Words) -> list[Cell | str]:
    """Latency and memory, predicted beside measured, and the verdict."""
    latency = predicted_interval(row.predicted_latency_seconds, MS, words)
    memory = predicted_interval(row.predicted_peak_rss_bytes, MB, words)
    return [
        Cell(latency, "predicted"),
        measured_latency(row, words),
        Cell(memory, "predicted"),
        megabytes(row.peak_rss_bytes),
        Cell(verdict(row, words), "text" if row.verdict == "OK" else "doubt"),
    ]


def _course(front: FrontReport, words: Words) -> Table:
    """At most so many points of the course, evenly, with the last."""
    course = front.hypervolume
    step = max(1, -(-len(course) // COURSE_ROWS))
    kept = course[::-step][::-1]
    return table(
        words["hypervolume.table"].format(shown=len(kept), n=len(course)),
        [words["hypervolume.scored"], words["hypervolume.share"]],
        [[f"{scored:,}", percent(share)] for scored, share in kept],
    )
