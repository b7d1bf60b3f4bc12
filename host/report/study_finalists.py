"""The chapter on the finalists: how good, how fast, in which form, and why."""

from collections.abc import Iterator

from host.export.forms import runtime_of
from host.report.study_answer import standings
from host.report.study_blocks import Block, Cell, Heading, Paragraph, Section, Table, table, text
from host.report.study_facts import StudyReport, row_on
from host.report.study_front import figures
from host.report.study_inspection import inspection_blocks
from host.report.study_numbers import (
    ABSENT,
    Words,
    amount,
    duration,
    energy,
    percent,
    percent_score,
    power_source,
    quality_name,
    share_score,
)
from host.report.units import megabytes, milliseconds, significant
from host.study.finalist import Choice, FinalistResult, FormResult
from host.study.front import OnDevice, Profile


def finalists_section(report: StudyReport, words: Words) -> Section:
    """All finalists in one table, then each with its forms and devices."""
    return Section(words["finalists"], list(_blocks(report, words)))


def _blocks(report: StudyReport, words: Words) -> Iterator[Block]:
    if not report.finalists:
        yield Paragraph(words["finalists.none"], style="doubt")
        return
    yield Paragraph(words["finalists.line"])
    yield _overview(report, words)
    for number, finalist in enumerate(report.finalists, start=1):
        yield Heading(words["finalist.heading"].format(number=number, candidate=finalist.text))
        yield _forms(finalist, words)
        yield from inspection_blocks(finalist, words)
        yield from _devices(report, finalist, words)
        for choice in finalist.choices:
            yield from _why(report, finalist, choice, words)


def _overview(report: StudyReport, words: Words) -> Table:
    numbers = {one.key: str(n) for n, one in enumerate(report.finalists, start=1)}
    columns = ("number", "candidate", "score", "parameters", "macs")
    training = ("epochs", "best_epoch", "train_time", "taught_by", "majority")

    def teacher(one: FinalistResult) -> str:
        return ABSENT if one.taught_by is None else numbers.get(one.taught_by, one.taught_by[:12])

    return table(
        words["finalists.table"],
        [words[f"column.{name}"] for name in (*columns, *training)],
        [
            [
                numbers[one.key],
                text(one.text),
                f"{one.score:.2f}",
                f"{one.parameters:,}",
                amount(one.macs / 1e6),
                str(one.epochs),
                str(one.best_epoch),
                duration(one.train_seconds, words),
                teacher(one),
                percent(one.majority_accuracy),
            ]
            for one in report.finalists
        ],
    )


def _forms(finalist: FinalistResult, words: Words) -> Table:
    columns = ("form", "size", "accuracy", "balanced", "auroc", "validation", "difference", "float")
    return table(
        words["forms.table"],
        [words[f"column.{name}"] for name in columns],
        [
            [
                text(form.form),
                megabytes(form.size_bytes),
                percent_score(form.accuracy),
                percent(form.balanced_accuracy),
                share_score(form.auroc),
                f"{form.validation_quality:.3f}",
                significant(form.largest_difference),
                text(", ".join(form.float_layers) or ABSENT),
            ]
            for form in finalist.forms
        ],
    )


def _devices(report: StudyReport, finalist: FinalistResult, words: Words) -> Iterator[Block]:
    """What decides, and beside it what is good to know."""
    choices = {choice.device: choice for choice in finalist.choices}
    columns = ("device", "form", "latency_predicted", "latency_measured", "memory_predicted")
    shown = list(_shown(report, finalist))
    yield table(
        words["devices.table"],
        [words[f"column.{name}"] for name in (*columns, "memory_measured", "verdict", "chosen")],
        [
            [
                text(profile.name),
                text(form.form),
                *figures(row, words),
                _chosen(report, choices.get(profile.name), form, row, words),
            ]
            for profile, form, row in shown
        ],
    )
    more = ("device", "form", "p90", "power", "power_source", "energy", "answers")
    yield table(
        words["devices.more"],
        [words[f"column.{name}"] for name in more],
        [
            [text(profile.name), text(form.form), *_more_figures(row, words)]
            for profile, form, row in shown
        ],
    )


def _shown(
    report: StudyReport, finalist: FinalistResult
) -> Iterator[tuple[Profile, FormResult, OnDevice]]:
    for profile in report.front.profiles:
        for form in finalist.forms:
            row = row_on(form.devices, profile.name)
            if row is not None:
                yield profile, form, row


def _more_figures(row: OnDevice, words: Words) -> list[Cell | str]:
    p90, watts, agreement = row.latency_p90_seconds, row.power_watts, row.agreement
    absent = words["not_measured"]
    return [
        absent if p90 is None else milliseconds(p90),
        absent if watts is None else significant(watts),
        text(ABSENT if watts is None else power_source(row, words)),
        energy(row, words),
        words["not_verified"] if agreement is None else percent(agreement),
    ]


def _chosen(
    report: StudyReport, choice: Choice | None, form: FormResult, row: OnDevice, words: Words
) -> Cell:
    if choice is None or choice.form != form.form:
        return text(ABSENT)
    if not choice.within_limits:
        return Cell(words["chosen.beyond"], "bad")
    if not report.front.limits:
        return Cell(words["chosen.no_limits"], "good")
    unknown = any(one.within is None for one in standings(report.front.limits, form, row))
    return Cell(words["chosen.partly" if unknown else "chosen.within"], "good")


def _why(
    report: StudyReport, finalist: FinalistResult, choice: Choice, words: Words
) -> Iterator[Block]:
    """The figures that the forms for a device differ in, and the reason that was written down."""
    profiles = {profile.name: profile for profile in report.front.profiles}
    profile = profiles.get(choice.device)
    lines = [] if profile is None else list(_differences(finalist, choice, profile, words))
    said = words["why"].format(device=choice.device, form=choice.form)
    yield Paragraph(words["space"].join([said, *lines, words["why.reason"]]), choice.because)


def _differences(
    finalist: FinalistResult, choice: Choice, profile: Profile, words: Words
) -> Iterator[str]:
    measured = {
        form.form: (form, row)
        for form in finalist.forms
        if runtime_of(form.form) == profile.runtime
        and (row := row_on(form.devices, profile.name)) is not None
    }
    if choice.form not in measured:
        return
    form, row = measured[choice.form]
    for name, (other, other_row) in measured.items():
        if name != choice.form:
            yield words["why.figures"].format(
                form=form.form,
                other=name,
                latency=milliseconds(row.latency_seconds),
                other_latency=milliseconds(other_row.latency_seconds),
                ratio=significant(other_row.latency_seconds / row.latency_seconds),
                quality=quality_name(form, words),
                value=f"{form.validation_quality:.3f}",
                other_value=f"{other.validation_quality:.3f}",
            )
