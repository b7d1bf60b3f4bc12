"""The chapter on what was not measured, or is doubtful."""

from collections import Counter
from collections.abc import Iterator, Sequence

from host.export.forms import FORMS, runtime_of
from host.report.study_answer import Pick, chosen_on, picks_of, standings
from host.report.study_blocks import Block, Bullets, Heading, Paragraph, Section
from host.report.study_cost import yearly_cost
from host.report.study_facts import StudyReport, row_on
from host.report.study_numbers import Words, limit_text, percent
from host.study.front import OnDevice, Profile

Doubts = Iterator[Paragraph]


def doubts_section(report: StudyReport, words: Words) -> Section:
    """Everything that a reader should not take for granted, what is shipped first."""
    blocks: list[Block] = [Paragraph(words["doubts.line"])]
    for title, doubts in (
        ("doubts.shipped", list(_shipped(report, words))),
        ("doubts.missing", list(_missing(report, words))),
        ("doubts.verdicts", list(_verdicts(report, words))),
        ("doubts.sensors", list(_sensors(report, words))),
    ):
        if doubts:
            blocks += [Heading(words[title]), Bullets(doubts)]
    if len(blocks) == 1:
        blocks = [Paragraph(words["doubts.none"])]
    return Section(words["doubts"], blocks)


def _shipped(report: StudyReport, words: Words) -> Doubts:
    """What speaks against the recommended forms."""
    recommended = {pick.profile.name: pick for pick in picks_of(report)}
    for profile in report.front.profiles:
        pick = recommended.get(profile.name)
        if pick is None:
            yield Paragraph(words["doubt.nothing"].format(device=profile.name))
        else:
            yield from _of_pick(report, pick, words)


def _of_pick(report: StudyReport, pick: Pick, words: Words) -> Doubts:
    names = {"device": pick.profile.name, "number": pick.number, "form": pick.form.form}
    if not pick.choice.within_limits:
        yield Paragraph(words["doubt.beyond"].format(**names))
    if pick.row.verdict == "REJECT":
        yield Paragraph(words["doubt.reject"].format(**names))
    if pick.row.agreement is None:
        yield Paragraph(words["doubt.unverified"].format(**names))
    elif pick.row.agreement < 1:
        share = percent(pick.row.agreement)
        yield Paragraph(words["doubt.answers"].format(**names, share=share))
    if pick.form.accuracy.low <= pick.finalist.majority_accuracy:
        share = percent(pick.finalist.majority_accuracy)
        yield Paragraph(words["doubt.majority"].format(**names, share=share))
    for standing in standings(report.front.limits, pick.form, pick.row):
        if standing.within is None:
            limit = limit_text(standing.limit, words)
            yield Paragraph(words["doubt.limit"].format(**names, limit=limit))
    if report.usage is not None:
        cost = yearly_cost(pick.row, report.usage)
        if not cost.keeps_up and cost.duty is not None:
            yield Paragraph(words["doubt.rate"].format(**names, share=percent(cost.duty)))


def _missing(report: StudyReport, words: Words) -> Doubts:
    """Candidates, forms and bundles that are not there for a device profile."""
    for profile in report.front.profiles:
        name = profile.name
        without = sum(row_on(row.devices, name) is None for row in report.front.rows)
        if without:
            n = len(report.front.rows)
            yield Paragraph(words["doubt.rows"].format(device=name, count=without, n=n))
        yield from _missing_forms(report, profile, words)
    yield from _missing_bundles(report, words)
    if report.data is None:
        yield Paragraph(words["doubt.data"])
    if report.trials is None or report.trials.agreement is None:
        yield Paragraph(words["doubt.agreement"])


def _missing_forms(report: StudyReport, profile: Profile, words: Words) -> Doubts:
    for number, finalist in enumerate(report.finalists, start=1):
        forms = {form.form: form for form in finalist.forms}
        for wanted in FORMS:
            if runtime_of(wanted) != profile.runtime:
                continue
            names = {"device": profile.name, "number": number, "form": wanted}
            if wanted not in forms:
                yield Paragraph(words["doubt.form"].format(**names))
            elif row_on(forms[wanted].devices, profile.name) is None:
                yield Paragraph(words["doubt.form_device"].format(**names))


def _missing_bundles(report: StudyReport, words: Words) -> Doubts:
    for profile in report.front.profiles:
        for pick in chosen_on(report.finalists, profile):
            bundled = {name for bundle in pick.finalist.bundles for name in bundle.devices}
            if profile.name not in bundled:
                names = {"device": profile.name, "number": pick.number}
                yield Paragraph(words["doubt.bundle"].format(**names))


def _verdicts(report: StudyReport, words: Words) -> Doubts:
    """Verdicts that are not OK with their reasons, most frequent first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in _all_rows(report):
        if row.verdict is None:
            counts[row.device, words["no_verdict"], ""] += 1
        elif row.verdict != "OK":
            counts.update((row.device, row.verdict, why) for why in row.verdict_reasons or [""])
    for (device, level, why), count in counts.most_common():
        said = words["doubt.verdict"].format(device=device, level=level, count=count)
        yield Paragraph(said, why)


def _sensors(report: StudyReport, words: Words) -> Doubts:
    """Energy, tails and kinds of numbers, by device profile."""
    rows = _all_rows(report)
    for profile in report.front.profiles:
        own = [row for row in rows if row.device == profile.name]
        names = {"device": profile.name, "n": len(own)}
        dark = [row for row in own if row.energy_per_inference_joules is None]
        for why, count in Counter(row.power_absent_because for row in dark).most_common():
            yield Paragraph(words["doubt.energy"].format(**names, count=count), why)
        tails = sum(row.latency_p90_seconds is None for row in own)
        if tails:
            yield Paragraph(words["doubt.p90"].format(**names, count=tails))
        kinds = Counter(row.latency_kind for row in own if row.latency_kind != "measured")
        for kind, count in kinds.most_common():
            word = words[f"kind.{kind}"]
            yield Paragraph(words["doubt.kind"].format(**names, count=count, kind=word))
        untold = sum(row.predicted_latency_seconds is None for row in own)
        if untold:
            yield Paragraph(words["doubt.untold"].format(**names, count=untold))


def _all_rows(report: StudyReport) -> Sequence[OnDevice]:
    """Every measurement that the report shows: of the front, and of the forms of finalists."""
    front = [device for row in report.front.rows for device in row.devices]
    forms = [
        device
        for finalist in report.finalists
        for form in finalist.forms
        for device in form.devices
    ]
    return [*front, *forms]
