"""The chapter on how well the score of untrained networks ranked them."""

from collections.abc import Iterator

from host.report.plots import inline_svg
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
from host.report.study_facts import StudyReport
from host.report.study_numbers import ABSENT, Words, duration
from host.report.study_plots import agreement_figure
from host.study.finalist import RankAgreement, Trial, TrialsReport


def agreement_section(report: StudyReport, words: Words) -> Section:
    """Kendall's tau with what it means, the scatter, and everything that was trained."""
    return Section(words["agreement"], list(_blocks(report.trials, words)))


def common_epochs(trials: TrialsReport) -> int | None:
    """After how many epochs trials are compared: as the agreement says, else the latest that all
    have reached.
    """
    if trials.agreement is not None:
        return trials.agreement.epochs
    reached = [{epochs for epochs, _ in trial.rounds} for trial in trials.trials]
    return max(set.intersection(*reached), default=None) if reached else None


def compared(trials: TrialsReport) -> list[tuple[Trial, float]]:
    """The trials that were judged after those epochs, and their quality then."""
    epochs = common_epochs(trials)
    return [
        (trial, quality)
        for trial in trials.trials
        for reached, quality in trial.rounds
        if reached == epochs
    ]


def _blocks(trials: TrialsReport | None, words: Words) -> Iterator[Block]:
    if trials is None or not trials.trials:
        yield Paragraph(words["agreement.nothing"], style="doubt")
        return
    if trials.agreement is None:
        yield Paragraph(words["agreement.none"].format(n=len(trials.trials)), style="doubt")
    else:
        yield Paragraph(_sentence(trials.agreement, words))
    pairs = compared(trials)
    epochs = common_epochs(trials)
    if epochs is not None and len(pairs) > 1:
        caption = words["agreement.picture"].format(epochs=epochs, n=len(pairs))
        svg = inline_svg(agreement_figure(pairs, epochs, words), caption)
        marks = [(mark, words[f"mark.{mark}"]) for mark in ("trial", "chosen")]
        yield Pictures([Picture(svg, caption)], marks)
    yield _table(trials, words)


def _sentence(agreement: RankAgreement, words: Words) -> str:
    """The coefficient, its interval, and both in plain words."""
    ordered = round(100 * (1 + agreement.kendall) / 2)
    figure = words["agreement.line"].format(
        n=agreement.n,
        epochs=agreement.epochs,
        kendall=f"{agreement.kendall:.2f}",
        ordered=ordered,
    )
    return words["space"].join([figure, _surety(agreement, words)])


def _surety(agreement: RankAgreement, words: Words) -> str:
    low, high = agreement.low, agreement.high
    if low is None or high is None:
        return words["agreement.no_interval"].format(n=agreement.n)
    interval = words["agreement.interval"].format(low=f"{low:.2f}", high=f"{high:.2f}")
    if low > 0:
        meaning = words["agreement.better"]
    elif high < 0:
        meaning = words["agreement.worse"]
    else:
        meaning = words["agreement.chance"]
    return words["space"].join([interval, meaning])


def _table(trials: TrialsReport, words: Words) -> Table:
    columns = ("candidate", "score", "parameters", "rounds", "train_time", "finalist")
    best_first = sorted(trials.trials, key=lambda trial: trial.score, reverse=True)
    return table(
        words["trials.table"].format(n=len(best_first)),
        [words[f"column.{name}"] for name in columns],
        [_row(trial, words) for trial in best_first],
    )


def _row(trial: Trial, words: Words) -> list[Cell | str]:
    rounds = words["comma"].join(
        words["round"].format(epochs=epochs, quality=f"{quality:.3f}")
        for epochs, quality in trial.rounds
    )
    return [
        text(trial.text),
        f"{trial.score:.2f}",
        f"{trial.parameters:,}",
        text(rounds or ABSENT),
        duration(trial.seconds, words),
        text(words["yes"] if trial.finalist else ABSENT),
    ]
