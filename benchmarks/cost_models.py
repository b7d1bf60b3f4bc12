"""Few-shot latency prediction on NAS-Bench-201: protocol P1, op counts with D-optimal choice.

    python -m benchmarks.cost_models [--data DIR] [--json] [--check]

Pool: the cells 0..899 that connect input and output; 600 of them are drawn for each of 5 seeds,
and N are chosen by `d_optimal`, without labels and without any other device. Test: all cells
900..1899, latency floored at 1e-3 ms. Figures are Spearman's rho, mean over the seeds; "mean" is
the mean over six devices. The published 0.932 (HELP, N = 10) and 0.959 (NASFLAT, N = 20) are the
bars of `--check`; both use measurements on nine further devices.

The features of a cell are counts of its operators by liveness: runtimes execute branches that no
input reaches, and most execute those that nobody reads.
"""

import argparse
import csv
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from cost_models.design import d_optimal
from cost_models.evaluate import spearman, within
from cost_models.nnls import FloatArray, fit_nonnegative

DEVICES = ("titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga")
SEEDS = range(5)
POOL, CANDIDATES, TEST = range(900), 600, range(900, 1900)
BARS = {10: 0.932, 20: 0.959}
FLOOR_MILLISECONDS = 1e-3
TABLE = Path("latency/nasbench201_cifar10_devices.csv")

_OPERATION = re.compile(r"([a-z0-9_]+)~(\d)")
_SHORT = {
    "skip_connect": "skip",
    "nor_conv_1x1": "conv1",
    "nor_conv_3x3": "conv3",
    "avg_pool_3x3": "pool",
}
_COLUMNS = (
    ("live", "skip"),
    ("live", "conv1"),
    ("live", "conv3"),
    ("live", "pool"),
    ("live", "add"),
    ("zero_fed", "conv1"),
    ("zero_fed", "conv3"),
    ("zero_fed", "pool"),
    ("unused", "conv1"),
    ("unused", "conv3"),
    ("unused", "pool"),
)


class DataError(Exception):
    """The table is not there or is not the expected one."""


def parse_cell(architecture: str) -> list[tuple[int, int, str]]:
    """Edges (from, to, operation) of a NAS-Bench-201 architecture string; "none" is left out."""
    return [
        (int(source), target, _SHORT[operation])
        for target, node in enumerate(architecture.split("+"), start=1)
        for operation, source in _OPERATION.findall(node)
        if operation != "none"
    ]


def cell_features(architecture: str) -> list[float]:
    """1, then counts of operations by liveness: live, zero-fed (no input reaches it), unused."""
    edges = parse_cell(architecture)
    fed, read = {0}, {3}
    for source, target, _ in sorted(edges):
        if source in fed:
            fed.add(target)
    for source, target, _ in sorted(edges, key=lambda edge: -edge[1]):
        if target in read:
            read.add(source)
    counts: Counter[tuple[str, str]] = Counter()
    live_inputs: Counter[int] = Counter()
    for source, target, operation in edges:
        state = "unused" if target not in read else "live" if source in fed else "zero_fed"
        counts[state, operation] += 1
        live_inputs[target] += state == "live"
    counts["live", "add"] = sum(max(fan_in - 1, 0) for fan_in in live_inputs.values())
    return [1.0, *(float(counts[column]) for column in _COLUMNS)]


def is_connected(architecture: str) -> bool:
    """Whether a path leads from the cell's input to its output."""
    return any(cell_features(architecture)[1:5])


