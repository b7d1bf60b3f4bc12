"""The chapter on what a year costs in electricity, and where each number comes from."""

from collections.abc import Iterator

from host.report.study_answer import Pick, picks_of
from host.report.study_blocks import Block, Cell, Paragraph, Section, Table, table, text
from host.report.study_cost import YearlyCost, yearly_cost
from host.report.study_facts import StudyReport, Usage
from host.report.study_numbers import ABSENT, Words, amount, energy, percent, power_source


def energy_section(report: StudyReport, words: Words) -> Section:
    """Energy of one inference x rate x price for every device; what is absent has no figure."""
    return Section(words["cost"], list(_blocks(report, words)))


def _blocks(report: StudyReport, words: Words) -> Iterator[Block]:
    picks = picks_of(report)
    if not picks:
        yield Paragraph(words["cost.nothing"], style="doubt")
        return
    usage = report.usage
    if usage is None:
        yield Paragraph(words["cost.no_rate"])
        yield _energies(picks, words)
    else:
        yield Paragraph(_assumptions(usage, words))
        yield _costs(picks, usage, words)
    if all(pick.row.energy_per_inference_joules is None for pick in picks):
        yield Paragraph(words["cost.dark"], style="doubt")
    else:
        yield Paragraph(words["cost.gross"])


def _assumptions(usage: Usage, words: Words) -> str:
    asked = amount(usage.inferences_per_year)
    if usage.rate_hertz is None or usage.hours_per_year is None:
        said = words["cost.count"].format(count=asked)
    else:
        said = words["cost.rate"].format(
            rate=amount(usage.rate_hertz), hours=amount(usage.hours_per_year), count=asked
        )
    if usage.price_per_kwh is None:
        return words["space"].join([said, words["cost.no_price"]])
    price = amount(usage.price_per_kwh)
    told = words["cost.price"].format(price=price, currency=usage.currency)
    return words["space"].join([said, told])


def _head(pick: Pick, words: Words) -> list[Cell | str]:
    joules = pick.row.energy_per_inference_joules
    absent = joules is None
    source = Cell(ABSENT if absent else power_source(pick.row, words), "text")
    figure = Cell(energy(pick.row, words), "doubt" if absent else "number")
    return [text(pick.profile.name), str(pick.number), text(pick.form.form), figure, source]


def _energies(picks: list[Pick], words: Words) -> Table:
    columns = ("device", "finalist", "form", "energy", "energy_source")
    return table(
        words["cost.energies"],
        [words[f"column.{name}"] for name in columns],
        [_head(pick, words) for pick in picks],
    )


def _costs(picks: list[Pick], usage: Usage, words: Words) -> Table:
    columns = ("device", "finalist", "form", "energy", "energy_source", "duty", "kwh")
    money = words["column.money"].format(currency=usage.currency or ABSENT)
    return table(
        words["cost.table"],
        [*(words[f"column.{name}"] for name in columns), money],
        [[*_head(pick, words), *_year(yearly_cost(pick.row, usage), words)] for pick in picks],
    )


def _year(cost: YearlyCost, words: Words) -> list[Cell | str]:
    duty = ABSENT if cost.duty is None else percent(cost.duty)
    kwh, money = cost.energy_kwh, cost.money
    no_price = words["not_measured"] if kwh is None else words["no_price"]
    return [
        Cell(duty, "number" if cost.keeps_up else "bad"),
        Cell(words["not_measured"], "doubt") if kwh is None else amount(kwh),
        Cell(no_price, "doubt") if money is None else amount(money),
    ]
