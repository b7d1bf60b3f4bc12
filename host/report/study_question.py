"""The chapter on what a study was asked: devices, limits, data, budget."""

from collections.abc import Iterator

from host.report.study_blocks import Block, Bullets, Cell, Paragraph, Section, Table, table, text
from host.report.study_facts import StudyReport
from host.report.study_numbers import ABSENT, Words, amount, limit_text
from host.study.front import FrontReport, Profile, Spent
from host.study.stored import PARTS, DataFacts


def question_section(report: StudyReport, words: Words) -> Section:
    """Devices with their limits, the data, and what was spent."""
    return Section(words["question"], list(_blocks(report, words)))


def _blocks(report: StudyReport, words: Words) -> Iterator[Block]:
    front = report.front
    yield Paragraph(
        words["question.line"].format(
            space=front.space,
            scored=front.scored,
            measured=front.measured,
            proxies=" + ".join(front.proxies),
        )
    )
    yield _devices(front, words)
    common = [limit_text(limit, words) for limit in front.limits if limit.device is None]
    if common:
        yield Paragraph(words["limits.every"].format(limits=words["comma"].join(common)))
    if report.data is None:
        yield Paragraph(words["data.absent"])
    else:
        yield _data(report.data, words)
        yield Bullets([Paragraph(line) for line in _data_lines(report.data, words)])
    yield _spent(front, words)
    if front.stopped_because:
        yield Paragraph(words["stopped"], front.stopped_because)
    if report.origin.stopped_because:
        yield Paragraph(words["unfinished"], report.origin.stopped_because, "doubt")


def _devices(front: FrontReport, words: Words) -> Table:
    def limits(profile: Profile) -> str:
        own = [limit_text(limit, words) for limit in front.limits if limit.device == profile.name]
        return words["comma"].join(own) or words["no_limit"]

    return table(
        words["devices"],
        [words[f"devices.{name}"] for name in ("name", "machine", "runtime", "threads", "limits")],
        [
            [
                text(profile.name),
                text(profile.machine),
                text(profile.engine),
                str(profile.threads),
                text(limits(profile)),
            ]
            for profile in front.profiles
        ],
    )


def _data(data: DataFacts, words: Words) -> Table:
    parts = [part for part in PARTS if part in data.counts]

    def row(name: Cell, counts: list[int]) -> list[Cell | str]:
        return [name, *(f"{count:,}" for count in counts), f"{sum(counts):,}"]

    rows = [
        row(text(name), [data.counts[part][place] for part in parts])
        for place, name in enumerate(data.classes)
    ]
    sums = [sum(data.counts[part]) for part in parts]
    return table(
        words["data"],
        [words["class"], *(words[f"part.{part}"] for part in parts), words["sum"]],
        [*rows, row(text(words["sum"]), sums)],
    )


def _data_lines(data: DataFacts, words: Words) -> Iterator[str]:
    yield words["data.folder"].format(folder=data.folder)
    yield words["data.fingerprint"].format(fingerprint=data.fingerprint)
    if data.licence is not None:
        yield words["data.licence"].format(licence=data.licence)
    yield words["data.parts"]


def _spent(front: FrontReport, words: Words) -> Table:
    def allowed(spent: Spent) -> str:
        return words["no_limit"] if spent.allowed is None else amount(spent.allowed)

    def share(spent: Spent) -> str:
        return f"{100 * spent.spent / spent.allowed:.0f}" if spent.allowed else ABSENT

    return table(
        words["budget"],
        [
            words["budget.what"],
            words["budget.spent"],
            words["budget.allowed"],
            words["budget.share"],
        ],
        [
            [text(words[f"spent.{one.what}"]), amount(one.spent), allowed(one), share(one)]
            for one in front.spent
        ],
    )
