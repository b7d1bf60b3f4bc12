"""Where the time of an inference goes, by kind of operator and operator by operator."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.measurement import Profile
from host.report.measurement_lines import milliseconds
from host.report.measurement_texts import TEXTS, Language

OPERATORS_SHOWN = 12


@dataclass(frozen=True)
class OperatorShare:
    """One operator, or all of one kind, and their part of an inference. `count` is 0 for the time
    between operators.
    """

    name: str
    count: int
    seconds: float
    share: float


def by_kind(profile: Profile, language: Language = "en") -> list[OperatorShare]:
    """The time of every kind of operator, longest first, and last what is between them."""
    kinds: dict[str, list[float]] = {}
    for operator in profile.operators:
        kinds.setdefault(operator.kind, []).append(operator.seconds)
    whole = _whole_seconds(profile)
    rows = [OperatorShare(k, len(s), sum(s), sum(s) / whole) for k, s in kinds.items()]
    rows.sort(key=lambda row: row.seconds, reverse=True)
    rest = profile.run_seconds - _operator_seconds(profile)
    if rest > 0:
        rows.append(OperatorShare(TEXTS[language]["profile_rest"], 0, rest, rest / whole))
    return rows


def slowest_operators(profile: Profile, count: int = OPERATORS_SHOWN) -> list[OperatorShare]:
    """The slowest operators, longest first, each with its kind."""
    ordered = sorted(profile.operators, key=lambda operator: operator.seconds, reverse=True)
    whole = _whole_seconds(profile)
    return [
        OperatorShare(f"{o.name} ({o.kind})", 1, o.seconds, o.seconds / whole)
        for o in ordered[:count]
    ]


def profile_note(profile: Profile, language: Language = "en") -> str:
    """How the times were taken, and that they are no latency to quote."""
    return TEXTS[language]["profile_note"].format(
        runs=profile.runs, value=milliseconds(profile.run_seconds)
    )


def profile_table(
    profile: Profile, model: str, device: str, language: Language = "en"
) -> RenderableType:
    """Shares by kind of operator, and the slowest operators."""
    words = TEXTS[language]
    return Group(
        Text(words["profile_title"].format(model=model, device=device), style="bold"),
        Text(f"  {profile_note(profile, language)}"),
        _table(words["profile_kind"], by_kind(profile, language), language, counted=True),
        _table(words["profile_operator"], slowest_operators(profile), language, counted=False),
    )


def _table(
    title: str, rows: Sequence[OperatorShare], language: Language, *, counted: bool
) -> Table:
    words = TEXTS[language]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, overflow="fold")
    if counted:
        table.add_column(words["profile_count"], justify="right")
    table.add_column(words["profile_time"], justify="right")
    table.add_column(words["profile_share"], justify="right")
    for row in rows:
        count = [str(row.count) if row.count else ""] if counted else []
        # Text, because names of operators are the model's and must not be read as markup.
        table.add_row(Text(row.name), *count, milliseconds(row.seconds), f"{row.share:.1%}")
    return table


def _operator_seconds(profile: Profile) -> float:
    return sum(operator.seconds for operator in profile.operators)


def _whole_seconds(profile: Profile) -> float:
    """The inference; its operators, where threads make them longer together. Never 0."""
    return max(profile.run_seconds, _operator_seconds(profile), 1e-9)
