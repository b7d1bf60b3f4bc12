"""Hypervolume of what was measured, against how much was: a study's search, random, predictions.

    python -m benchmarks.search [--device COL …] [--seeds N] [--random N] [--scores DIR]
                                [--json] [--check] [--picture FILE.png]

On nasbench201 with trained accuracies from a table and latencies of real devices from another. Of
the cells that a strategy has measured so far, the hypervolume in two objectives is taken: accuracy
(the better half of all cells counts) and latency, both true. A study's search sees untrained scores
only, and the latencies that it measures; the accuracies are for the reckoning. It may measure a
tenth of what random may, and goes on until it has. Scores are kept in the folder of --scores and
not computed again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost_models.tables import TableError
from benchmarks.proxies.options import data_path, positive
from benchmarks.search.round import Round
from benchmarks.search.strategies import Budget
from benchmarks.search.tabled import Truth, column
from host.errors import GenbaError
from host.store.store import Store

DEVICES = (
    "raspi4_latency_ms",
    "pixel3_latency_ms",
    "edgegpu_latency_ms",
    "eyeriss_latency_ms",
    "fpga_latency_ms",
)
SHARE = 0.1
"""Of random's measurements: what a study's search may use to reach its hypervolume."""


@dataclass(frozen=True)
class Found:
    """Of a device, the mean over seeds of each strategy's hypervolume after every measurement.

    `reached` is after how many measurements the search of a study has random's last hypervolume,
    None where it never does.
    """

    device: str
    random: tuple[float, ...]
    study: tuple[float, ...]
    predictions: tuple[float, ...]

    @property
    def reached(self) -> int | None:
        """Measurements after which the study's mean is at least random's last one."""
        places = [n for n, volume in enumerate(self.study, 1) if volume >= self.random[-1]]
        return places[0] if places else None

    @property
    def holds(self) -> bool:
        """Whether that is within SHARE of what random used."""
        return self.reached is not None and self.reached <= SHARE * len(self.random)


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 for a missed target, 2 for what cannot be used."""
    arguments = _parser().parse_args(words)
    try:
        found = _all(arguments)
    except (TableError, GenbaError) as error:
        print(error, file=sys.stderr)
        return 2
    misses = [one.device for one in found if not one.holds]
    if arguments.json:
        records = [asdict(one) | {"reached": one.reached} for one in found]
        print(json.dumps({"devices": records, "missed": misses}, allow_nan=False))
    else:
        for one in found:
            _print(one)
        if arguments.check:
            print(f"missed: {', '.join(misses) or 'nothing'}")
    if arguments.picture is not None:
        _draw(found, arguments.picture)
    return 1 if arguments.check and misses else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=(__doc__ or "").splitlines()[0]
    )
    data = data_path(None, Path("nas/nasbench201_accuracy.csv"))
    costs = data_path(None, Path("latency/nasbench201_cifar10_devices.csv"))
    parser.add_argument("--csv", type=Path, default=data, metavar="FILE", help="accuracies")
    parser.add_argument("--column", default="c10_test", metavar="COL")
    parser.add_argument("--costs", type=Path, default=costs, metavar="FILE", help="latencies")
    parser.add_argument("--device", action="append", default=[], metavar="COL")
    parser.add_argument("--seeds", type=positive, default=10)
    parser.add_argument("--random", type=positive, default=500, help="cells that random measures")
    parser.add_argument("--candidates", type=positive, default=2000, help="that a search may score")
    parser.add_argument("--scores", type=Path, default=Path("search-scores"), metavar="DIR")
    parser.add_argument("--processes", type=positive, default=2, help="each on one thread")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the target")
    return parser


def _all(arguments: argparse.Namespace) -> list[Found]:
    accuracies = column(arguments.csv, arguments.column)
    budget = Budget(measurements=int(SHARE * arguments.random), candidates=arguments.candidates)
    arguments.scores.mkdir(parents=True, exist_ok=True)
    Store.open(arguments.scores / "scores.db", blobs_folder=arguments.scores / "blobs").close()
    found = []
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for device in arguments.device or DEVICES:
            truth = Truth.of(accuracies, column(arguments.costs, device))
            rounds = [
                Round(device, seed, truth, budget, arguments.random, arguments.scores)
                for seed in range(arguments.seeds)
            ]
            runs: list[dict[str, list[float]]] = []
            for one in pool.map(Round.courses, rounds):
                runs.append(one)
                print(f"{device}: {len(runs)} of {len(rounds)} seeds", file=sys.stderr, flush=True)
            names = ("random", "study", "predictions")
            found.append(Found(device, **{n: _mean([run[n] for run in runs]) for n in names}))
    return found


def _mean(runs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Over the seeds; one that has ended stays where it was."""
    longest = max(len(run) for run in runs)
    rows = [[*run, *[run[-1]] * (longest - len(run))] for run in runs]
    return tuple(float(volume) for volume in np.mean(rows, axis=0))


def _print(found: Found) -> None:
    last = {"random": found.random, "study": found.study, "predictions": found.predictions}
    ends = ", ".join(f"{name} {run[-1]:.4f} after {len(run)}" for name, run in last.items())
    reached = "never" if found.reached is None else f"after {found.reached}"
    print(f"{found.device}: {ends}; the study has random's last hypervolume {reached}")


def _draw(found: Sequence[Found], path: Path) -> None:
    from host.report.plots import new_figure, png

    figure = new_figure(7.0, 2.6 * len(found))
    axes: Any = figure.subplots(len(found), 1, squeeze=False)
    for (one_axes,), one in zip(axes, found, strict=True):
        for name in ("random", "predictions", "study"):
            run = getattr(one, name)
            one_axes.plot(range(1, len(run) + 1), run, label=name)
        one_axes.set_xscale("log")
        one_axes.set_title(one.device)
        one_axes.set_ylabel("hypervolume")
        one_axes.grid(alpha=0.3)
    axes[-1][0].set_xlabel("device measurements")
    axes[0][0].legend()
    path.write_bytes(png(figure))


if __name__ == "__main__":
    sys.exit(main())
