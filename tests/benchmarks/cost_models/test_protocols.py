"""The protocols on devices that are made up, where the answer is known."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cost_models.__main__ import main
from benchmarks.cost_models.cells import Cell
from benchmarks.cost_models.few_shot import as_printed, choose, columns_of, fit, kinds_for
from benchmarks.cost_models.protocols import HELP_DEVICES, few_shot, help_columns, help_protocol
from benchmarks.cost_models.runtimes import KINDS, amount_rows
from benchmarks.cost_models.tables import Table, TableError, read_table
from host.spaces.base import Candidate
from host.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201

RATES = ([2.0, 0.1, 0.5, 1.7, 0.3], [2.0, 0.2, 0.1, 0.5, 1.7, 0.3], [1.0, 0.2, 0.1, 0.5, 1.7, 0.3])


def texts(count: int) -> list[str]:
    """Published texts of random cells, connected or not."""
    every = list(itertools.product(range(len(OPERATIONS)), repeat=len(EDGES)))
    order = np.random.default_rng(0).permutation(len(every))[:count]
    space = NasBench201()
    return [space.text(Candidate(every[index])) for index in order]


def made_up(kind: int, count: int = 400, noise: float = 0.0) -> Table:
    """A device that is additive in the amounts of one kind of runtime, times its noise."""
    cells = tuple(Cell.parsed(text) for text in texts(count))
    values = amount_rows(cells)[:, columns_of(kind)] @ np.array(RATES[kind])
    # Rounded, so that cells of equal cost have equal values.
    values = np.round(values * np.exp(np.random.default_rng(1).normal(0.0, noise, count)), 6)
    return Table(Path("made_up.csv"), cells, {"ms": values})


@pytest.mark.parametrize("kind", range(len(RATES)))
def test_an_additive_device_is_ranked_without_a_fault_after_twenty_cells(kind: int) -> None:
    (found,) = few_shot(made_up(kind), "ms", [20], 2, "d-optimal")

    assert found.rho is not None
    assert found.rho == pytest.approx(1.0)
    assert found.mape < 1e-3
    assert found.within_5_percent == 1.0


def test_the_kind_of_runtime_is_recognised_from_what_it_does_with_dead_edges() -> None:
    for kind, model in enumerate(KINDS[: len(RATES)]):
        table = made_up(kind)
        ids = np.random.default_rng(2).permutation(table.usable("ms"))
        rows = amount_rows(table.cells)
        chosen = choose(rows, ids, 20, "d-optimal")

        assert type(fit(rows[chosen], table.values["ms"][chosen]).model) is model


def test_a_noisy_device_gets_intervals_that_cover_near_their_level() -> None:
    (found,) = few_shot(made_up(0, noise=0.05), "ms", [60], 3, "random")

    assert 0.84 < found.coverage < 0.97
    assert 0.13 < found.width < 0.22
    assert 0.02 < found.mape < 0.06


def test_no_twin_of_a_measured_cell_is_in_the_test() -> None:
    table = made_up(0)
    distinct = len({cell.graph for cell in table.cells if cell.is_connected})

    (found,) = few_shot(table, "ms", [20], 1, "random")

    assert distinct < sum(cell.is_connected for cell in table.cells)
    assert found.test_cells == distinct - 20


def test_infeasible_cells_take_no_part() -> None:
    table = made_up(0)
    values = table.values["ms"].copy()
    values[::2] = -1.0
    usable = Table(table.path, table.cells, {"ms": values})
    graphs = {table.cells[index].graph for index in usable.usable("ms")}

    (found,) = few_shot(usable, "ms", [20], 1, "d-optimal")

    assert found.test_cells == len(graphs) - 20
    assert found.rho is not None
    assert found.rho == pytest.approx(1.0)


def test_fewer_graphs_than_measurements_are_refused_in_a_sentence() -> None:
    with pytest.raises(TableError, match=r"distinct graphs were measured, 102 are needed"):
        few_shot(made_up(0, 60), "ms", [10, 100], 1, "random")


def test_designed_cells_teach_more_than_random_ones() -> None:
    table = made_up(1, noise=0.1)

    (designed,) = few_shot(table, "ms", [10], 4, "d-optimal")
    (random,) = few_shot(table, "ms", [10], 4, "random")

    assert designed.mape < random.mape


def test_few_measurements_are_left_to_the_smallest_kind() -> None:
    smallest = min(len(model.columns) for model in KINDS)

    assert [len(KINDS[kind].columns) for kind in kinds_for(1)] == [smallest]
    assert kinds_for(100) == list(range(len(KINDS)))


def test_choice_is_of_distinct_cells_and_the_same_again() -> None:
    table = made_up(0)
    rows = amount_rows(table.cells)
    ids = table.usable("ms")

    chosen = choose(rows, ids, 100, "d-optimal")

    assert len(set(chosen.tolist())) == 100
    assert set(chosen.tolist()) <= set(ids.tolist())
    assert np.array_equal(chosen, choose(rows, ids, 100, "d-optimal"))


def test_values_are_ranked_as_they_are_printed() -> None:
    found = as_printed([1.23441, 1.23439, 123456.0, 1e-7])

    assert found == pytest.approx([1.234, 1.234, 123500.0, 1e-7])
    assert found[0] == found[1]


def help_table(change: Callable[[int], float] = lambda _: 0.0) -> Table:
    device = made_up(0, 1900)
    values = device.values["ms"] + np.array([change(index) for index in range(1900)])
    return Table(device.path, device.cells, dict.fromkeys(HELP_DEVICES, values))


def test_helps_split_ranks_an_additive_device_without_a_fault() -> None:
    columns = {device: device for device in HELP_DEVICES}

    (found,) = help_protocol(help_table(), columns, [10], 1, "d-optimal")

    assert found.mean_every == pytest.approx(1.0)
    assert found.mean_trimmed == pytest.approx(1.0)


def test_helps_split_learns_from_the_first_900_cells_alone() -> None:
    columns = {device: device for device in HELP_DEVICES}
    other_test = help_table(lambda index: 100.0 * (index % 7) if index >= 900 else 0.0)

    (found,) = help_protocol(other_test, columns, [10], 1, "d-optimal")

    assert found.mean_every < 0.5


def test_a_table_too_short_for_helps_split_or_without_its_devices_is_refused() -> None:
    with pytest.raises(TableError, match="needs the first 1900"):
        help_protocol(made_up(0), {"raspi4": "ms"}, [10], 1, "random")
    with pytest.raises(TableError, match="no column 'titan_rtx_256_latency_ms'"):
        help_columns(["ms"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    table = made_up(0, 300)
    lines = [f"{text},{value}" for text, value in zip(texts(300), table.values["ms"], strict=True)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["arch_str,ms", *lines]), encoding="utf-8")
    return path


def test_the_command_prints_one_json_object_only(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--csv", str(file), "--column", "ms", "--n", "5", "20", "--seeds", "1", "--json"]

    assert main(words) == 0

    found = json.loads(capsys.readouterr().out)
    five, twenty = found["columns"]
    assert (five["n"], five["width"]) == (5, None)
    assert twenty["rho"] > 0.999
    assert found["left_out"]["ms"]["disconnected"] == 300 - len(
        read_table(file, ["ms"]).usable("ms")
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--column", "joules"], "no column 'joules'"),
        ([], "name a column of"),
        (["--protocol", "help"], "no column 'titan_rtx_256_latency_ms'"),
        (["--check"], "no column 'titan_rtx_256_latency_ms'"),
        (["--column", "ms", "--n", "1000"], "1002 are needed"),
    ],
)
def test_what_the_command_cannot_do_is_one_sentence_and_status_2(
    file: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--csv", str(file), *words]) == 2

    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("words", [["--n", "0"], ["--seeds", "-1"], ["--n", "ten"]])
def test_numbers_that_are_not_positive_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)

    assert exit_.value.code == 2


def test_the_command_prints_a_table_with_what_was_left_out(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--csv", str(file), "--column", "ms", "--n", "20", "--seeds", "1"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "disconnected, 0 infeasible, 0 not measured" in lines[0]
    assert lines[-1].endswith("eager")
