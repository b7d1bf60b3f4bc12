"""How the cost models are judged: any column of a table, and the split of HELP."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cost_models.few_shot import (
    FewShot,
    Indices,
    Selection,
    as_printed,
    choose,
    fit,
)
from benchmarks.cost_models.runtimes import KINDS, amount_rows
from benchmarks.cost_models.tables import Table, TableError
from cost_models.evaluate import Evaluation, evaluate, spearman
from cost_models.nnls import FloatArray

HELP_DEVICES = ("titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga")
HELP_POOL, HELP_TEST, HELP_TRIM = 900, 1900, 100
HELP_FLOOR = 1e-3
"""Least value of a test cell, in milliseconds."""


@dataclass(frozen=True)
class Figures:
    """Means over the seeds of one column at one N; shares lie in [0, 1].

    `width` is that of the 90 % interval, (high - low) / value, the median over the cells.
    `fit_seconds` is of CPU.
    `kinds` names the kind of runtime that was found, one for each seed.
    """

    column: str
    n: int
    seeds: int
    test_cells: int
    rho: float | None
    mape: float
    within_5_percent: float
    within_10_percent: float
    coverage: float
    width: float
    fit_seconds: float
    kinds: tuple[str, ...]


def few_shot(
    table: Table, column: str, counts: Sequence[int], seeds: int, selection: Selection
) -> list[Figures]:
    """Figures for each N: measure N cells, predict one cell of every distinct graph not measured.

    Cells without a path and those that the device cannot run take no part. Raises TableError where
    fewer than N + 2 distinct graphs are left.
    """
    usable = table.usable(column)
    graphs = np.array([table.cells[index].graph for index in usable])
    distinct = len(np.unique(graphs))
    if distinct < max(counts) + 2:
        raise TableError(
            f"{table.path}, column {column!r}: {distinct} distinct graphs were measured, "
            f"{max(counts) + 2} are needed for N={max(counts)}; give a smaller --n"
        )
    rows = np.zeros((len(table.cells), sum(len(kind.columns) for kind in KINDS)))
    rows[usable] = amount_rows([table.cells[index] for index in usable])
    found = []
    for count in counts:
        runs = [
            _run(rows, table.values[column], _one_of_each(usable, graphs, seed), count, selection)
            for seed in range(seeds)
        ]
        found.append(_mean(column, count, runs))
    return found


def _one_of_each(usable: Indices, graphs: np.typing.NDArray[np.str_], seed: int) -> Indices:
    """One cell, drawn at random, of each distinct graph, in random order."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(usable))
    _, first = np.unique(graphs[order], return_index=True)
    # np.unique sorts, and a graph of many cells would stand early in the drawn order.
    return generator.permutation(usable[order[first]])


@dataclass(frozen=True)
class _Run:
    judged: Evaluation
    rho: float | None
    width: float
    fit_seconds: float
    kind: str


def _run(
    rows: FloatArray, values: FloatArray, ids: Indices, count: int, selection: Selection
) -> _Run:
    chosen = choose(rows, ids, count, selection)
    started = time.process_time()
    fitted = fit(rows[chosen], values[chosen])
    seconds = time.process_time() - started
    test = np.setdiff1d(ids, chosen)
    predictions = fitted.predict(rows[test])
    return _Run(
        judged=evaluate(predictions, values[test]),
        rho=spearman(as_printed([p.value for p in predictions]), values[test]),
        width=float(np.median([(p.high - p.low) / p.value for p in predictions])),
        fit_seconds=seconds,
        kind=_name(fitted),
    )


def _name(fitted: FewShot) -> str:
    return type(fitted.model).__name__.removesuffix("Model").lower()


