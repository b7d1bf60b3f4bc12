"""What ranks networks untrained, for the terminal and for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.proxies.base import Proxy, Published
from host.proxies.catalogue import PROXIES
from host.proxies.ensembles import ENSEMBLES, RECOMMENDED, Ensemble
from host.report.cost import plain

ABSENT = "–"
SHOWN_BENCHMARK, SHOWN_DATASET = "NAS-Bench-201", "CIFAR-10"
"""What the list shows of published correlations: most papers report it."""
_DIRECTIONS = {True: "higher", False: "lower"}


def proxies_table() -> RenderableType:
    """Every proxy and every ensemble, a line each."""
    proxies = _catalogue("proxy", "cost", "better", "labels")
    for proxy in PROXIES.values():
        better = _DIRECTIONS[proxy.higher_is_better]
        labels = "yes" if proxy.needs_labels else ""
        row = (proxy.name, proxy.cost, better, labels, *_shown(proxy.published))
        proxies.add_row(*row, Text(proxy.formula))
    ensembles = _catalogue("ensemble")
    for ensemble in ENSEMBLES.values():
        name = f"{ensemble.name} *" if ensemble == RECOMMENDED else ensemble.name
        ensembles.add_row(name, *_shown(ensemble.published), Text(ensemble.formula))
    return Group(
        proxies,
        ensembles,
        Text("* recommended: what ranks without --proxies and --ensemble"),
        Text(
            "Kendall, Spearman: published rank correlation with accuracy on NAS-Bench-201,"
            f" {SHOWN_DATASET}; genba proxies show NAME has all that was published"
        ),
    )


def _catalogue(*columns: str) -> Table:
    table = plain()
    for name in columns:
        table.add_column(name, no_wrap=True)
    for name in ("Kendall", "Spearman"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("formula", overflow="fold")
    return table


def _shown(published: Sequence[Published]) -> tuple[str, str]:
    """Kendall and Spearman on the benchmark of the list."""
    for each in published:
        if each.benchmark.startswith(SHOWN_BENCHMARK) and each.dataset == SHOWN_DATASET:
            return _figure(each.kendall), _figure(each.spearman)
    return ABSENT, ABSENT


def proxy_card(proxy: Proxy) -> RenderableType:
    """All that is known of a proxy."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in (
        ("formula", proxy.formula),
        ("source", proxy.source),
        ("better", _DIRECTIONS[proxy.higher_is_better]),
        ("cost", proxy.cost),
        ("needs", ", ".join(needs_of(proxy))),
        ("version", str(proxy.version)),
        ("ensembles", ", ".join(ensembles_of(proxy)) or "none"),
    ):
        lines.add_row(name, Text(value))
    title = Text(f"proxy {proxy.name}", style="bold")
    return Group(title, lines, _published_table(proxy.published))


def ensemble_card(ensemble: Ensemble) -> RenderableType:
    """All that is known of an ensemble."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("formula", Text(ensemble.formula))
    lines.add_row("source", Text(ensemble.source))
    title = f"ensemble {ensemble.name}"
    if ensemble == RECOMMENDED:
        title += ", the recommended one"
    return Group(Text(title, style="bold"), lines, _published_table(ensemble.published))


def needs_of(proxy: Proxy) -> list[str]:
    """What it looks at beside the graph: parts of the evidence, and labels."""
    labels = ["labels (drawn where there are none)"] if proxy.needs_labels else []
    return [*sorted(need.replace("_", " ") for need in proxy.needs), *labels] or ["the graph alone"]


def ensembles_of(proxy: Proxy) -> list[str]:
    """The names of the ensembles that use it."""
    return [each.name for each in ENSEMBLES.values() if proxy.name in each.members]


def catalogue_record() -> dict[str, Any]:
    """Every proxy and ensemble."""
    return {
        "proxies": [proxy_record(proxy) for proxy in PROXIES.values()],
        "ensembles": [ensemble_record(ensemble) for ensemble in ENSEMBLES.values()],
    }


def proxy_record(proxy: Proxy) -> dict[str, Any]:
    """All that is known of a proxy."""
    return {
        "name": proxy.name,
        "version": proxy.version,
        "cost": proxy.cost,
        "higher_is_better": proxy.higher_is_better,
        "needs": sorted(proxy.needs),
        "needs_labels": proxy.needs_labels,
        "formula": proxy.formula,
        "source": proxy.source,
        "ensembles": ensembles_of(proxy),
        "published": list(_published_records(proxy.published)),
    }


def ensemble_record(ensemble: Ensemble) -> dict[str, Any]:
    """All that is known of an ensemble."""
    return {
        "name": ensemble.name,
        "recommended": ensemble == RECOMMENDED,
        "members": list(ensemble.members),
        "formula": ensemble.formula,
        "source": ensemble.source,
        "published": list(_published_records(ensemble.published)),
    }


def _published_records(published: Sequence[Published]) -> Iterator[dict[str, Any]]:
    for each in published:
        yield asdict(each)


def _published_table(published: Sequence[Published]) -> RenderableType:
    if not published:
        return Text("No correlation with accuracy was published on a benchmark that is known here.")
    table = plain()
    for name in ("benchmark", "data"):
        table.add_column(name, overflow="fold")
    for name in ("Kendall", "Spearman"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("published in", overflow="fold")
    for each in published:
        table.add_row(
            each.benchmark,
            each.dataset,
            _figure(each.kendall),
            _figure(each.spearman),
            Text(each.source),
        )
    return table


def _figure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"
