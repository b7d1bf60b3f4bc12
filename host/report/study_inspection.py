"""How a finalist does as an inspector: misses, false alarms, and what they cost."""

from collections.abc import Iterator

from host.report.study_blocks import Block, Cell, Table, table, text
from host.report.study_numbers import (
    ABSENT,
    Words,
    amount,
    missed,
    percent,
    percent_score,
)
from host.report.units import significant
from host.study.finalist import FinalistResult, FormResult, Inspection


def inspection_blocks(finalist: FinalistResult, words: Words) -> Iterator[Block]:
    """One table for every threshold, where there are two classes; the confusion where not."""
    inspected = [(form, form.inspection) for form in finalist.forms if form.inspection is not None]
    if inspected:
        yield _cheapest(inspected, words)
        yield _at_false_alarms(inspected, words)
    elif finalist.forms and finalist.forms[0].confusion:
        yield _confusion(finalist, words)


def part(count: int, n: int) -> str:
    """So many of n, and percent; without any n there is no percent."""
    return f"{count:,} / {n:,}" + (f" ({percent(count / n)} %)" if n else "")


def _cheapest(inspected: list[tuple[FormResult, Inspection]], words: Words) -> Table:
    first = inspected[0][1]
    columns = ("form", "threshold", "miss", "false_alarm", "found", "good", "cost")
    return table(
        words["inspection.table"].format(
            defect=first.defect_class,
            miss=amount(first.cost_of_miss),
            false_alarm=amount(first.cost_of_false_alarm),
        ),
        [words[f"column.{name}"] for name in columns],
        [[text(form.form), *_outcome(one)] for form, one in inspected],
    )


def _outcome(one: Inspection) -> list[Cell | str]:
    (good, false_alarms), (misses, found) = one.confusion
    defects, goods = misses + found, good + false_alarms
    return [
        significant(one.threshold),
        part(misses, defects),
        part(false_alarms, goods),
        f"{found:,}",
        f"{good:,}",
        amount(one.cost_per_sample),
    ]


def _at_false_alarms(inspected: list[tuple[FormResult, Inspection]], words: Words) -> Table:
    limit = percent(inspected[0][1].false_alarm_rate_limit)
    columns = ("form", "recall", "miss_rate", "false_alarm_rate")
    return table(
        words["recall.table"].format(limit=limit),
        [words[f"column.{name}"] for name in columns],
        [
            [
                text(form.form),
                percent_score(one.recall),
                percent_score(missed(one.recall)),
                percent_score(one.false_alarm_rate),
            ]
            for form, one in inspected
        ],
    )


def _confusion(finalist: FinalistResult, words: Words) -> Table:
    """Of the first form, which is the network as it was trained."""
    form = finalist.forms[0]

    def found(row: list[int], place: int) -> str:
        return percent(row[place] / sum(row)) if sum(row) else ABSENT

    return table(
        words["confusion.table"].format(form=form.form),
        [words["confusion.truth"], *finalist.classes, words["confusion.found"]],
        [
            [text(name), *(f"{count:,}" for count in row), found(row, place)]
            for place, (name, row) in enumerate(zip(finalist.classes, form.confusion, strict=True))
        ],
    )
