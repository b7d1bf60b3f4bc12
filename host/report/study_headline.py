"""What stands first: three figures, one sentence, and what is recommended for which device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from host.report.study_answer import Pick, Standing, picks_of, standings, tightest
from host.report.study_blocks import Cell, Style, Table, table, text
from host.report.study_facts import StudyReport
from host.report.study_numbers import (
    ABSENT,
    NO_BREAK,
    Words,
    limit_text,
    limit_value,
    measured_latency,
    quality_name,
    quality_score,
    verdict,
)
from host.report.units import megabytes, milliseconds


@dataclass(frozen=True)
class Figure:
    """A number that is read first; `note` has its kind, n and what it is held against."""

    name: str
    value: str
    note: str
    style: Style = "good"


@dataclass(frozen=True)
class Headline:
    """The answer of a study on a quarter of a page."""

    figures: Sequence[Figure]
    sentence: str
    recommended: Table | None


def headline(report: StudyReport, words: Words) -> Headline:
    """Without a finalist there are no figures, and the sentence says so."""
    picks = picks_of(report)
    if not picks:
        key = "answer.no_finalist" if report.front.rows else "answer.no_front"
        return Headline([], words[key], None)
    return Headline(
        list(_figures(report, picks, words)), _sentence(report, picks, words), _table(report, words)
    )


def _within(picks: Sequence[Pick]) -> list[Pick]:
    return [pick for pick in picks if pick.choice.within_limits]


def _lowest(picks: Sequence[Pick]) -> Pick:
    return min(picks, key=lambda pick: pick.form.quality)


def _figures(report: StudyReport, picks: Sequence[Pick], words: Words) -> Iterator[Figure]:
    """What is beyond a limit is no answer, so neither its quality nor its latency stands here."""
    good = _within(picks)
    if good:
        yield _quality(good, words)
        yield _latency(report, good, words)
    met, count = len(good), len(report.front.profiles)
    yield Figure(
        words["figure.devices"],
        f"{met} / {count}",
        words["figure.devices_note"],
        "good" if met == count else "bad",
    )


def _quality(good: Sequence[Pick], words: Words) -> Figure:
    lowest = _lowest(good)
    note = words["figure.quality" if len(good) == 1 else "figure.lowest"]
    value, _, ends = quality_score(lowest.form).partition(" [")
    return Figure(
        quality_name(lowest.form, words),
        value,
        note.format(interval=f"[{ends}", device=lowest.profile.name),
    )


def _latency(report: StudyReport, good: Sequence[Pick], words: Words) -> Figure:
    slowest = tightest(good, report.front.limits) or good[0]
    limit = report.front.latency_limit_seconds(slowest.profile.name)
    return Figure(
        words["figure.latency"],
        f"{milliseconds(slowest.row.latency_seconds)}{NO_BREAK}ms",
        words["figure.no_limit" if limit is None else "figure.limit"].format(
            device=slowest.profile.name,
            kind=words[f"kind.{slowest.row.latency_kind}"],
            n=slowest.row.samples,
            limit="" if limit is None else milliseconds(limit),
        ),
    )


def _sentence(report: StudyReport, picks: Sequence[Pick], words: Words) -> str:
    names = [profile.name for profile in report.front.profiles]
    good = _within(picks)
    comma = words["comma"]
    if not good:
        return words["answer.none"].format(devices=comma.join(names), count=len(names))
    met = [pick.profile.name for pick in good]
    rest = [name for name in names if name not in met]
    numbers = sorted({pick.number for pick in good})
    lowest = _lowest(good)
    slowest = tightest(good, report.front.limits) or lowest
    key = "answer.all" if not rest else "answer.some"
    return words[key].format(
        finalists=comma.join(words["finalist.short"].format(number=number) for number in numbers),
        devices=comma.join(met),
        rest=comma.join(rest),
        quality=quality_name(lowest.form, words),
        value=quality_score(lowest.form),
        latency=milliseconds(slowest.row.latency_seconds),
        slowest=slowest.profile.name,
        limits=_limit_clause(report, slowest, words),
    )


def _limit_clause(report: StudyReport, pick: Pick, words: Words) -> str:
    limit = report.front.latency_limit_seconds(pick.profile.name)
    if limit is None:
        return words["answer.no_limit"]
    return words["answer.limit"].format(limit=milliseconds(limit))


def _table(report: StudyReport, words: Words) -> Table:
    picks = {pick.profile.name: pick for pick in picks_of(report)}
    columns = ("device", "finalist", "form", "quality", "latency_measured", "memory_measured")
    return table(
        words["recommended.table"],
        [words[f"column.{name}"] for name in (*columns, "verdict", "limits")],
        [
            _row(report, profile.name, picks.get(profile.name), words)
            for profile in report.front.profiles
        ],
    )


def _row(report: StudyReport, device: str, pick: Pick | None, words: Words) -> list[Cell | str]:
    if pick is None:
        nothing = Cell(words["recommended.nothing"], "bad")
        return [text(device), ABSENT, text(ABSENT), text(ABSENT), ABSENT, ABSENT, ABSENT, nothing]
    number = str(pick.number) if pick.choice.within_limits else f"({pick.number})"
    return [
        text(device),
        number,
        text(pick.form.form),
        text(f"{quality_name(pick.form, words)} {quality_score(pick.form)}"),
        measured_latency(pick.row, words),
        megabytes(pick.row.peak_rss_bytes),
        Cell(verdict(pick.row, words), "text" if pick.row.verdict == "OK" else "doubt"),
        _limits(report, pick, words),
    ]


def _limits(report: StudyReport, pick: Pick, words: Words) -> Cell:
    said = [_standing(one, words) for one in standings(report.front.limits, pick.form, pick.row)]
    if not said:
        return text(words["no_limit"])
    within = pick.choice.within_limits
    verdict_word = words["within" if within else "beyond"]
    listed = words["comma"].join(said)
    return Cell(f"{verdict_word}: {listed}", "good" if within else "bad")


def _standing(one: Standing, words: Words) -> str:
    value = None if one.value is None else limit_value(one.limit.quantity, one.value)
    figure = words["not_measured"] if value is None else value
    key = "standing.median" if one.limit.quantity == "latency_seconds" else "standing"
    return words[key].format(limit=limit_text(one.limit, words), value=figure)
