"""Rankings for the terminal."""

import math
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.ranking.ranking import MACS, Cost, Place, Ranking
from host.ranking.uncertainty import PERCENTILES
from host.report.cost import amount, interval, plain
from host.report.measurement_lines import percent
from host.report.measurement_texts import Language
from host.report.rank_texts import TEXTS
from host.report.units import significant

MILLION = 1e6


@dataclass(frozen=True)
class NamedRanking:
    """A ranking, and what people call that which was ranked: a space, or files."""

    ranking: Ranking
    source: str

    @property
    def count(self) -> int:
        """Of all networks, also of those that were left out."""
        return len(self.ranking.places) + self.ranking.pruned


def ranking_block(named: NamedRanking, top: int, language: Language = "en") -> RenderableType:
    """The first `top` places (0 is all), and how they came about."""
    words = TEXTS[language]
    ranking = named.ranking
    shown = ranking.places[:top] if top else ranking.places
    table = _table(named, language)
    for place in shown:
        table.add_row(*_cells(ranking, place, words["on_front"]))
    judge = ranking.ensemble.name
    networks = networks_text(named.count, language)
    title = words["title"].format(judge=judge, networks=networks, source=named.source)
    lines = [Text(line) for line in _notes(named, len(shown), language)]
    return Group(Text(title, style="bold"), table, *lines)


def networks_text(count: int, language: Language) -> str:
    """So many networks, in words."""
    words = TEXTS[language]
    return words["one"] if count == 1 else words["many"].format(count=count)


def _table(named: NamedRanking, language: Language) -> Table:
    words = TEXTS[language]
    ranking = named.ranking
    table = plain()
    table.add_column(words["rank"], justify="right", no_wrap=True)
    if ranking.draws > 1:
        low, high = PERCENTILES
        ranks = words["ranks"].format(low=low, high=high)
        table.add_column(ranks, justify="right", no_wrap=True)
    table.add_column(words["score"], justify="right", no_wrap=True)
    for device in ranking.predictors:
        level = percent(_level(ranking, device))
        header = words["latency"].format(device=device, level=level)
        table.add_column(header, justify="right", style="italic", no_wrap=True)
    for name in ("macs", "parameters"):
        table.add_column(words[name], justify="right", no_wrap=True)
    table.add_column(words["network"], overflow="fold")
    return table


def _cells(ranking: Ranking, place: Place, on_front: str) -> list[str | Text]:
    cells: list[str | Text] = [str(place.rank)]
    if place.ranks is not None:
        low, high = place.ranks
        cells.append(f"{low}-{high}")
    cells.append(f"{place.score:.3f}")
    macs = significant(place.subject.macs / MILLION)
    if ranking.predictors:
        cells += [_latency(place.costs[name], on_front) for name in ranking.predictors]
    else:
        macs += f" {on_front if place.costs[MACS].on_front else ' ' * len(on_front)}"
    parameters = significant(place.subject.parameters / MILLION)
    return [*cells, macs, parameters, Text(place.subject.text)]


def _latency(cost: Cost, on_front: str) -> str:
    if cost.prediction is None:
        raise TypeError("a latency in a ranking is a prediction")
    value = amount("latency_seconds", cost.value)
    flag = " (!)" if cost.prediction.flagged else ""
    mark = on_front if cost.on_front else " " * len(on_front)
    return f"{value}{flag} {interval('latency_seconds', cost.prediction)} {mark}"


def _notes(named: NamedRanking, shown: int, language: Language) -> list[str]:
    words = TEXTS[language]
    ranking = named.ranking
    lines = []
    if shown < len(ranking.places):
        lines.append(words["more"].format(count=len(ranking.places) - shown))
    if ranking.pruned:
        by = " + ".join(ranking.pruned_by)
        networks = networks_text(named.count, language)
        lines.append(words["pruned"].format(pruned=ranking.pruned, networks=networks, by=by))
    lines.append(words["how"].format(formula=ranking.ensemble.formula))
    if ranking.draws > 1:
        share = PERCENTILES[1] - PERCENTILES[0]
        lines.append(words["draws"].format(draws=ranking.draws, share=share))
    else:
        lines.append(words["one_draw"])
    cost = words["cost_latency" if ranking.predictors else "cost_macs"]
    lines.append(words["front_note"].format(cost=cost))
    lines += _without_score(ranking, language)
    return lines + reservations(ranking)


def _without_score(ranking: Ranking, language: Language) -> list[str]:
    """Where nan ranks networks last, by what has no score."""
    counts = {
        name: sum(math.isnan(place.scores[name]) for place in ranking.places)
        for name in ranking.ensemble.members
    }
    words, total = TEXTS[language], len(ranking.places)
    idle = [name for name, count in counts.items() if count == total]
    lines = [words["idle"].format(proxies=", ".join(idle))] if idle else []
    return lines + [
        words["no_score"].format(proxy=name, networks=networks_text(count, language))
        for name, count in counts.items()
        if 0 < count < total
    ]


def reservations(ranking: Ranking) -> list[str]:
    """What no calibration network held, and how devices have changed since."""
    lines = []
    for device, predictor in ranking.predictors.items():
        operators = {
            operator
            for place in ranking.places
            if (told := place.costs[device].prediction) is not None
            for operator in told.flagged
        }
        if operators:
            names = ", ".join(sorted(operators))
            lines.append(
                f"(!) {device}: no calibration network had {names}; the latency is charged at the"
                " dearest known rate"
            )
        lines += [f"{device}: {note}" for note in predictor.notes]
    return lines


def _level(ranking: Ranking, device: str) -> float:
    told = ranking.places[0].costs[device].prediction
    return math.nan if told is None else told.level
