"""A survey of all proxies on NAS-Bench-201 as a page with tables and pictures.

    python -m benchmarks.survey --out DIR [--scores FILE] [--csv FILE --column COL]
                                [--sample N|--all] [--protocol all|live] [--proxies NAME ...]

For every proxy and ensemble: correlation with accuracy over all cells and among the best 5 %, what
it says that the number of parameters does not, cost against correlation, and how alike every two
are. Scores that the file of `python -m benchmarks.proxies --scores FILE` holds in the same setting
are read, the others computed and added.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.cost_models.tables import TableError
from benchmarks.proxies.collecting import collect
from benchmarks.proxies.options import (
    add_proxy_options,
    add_setting_options,
    add_table_options,
)
from benchmarks.proxies.score_file import ScoreFileError
from benchmarks.survey.figures import columns_of
from benchmarks.survey.page import write_survey
from host.errors import UsageError
from host.proxies.catalogue import proxies_by_name

_SAMPLE = 2000


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 for what cannot be used."""
    arguments = _parser().parse_args(words)
    torch.set_num_threads(1)
    try:
        collected = collect(arguments, proxies_by_name(list(dict.fromkeys(arguments.proxies))))
        columns = columns_of(
            collected,
            collected.cpu_milliseconds(arguments.timed),
            resamples=arguments.resamples,
            seed=arguments.seed,
        )
        files = write_survey(columns, collected.described(), arguments.out)
    except (TableError, ScoreFileError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot write the survey into {arguments.out}: {error.strerror}", file=sys.stderr)
        return 2
    for file in files:
        print(file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.survey", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add_table_options(parser, protocol="all", sample=_SAMPLE)
    add_proxy_options(parser)
    add_setting_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
