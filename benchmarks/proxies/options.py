"""Options of the command line that name a table of accuracies, a file of scores and a setting."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost_models.tables import Table, TableError, number_columns, read_table
from benchmarks.proxies.population import PROTOCOLS, Protocol
from benchmarks.proxies.setting import IMAGES, Setting
from benchmarks.proxies.targets import dataset
from host.proxies.catalogue import PROXIES
from host.spaces.nasbench201 import NasBench201

ACCURACY = Path("nas/nasbench201_accuracy.csv")
COLUMNS = ("c10_test", "c100_test")
_CLASSES = {"CIFAR-10": 10, "CIFAR-100": 100, None: 10}


def data_path(path: Path | None, default: Path) -> Path:
    """The file that was named, or the default one in the folder of GENBA_DATA."""
    return path or Path(os.environ.get("GENBA_DATA", "../shared/data")) / default


def positive(text: str) -> int:
    """For options that count."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def add_table_options(
    parser: argparse.ArgumentParser, *, protocol: Protocol, sample: int | None
) -> None:
    """Which accuracies, and which of the cells; all of them where `sample` is None."""
    parser.add_argument("--csv", type=Path, metavar="FILE", help="table with an arch_str column")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="COL",
        help="column of accuracies in percent; may be repeated",
    )
    parser.add_argument(
        "--classes",
        type=positive,
        nargs="+",
        metavar="N",
        help="outputs of the scored networks, one number or one for each column "
        "(100 for columns of CIFAR-100, otherwise 10)",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=protocol,
        help=f"all cells, or those without dead edges ({protocol})",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--sample",
        type=positive,
        default=sample,
        metavar="N",
        help=f"cells drawn at random ({'all' if sample is None else sample})",
    )
    size.add_argument("--all", action="store_true", help="all cells of the table")


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """How networks are scored, and where their scores are kept."""
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="file of scores: what it holds is not computed again, what it lacks is added",
    )
    parser.add_argument("--batch-size", type=positive, default=32, help="images")
    parser.add_argument("--resolution", type=positive, default=16, help="their pixels, each way")
    parser.add_argument(
        "--cells",
        type=positive,
        default=NasBench201().scoring_cells,
        help="cells of each stage of the scored network",
    )
    parser.add_argument("--images", choices=IMAGES, default=IMAGES[0])
    parser.add_argument("--seed", type=int, default=0, help="of sample, batch and weights")
    parser.add_argument("--inits", type=positive, default=1, help="seeds whose ranks are averaged")
    parser.add_argument("--processes", type=positive, default=2, help="each on one thread")


@dataclass(frozen=True)
class Asked:
    """The table that was asked for, and how many classes the networks of each column have."""

    table: Table
    classes: dict[str, int]


def asked(arguments: argparse.Namespace) -> Asked:
    """Read the table, and the columns of validation accuracy that it has. Raises TableError."""
    path = data_path(arguments.csv, ACCURACY)
    columns = list(dict.fromkeys(arguments.column)) or _usual(path, arguments.csv is None)
    counts = arguments.classes or [_CLASSES[dataset(column)] for column in columns]
    if len(counts) == 1:
        counts = counts * len(columns)
    if len(counts) != len(columns):
        raise TableError(
            f"--classes has {len(counts)} numbers for {len(columns)} columns; give one for each"
        )
    known = number_columns(path)
    further = [name for name in map(validation_of, columns) if name in known]
    table = read_table(path, list(dict.fromkeys([*columns, *further])))
    return Asked(table, dict(zip(columns, counts, strict=True)))


def validation_of(column: str) -> str:
    """The column of validation accuracy that stands beside one of test accuracy."""
    return column.removesuffix("_test") + "_val"


def settings_of(arguments: argparse.Namespace, classes: int) -> list[Setting]:
    """The setting that the options name, under each of its seeds."""
    return Setting(
        batch_size=arguments.batch_size,
        resolution=arguments.resolution,
        cells=arguments.cells,
        classes=classes,
        images=arguments.images,
        seed=arguments.seed,
    ).inits(arguments.inits)


def add_proxy_options(parser: argparse.ArgumentParser) -> None:
    """By what to score, and how to judge it."""
    parser.add_argument(
        "--proxies", nargs="+", default=list(PROXIES), metavar="NAME", help="proxies (all)"
    )
    parser.add_argument(
        "--resamples", type=positive, default=300, metavar="N", help="resamples of an interval"
    )
    parser.add_argument(
        "--timed", type=int, default=7, metavar="N", help="networks to time, the first discarded"
    )


def _usual(path: Path, is_default: bool) -> list[str]:
    if is_default:
        return list(COLUMNS)
    names = ", ".join(number_columns(path)) or "none that holds numbers"
    raise TableError(f"name a column of {path} by --column; there are: {names}")
