"""How well untrained scores rank cells of NAS-Bench-201 by accuracy: any CSV with `arch_str`.

    python -m benchmarks.proxies [--csv FILE --column COL] [--sample N|--all] [--protocol all|live]
                                 [--scores FILE] [--proxies NAME ...] [--json] [--check]
    python -m benchmarks.proxies --cost [--json] [--check]

Every distinct live network is scored once by all proxies in one shared pass and kept in the file
of --scores, so that a run that was stopped goes on. Cells without a path from input to output and
scores that do not exist rank worst. Intervals hold 95 % of resamples of distinct graphs. CPU time
is that of building and scoring one network by that proxy or ensemble alone, on one thread.
`--check` compares the recommended ensemble with the targets and exits with 1 where one is missed;
`--cost` times the shared pass against a plain implementation of each proxy instead. Without --csv
the table is that of GENBA_DATA, or of ../shared/data.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.cost_models.tables import TableError
from benchmarks.proxies import cost
from benchmarks.proxies.bootstrap import Interval
from benchmarks.proxies.collecting import Collected, collect
from benchmarks.proxies.judging import PICKS, TOPS, Figures, judge
from benchmarks.proxies.options import (
    add_proxy_options,
    add_setting_options,
    add_table_options,
)
from benchmarks.proxies.score_file import ScoreFileError
from benchmarks.proxies.targets import BASELINES, dataset, missed, published
from host.errors import UsageError
from host.proxies.catalogue import proxies_by_name

_SAMPLE = 2000


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 for a missed target, 2 for what cannot be used."""
    arguments = _parser().parse_args(words)
    torch.set_num_threads(1)
    try:
        if arguments.cost:
            return cost.report(arguments.timed, as_json=arguments.json, check=arguments.check)
        return _report(arguments)
    except (TableError, ScoreFileError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "; the scores so far are kept" if arguments.scores else ""
        print(f"stopped{kept}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.proxies", description=(__doc__ or "").splitlines()[0]
    )
    add_table_options(parser, protocol="all", sample=_SAMPLE)
    add_proxy_options(parser)
    add_setting_options(parser)
    parser.add_argument("--cost", action="store_true", help="time against plain implementations")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    return parser


def _report(arguments: argparse.Namespace) -> int:
    collected = collect(arguments, proxies_by_name(list(dict.fromkeys(arguments.proxies))))
    found = collected.population
    figures = [
        one
        for column in found.accuracy
        for one in judge(
            found,
            column,
            collected.merits(column),
            resamples=arguments.resamples,
            seed=arguments.seed,
        )
    ]
    spent = collected.cpu_milliseconds(arguments.timed)
    misses = missed(figures, found.protocol, len(found.cells), spent)
    if arguments.json:
        print(json.dumps(_record(collected, figures, spent, misses), allow_nan=False))
    else:
        _print(collected, figures, spent)
        if arguments.check:
            print(f"missed: {'; '.join(misses) or 'nothing'}")
    return 1 if arguments.check and misses else 0


def _record(
    collected: Collected,
    figures: Sequence[Figures],
    spent: Mapping[str, float],
    misses: Sequence[str],
) -> dict[str, Any]:
    found = collected.population
    return {
        "protocol": found.protocol,
        "cells": len(found.cells),
        "distinct_graphs": found.distinct,
        "dead_cells": found.dead,
        "settings": {
            column: [setting.parts() for setting in settings]
            for column, settings in collected.settings.items()
        },
        "tops": TOPS,
        "picks": PICKS,
        "figures": [asdict(one) for one in figures],
        "cpu_milliseconds": spent,
        "failures": collected.failures,
        "published": [asdict(one) for one in BASELINES],
        "missed": misses,
    }


def _print(collected: Collected, figures: Sequence[Figures], spent: Mapping[str, float]) -> None:
    found = collected.population
    for line in collected.described():
        print(line)
    for column, settings in collected.settings.items():
        classes = settings[0].classes
        own = [one for one in figures if one.column == column]
        print(f"\n{column} ({classes} outputs)")
        print(
            f"{'':28}{'Kendall [95 %]':>21}{'Spearman [95 %]':>23}"
            + "".join(f"{f'in top {top:.0%}':>12}" for top in TOPS)
            + "".join(f"{f'best of {count}':>12}" for count in PICKS)
            + f"{'nDCG':>8}{'nan':>6}{'CPU ms':>9}{'published':>11}"
        )
        for one in sorted(own, key=lambda one: (one.is_ensemble, one.kendall or -1.0)):
            print(_line(one, spent.get(one.name), published(one, found.protocol)))
        on = dataset(column)
        for baseline in BASELINES:
            if on is not None:
                print(
                    f"  published: {baseline.name} {baseline.kendall[on]:.3f} on "
                    f"{'all' if baseline.protocol == 'all' else 'live'} cells ({baseline.source})"
                )


def _line(one: Figures, spent: float | None, said: float | None) -> str:
    name = f"{one.name} *" if one.is_ensemble else one.name
    return (
        f"{name:28}{_sure(one.kendall, one.kendall_interval):>21}"
        f"{_sure(one.spearman, one.spearman_interval):>23}"
        + "".join(f"{_number(value, 3):>12}" for value in one.kendall_top)
        + "".join(f"{value:12.2f}" for value in one.best_of)
        + f"{_number(one.ndcg, 3):>8}{one.unscored:6}{_number(spent, 1):>9}{_number(said, 3):>11}"
    )


def _sure(value: float | None, interval: Interval | None) -> str:
    text = _number(value, 3)
    return text if interval is None else f"{text} [{interval.low:.3f}, {interval.high:.3f}]"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
