"""Accuracy lost by searching under hardware budgets after measuring 20 cells of a device.

    python -m benchmarks.regret [--scores FILE] [--column COL] [--measured N] [--near N] [--seeds N]
                                [--features cells|kernels] [--ranking feasible|population]
                                [--json] [--check]

Scores that the file of `python -m benchmarks.proxies --all --scores FILE` holds in the same setting
are read, the others computed and added. Of each device at most 20 cells are measured: 12 are chosen
D-optimally, 8 by each search itself, as a study does: the best scores that are predicted to keep
the budget. The first pick has the highest score of the cells whose 90 % interval keeps the budget
with its upper end (a measured cell by what was measured). The other nine would be measured before
one of them is taken: of them only the predicted cost must keep it. Picks that turn out to be beyond
the budget are passed over; how often the first one keeps it stands beside. Losses are points of
accuracy against the best cell within the budget. The references do the same with true costs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.cost_models.tables import TableError, read_table
from benchmarks.proxies.collecting import collect
from benchmarks.proxies.options import (
    add_setting_options,
    add_table_options,
    data_path,
    positive,
)
from benchmarks.proxies.score_file import ScoreFileError
from benchmarks.regret.costs import FEATURES
from benchmarks.regret.protocol import BUDGETS, DEVICES, PICKS, RANKINGS, Figures, overall
from benchmarks.regret.results import (
    REFERENCE,
    TURNS,
    Result,
    Search,
    costs_of,
    ensemble_of,
    searched,
)
from benchmarks.regret.targets import PUBLISHED, missed
from cost_models.intervals import LEVEL
from host.errors import UsageError
from host.proxies.catalogue import proxies_by_name

_COSTS = Path("latency/nasbench201_cifar10_devices.csv")


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 for a missed target, 2 for what cannot be used."""
    arguments = _parser().parse_args(words)
    torch.set_num_threads(1)
    try:
        search = _search(arguments)
        results = _results(arguments, search)
    except (TableError, ScoreFileError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    misses = missed(results)
    if arguments.json:
        print(json.dumps(_record(search, results, misses), allow_nan=False))
    else:
        for result in results:
            _print(search, result)
        if arguments.check:
            print(f"\nmissed: {'; '.join(misses) or 'nothing'}")
    return 1 if arguments.check and misses else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regret", description=(__doc__ or "").splitlines()[0]
    )
    add_table_options(parser, protocol="live", sample=None)
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="table of costs with an arch_str column"
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="COL",
        help="column of costs; may be repeated (the eight metrics of HW-NAS-Bench)",
    )
    parser.add_argument(
        "--measured", type=positive, default=20, metavar="N", help="cells measured of each device"
    )
    parser.add_argument(
        "--near",
        type=int,
        default=8,
        metavar="N",
        help="how many of them each search measures itself, the best within the budget (8)",
    )
    parser.add_argument("--seeds", type=positive, default=5, help="choices of what to measure")
    parser.add_argument(
        "--features",
        choices=FEATURES,
        default=FEATURES[0],
        help="what the cost model sees: operations of the cell, or kernels as in a study",
    )
    parser.add_argument(
        "--ranking",
        choices=RANKINGS,
        default=RANKINGS[0],
        help="over which cells an ensemble ranks",
    )
    parser.add_argument(
        "--turns",
        nargs="+",
        default=list(TURNS),
        metavar="NAME",
        help="ensembles or proxies that pick in turn, the first the first pick "
        f"({', '.join(TURNS)})",
    )
    parser.add_argument(
        "--level",
        type=_share,
        default=LEVEL,
        help=f"of the interval whose upper end the first pick must keep ({LEVEL})",
    )
    add_setting_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    return parser


def _share(text: str) -> float:
    level = float(text)
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"{level} does not lie between 0 and 1")
    return level


def _search(arguments: argparse.Namespace) -> Search:
    if not 0 <= arguments.near < arguments.measured:
        raise UsageError(f"--near {arguments.near} does not lie below --measured")
    return Search(
        ensembles=tuple(ensemble_of(name) for name in dict.fromkeys(arguments.turns)),
        features=arguments.features,
        ranking=arguments.ranking,
        designed=arguments.measured - arguments.near,
        near=arguments.near,
        level=arguments.level,
        seeds=arguments.seeds,
    )


def _results(arguments: argparse.Namespace, search: Search) -> list[Result]:
    devices = list(dict.fromkeys(arguments.device)) or list(DEVICES)
    table = read_table(data_path(arguments.costs, _COSTS), devices)
    names = dict.fromkeys(name for one in (*search.ensembles, REFERENCE) for name in one.members)
    collected = collect(arguments, proxies_by_name(list(names)))
    found = collected.population
    costs = costs_of(found, table)
    for device, values in costs.items():
        usable = len(set(found.graphs[values > 0].tolist()))
        if usable < arguments.measured + PICKS:
            raise TableError(
                f"{table.path}, column {device!r}: {usable} distinct graphs have a cost, "
                f"{arguments.measured + PICKS} are needed; give more cells"
            )
    return [
        searched(search, found, column, costs, scores)
        for column, scores in collected.scores.items()
    ]


def _record(search: Search, results: Sequence[Result], misses: Sequence[str]) -> dict[str, Any]:
    return {
        "search": asdict(search),
        "results": [
            asdict(result)
            | {"mean": _mean_record(result.mean)}
            | {"references": {n: _mean_record(one) for n, one in result.references.items()}}
            for result in results
        ],
        "missed": misses,
    }


def _mean_record(figures: Figures) -> dict[str, float]:
    return {
        "first": figures.first,
        "best": figures.best,
        "met": figures.met,
        "share_met": figures.share_met,
    }


def _print(search: Search, result: Result) -> None:
    over = "the population" if search.ranking == "population" else "the allowed cells"
    print(
        f"\n{result.column}: {result.cells:,} cells; {search.designed} measured on each device and "
        f"{search.near} more by each search, {search.seeds} seeds; cost model: {search.features}; "
        f"score: {', then '.join(one.name for one in search.ensembles)}; ranks over {over}"
    )
    print("points lost by the first pick / by the best of ten / budget kept by the first pick")
    print(
        f"{'':22}"
        + "".join(f"{f'budget {budget:.2f}':>20}" for budget in BUDGETS)
        + f"{'mean':>20}"
    )
    for device in dict.fromkeys(one.device for one in result.figures):
        own = [one for one in result.figures if one.device == device]
        print(f"{device:22}" + "".join(f"{_cell(one):>20}" for one in [*own, overall(own)]))
    by_budget = [overall([one for one in result.figures if one.budget == b]) for b in BUDGETS]
    mean = result.mean
    print(f"{'mean':22}" + "".join(f"{_cell(one):>20}" for one in [*by_budget, mean]))
    print(
        f"{result.column}: first pick loses {mean.first:.2f}, best of ten {mean.best:.2f} points; "
        f"the budget is kept by {mean.met:.1%} of first picks and {mean.share_met:.1%} of all"
    )
    for name, one in result.references.items():
        print(f"  {name} with true costs: {one.first:.2f} / {one.best:.2f}")
    print(f"  {PUBLISHED}")


def _cell(figures: Figures) -> str:
    return f"{figures.first:.2f} / {figures.best:.2f} / {figures.met:.0%}"


if __name__ == "__main__":
    sys.exit(main())