def _mean(column: str, count: int, runs: Sequence[_Run]) -> Figures:
    rhos = [run.rho for run in runs if run.rho is not None]
    return Figures(
        column=column,
        n=count,
        seeds=len(runs),
        test_cells=runs[0].judged.n,
        rho=float(np.mean(rhos)) if rhos else None,
        mape=float(np.mean([run.judged.mape for run in runs])),
        within_5_percent=float(np.mean([run.judged.within_5_percent for run in runs])),
        within_10_percent=float(np.mean([run.judged.within_10_percent for run in runs])),
        coverage=float(np.mean([run.judged.coverage for run in runs])),
        width=float(np.mean([run.width for run in runs])),
        fit_seconds=float(np.mean([run.fit_seconds for run in runs])),
        kinds=tuple(run.kind for run in runs),
    )


@dataclass(frozen=True)
class HelpFigures:
    """Spearman's rho at one N on HELP's split, mean over the seeds, by device.

    `every` is of all test cells, `trimmed` of those without the 100 fastest and 100 slowest.
    """

    n: int
    every: dict[str, float]
    trimmed: dict[str, float]

    @property
    def mean_every(self) -> float:
        """Mean over the devices."""
        return float(np.mean([*self.every.values()]))

    @property
    def mean_trimmed(self) -> float:
        """Mean over the devices."""
        return float(np.mean([*self.trimmed.values()]))


def help_columns(names: Sequence[str]) -> dict[str, str]:
    """The column of each of HELP's six devices among the names; raises TableError."""
    found = {}
    for device in HELP_DEVICES:
        fitting = [name for name in names if name in {device, f"{device}_latency_ms"}]
        if not fitting:
            raise TableError(
                f"the table has no column {device + '_latency_ms'!r}, which --protocol help needs; "
                "give the table of HELP's devices"
            )
        found[device] = fitting[0]
    return found


def help_protocol(
    table: Table, columns: dict[str, str], counts: Sequence[int], seeds: int, selection: Selection
) -> list[HelpFigures]:
    """HELP's split by the official index: measure cells 0..899 that connect, test on 900..1899.

    No other device takes part. `columns` holds the column of each device. Raises TableError for a
    table of fewer cells or of unmeasured ones.
    """
    if len(table.cells) < HELP_TEST:
        raise TableError(
            f"{table.path} holds {len(table.cells)} cells, --protocol help needs the first "
            f"{HELP_TEST} of the official index"
        )
    rows = amount_rows(table.cells[:HELP_TEST])
    pool = np.flatnonzero([cell.is_connected for cell in table.cells[:HELP_POOL]])
    found = []
    for count in counts:
        if count > len(pool):
            raise TableError(f"N={count} is more than the {len(pool)} cells of the training pool")
        pairs = {}
        for device, column in columns.items():
            values = table.values[column][:HELP_TEST]
            if not (values > 0).all():
                raise TableError(f"{table.path}, column {column!r}: cells 0..1899 lack values")
            rhos = [
                _help_run(
                    rows, values, np.random.default_rng(seed).permutation(pool), count, selection
                )
                for seed in range(seeds)
            ]
            pairs[device] = np.mean(rhos, axis=0)
        found.append(
            HelpFigures(
                count,
                {device: float(pair[0]) for device, pair in pairs.items()},
                {device: float(pair[1]) for device, pair in pairs.items()},
            )
        )
    return found


def _help_run(
    rows: FloatArray, values: FloatArray, pool: Indices, count: int, selection: Selection
) -> tuple[float, float]:
    chosen = choose(rows, pool, count, selection)
    fitted = fit(rows[chosen], values[chosen])
    test = np.maximum(values[HELP_POOL:HELP_TEST], HELP_FLOOR)
    predicted = as_printed([p.value for p in fitted.predict(rows[HELP_POOL:HELP_TEST])])
    middle = np.argsort(test, kind="stable")[HELP_TRIM:-HELP_TRIM]
    return _rank(predicted, test), _rank(predicted[middle], test[middle])


def _rank(predicted: FloatArray, measured: FloatArray) -> float:
    rho = spearman(predicted, measured)
    # A constant prediction ranks nothing.
    return 0.0 if rho is None else rho
