"""Few-shot cost models on NAS-Bench-201: any table with an `arch_str` column, or HELP's split.

    python -m benchmarks.cost_models --csv FILE --column COL [--n 10 20 50 100] [--seeds 5]
                                     [--select d-optimal|random] [--json]
    python -m benchmarks.cost_models [--csv FILE] --protocol help [--n 10 20] [--json]
    python -m benchmarks.cost_models [--csv FILE] --check [--json]

N cells are measured and a cell of every other distinct graph is predicted; cells without a path
from input to output and values that are not positive (infeasible) are left out and counted. No
other device takes part. Ranks are of values with four significant digits, as they are printed.
`--check` compares with the targets and exits with 1 where one is missed. Without --csv the table
is that of GENBA_DATA, or of ../shared/data.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cost_models.few_shot import SELECTIONS
from benchmarks.cost_models.protocols import (
    HELP_DEVICES,
    Figures,
    HelpFigures,
    few_shot,
    help_columns,
    help_protocol,
)
from benchmarks.cost_models.tables import Table, TableError, number_columns, read_table
from benchmarks.cost_models.targets import Check, check

TABLE = Path("latency/nasbench201_cifar10_devices.csv")
_COUNTS, _HELP_COUNTS = (10, 20, 50, 100), (10, 20)


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 for a missed target, 2 for a file that cannot be used."""
    arguments = _parser().parse_args(words)
    path = arguments.csv or Path(os.environ.get("GENBA_DATA", "../shared/data")) / TABLE
    try:
        if arguments.check:
            return _check(path, as_json=arguments.json)
        if arguments.protocol == "help":
            _help(path, arguments)
        else:
            _columns(path, arguments)
    except TableError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost_models",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="table with an arch_str column")
    parser.add_argument(
        "--column", action="append", default=[], help="column of values; may be repeated"
    )
    parser.add_argument("--n", type=_positive, nargs="+", metavar="N", help="cells measured")
    parser.add_argument("--seeds", type=_positive, default=5, help="runs that are averaged")
    parser.add_argument("--select", choices=SELECTIONS, default=SELECTIONS[0])
    parser.add_argument("--protocol", choices=("columns", "help"), default="columns")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _columns(path: Path, arguments: argparse.Namespace) -> None:
    if not arguments.column:
        names = ", ".join(number_columns(path)) or "none that holds numbers"
        raise TableError(f"name a column of {path} by --column; there are: {names}")
    columns = list(dict.fromkeys(arguments.column))
    table = read_table(path, columns)
    counts = list(dict.fromkeys(arguments.n or _COUNTS))
    found = [
        figures
        for column in columns
        for figures in few_shot(table, column, counts, arguments.seeds, arguments.select)
    ]
    if arguments.json:
        left_out = {column: table.left_out(column) for column in columns}
        _print_json(
            {
                "selection": arguments.select,
                "columns": [asdict(figures) for figures in found],
                "left_out": left_out,
            }
        )
        return
    for column in columns:
        print(_left_out(table, column))
    print(f"choice: {arguments.select}; mean of {arguments.seeds} seeds")
    _print_figures(found)


def _left_out(table: Table, column: str) -> str:
    counts = table.left_out(column)
    return (
        f"{column}: {len(table.usable(column))} of {len(table.cells)} cells; left out: "
        f"{counts['disconnected']} disconnected, {counts['infeasible']} infeasible, "
        f"{counts['not_measured']} not measured"
    )


def _print_figures(found: Sequence[Figures]) -> None:
    print(
        f"{'column':26}{'N':>5}{'Spearman':>10}{'MAPE':>8}{'in 5 %':>8}{'in 10 %':>8}"
        f"{'covered':>9}{'width':>8}{'fit s':>8}  runtime"
    )
    for f in found:
        rho = "none" if f.rho is None else f"{f.rho:.4f}"
        width = "open" if math.isinf(f.width) else f"{f.width:.1%}"
        print(
            f"{f.column:26}{f.n:5}{rho:>10}{f.mape:8.1%}{f.within_5_percent:8.1%}"
            f"{f.within_10_percent:8.1%}{f.coverage:9.1%}{width:>8}{f.fit_seconds:8.3f}"
            f"  {', '.join(sorted(set(f.kinds)))}"
        )


def _help(path: Path, arguments: argparse.Namespace) -> None:
    columns = help_columns(number_columns(path))
    table = read_table(path, list(columns.values()))
    counts = list(dict.fromkeys(arguments.n or _HELP_COUNTS))
    found = help_protocol(table, columns, counts, arguments.seeds, arguments.select)
    if arguments.json:
        _print_json({"selection": arguments.select, "help": [_help_json(f) for f in found]})
        return
    print(f"Spearman on HELP's split, choice: {arguments.select}; mean of {arguments.seeds} seeds")
    _print_help(found)
    print(
        "; ".join(f"N={f.n}: {f.mean_every:.4f} all, {f.mean_trimmed:.4f} trimmed" for f in found)
        + " (published: HELP 0.932 at N=10, NASFLAT 0.959 at N=20, both with nine more devices)"
    )


def _help_json(figures: HelpFigures) -> dict[str, Any]:
    means = {"mean_all": figures.mean_every, "mean_trimmed": figures.mean_trimmed}
    return asdict(figures) | means


def _print_help(found: Sequence[HelpFigures]) -> None:
    print(f"{'':14}" + "".join(f"{name:>15}" for name in (*HELP_DEVICES, "mean")))
    for figures in found:
        for name, values, mean in (
            ("all", figures.every, figures.mean_every),
            ("trimmed", figures.trimmed, figures.mean_trimmed),
        ):
            cells = [*(values[device] for device in HELP_DEVICES), mean]
            print(f"N={figures.n:<4}{name:8}" + "".join(f"{value:15.4f}" for value in cells))


def _check(path: Path, *, as_json: bool) -> int:
    found = check(path)
    if as_json:
        _print_json(found.as_json())
    else:
        _print_help([found.help])
        _print_figures([found.raspi4, found.edgegpu, *found.coverage])
        print(_last_line(found))
    return 1 if found.missed else 0


def _last_line(found: Check) -> str:
    covering = f"{len(found.covering)} of {len(found.coverage) - len(found.exact)} devices"
    astray = ", ".join(f"{f.column} {f.coverage:.1%}" for f in found.astray)
    covering += f" (not: {astray})" if astray else ""
    exact = ", ".join(f"{f.column} {f.coverage:.1%}" for f in found.exact)
    covering += f", and {len(found.exact)} analytic ones are exact ({exact})" if exact else ""
    return (
        f"HELP N=10 {found.help.mean_every:.4f} all / {found.help.mean_trimmed:.4f} trimmed"
        f" (targets 0.975 / 0.960); raspi4 N=20 {found.raspi4.rho or 0:.3f} (0.95);"
        f" edgegpu N=100 {found.edgegpu.rho or 0:.3f} (0.975); 90 % intervals cover 88-93 % on"
        f" {covering};"
        f" {found.speed.predictions_per_second:,.0f} predictions/s (20,000);"
        f" fit at N=100 {found.speed.fit_seconds:.2f} s (1); missed: "
        f"{'; '.join(found.missed) or 'nothing'}"
    )


def _print_json(result: dict[str, Any]) -> None:
    print(json.dumps(_finite(result), allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with None for numbers that JSON has no word for: an open interval."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