def read_table(path: Path) -> tuple[list[str], dict[str, FloatArray]]:
    """Architecture strings by index, and the latency of each device in milliseconds."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
        cells = [row["arch_str"] for row in rows]
        latencies = {
            device: np.array([float(row[f"{device}_latency_ms"]) for row in rows[: TEST.stop]])
            for device in DEVICES
        }
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give its folder by --data") from (
            error
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is not the expected table: {error!r}") from error
    if len(cells) < TEST.stop:
        raise DataError(f"{path} holds {len(cells)} cells, {TEST.stop} are needed")
    return cells[: TEST.stop], latencies


def run(path: Path) -> dict[str, dict[str, float]]:
    """Mean rho and share within 10 % by N (as text), then device or "mean"."""
    cells, latencies = read_table(path)
    rows = np.array([cell_features(cell) for cell in cells])
    pool = np.array([i for i in POOL if is_connected(cells[i])])
    floored = {d: np.maximum(values, FLOOR_MILLISECONDS) for d, values in latencies.items()}
    result: dict[str, dict[str, float]] = {}
    for count in BARS:
        samples = [_choose(rows, pool, count, seed) for seed in SEEDS]
        figures = {d: _rho(rows, floored[d], samples) for d in DEVICES}
        result[f"rho at N={count}"] = figures | {"mean": float(np.mean([*figures.values()]))}
        near = {d: _within(rows, floored[d], samples, cells) for d in DEVICES}
        result[f"within 10 % at N={count}"] = near | {"mean": float(np.mean([*near.values()]))}
    return result


def _choose(
    rows: FloatArray, pool: np.typing.NDArray[np.int64], count: int, seed: int
) -> np.typing.NDArray[np.int64]:
    candidates = np.random.default_rng(seed).permutation(pool)[:CANDIDATES]
    return candidates[d_optimal(rows[candidates], count)]


def _predicted(
    rows: FloatArray, latency: FloatArray, sample: np.typing.NDArray[np.int64]
) -> FloatArray:
    coefficients = fit_nonnegative(rows[sample], latency[sample])
    predicted: FloatArray = np.maximum(rows[TEST.start :] @ coefficients, 1e-6)
    return predicted


def _rho(
    rows: FloatArray, latency: FloatArray, samples: list[np.typing.NDArray[np.int64]]
) -> float:
    rhos = [spearman(_predicted(rows, latency, s), latency[TEST.start :]) for s in samples]
    return float(np.mean([rho for rho in rhos if rho is not None]))


def _within(
    rows: FloatArray,
    latency: FloatArray,
    samples: list[np.typing.NDArray[np.int64]],
    cells: list[str],
) -> float:
    """Over connected test cells: others have a latency that makes relative errors meaningless."""
    connected = np.array([is_connected(cell) for cell in cells[TEST.start :]])
    measured = latency[TEST.start :][connected]
    shares = [within(_predicted(rows, latency, s)[connected], measured) for s in samples]
    return float(np.mean(shares))


def main() -> int:
    parser = argparse.ArgumentParser(description="Few-shot latency prediction on NAS-Bench-201.")
    parser.add_argument("--data", type=Path, help="folder with the benchmark tables")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the published figures")
    arguments = parser.parse_args()
    folder = arguments.data or Path(os.environ.get("GENBA_DATA", "../shared/data"))
    started = time.perf_counter()
    try:
        result = run(folder / TABLE)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    if arguments.json:
        print(json.dumps(result | {"seconds": {"total": seconds}}))
    else:
        _print_table(result, seconds)
    means = {count: result[f"rho at N={count}"]["mean"] for count in BARS}
    passed = means[10] > BARS[10] and means[20] >= BARS[20]
    return 1 if arguments.check and not passed else 0


def _print_table(result: dict[str, dict[str, float]], seconds: float) -> None:
    print("op-count NNLS, D-optimal choice, no other device; mean of 5 seeds")
    print(f"{'':22}" + "".join(f"{name:>15}" for name in (*DEVICES, "mean")))
    for figure, values in result.items():
        print(f"{figure:22}" + "".join(f"{values[name]:15.3f}" for name in (*DEVICES, "mean")))
    means = ", ".join(
        f"N={count} {result[f'rho at N={count}']['mean']:.3f} (published {bar})"
        for count, bar in BARS.items()
    )
    print(f"mean rho over {len(DEVICES)} devices: {means}; {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
