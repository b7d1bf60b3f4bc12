"""Searches under budgets with costs that are predicted from few measurements."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cost_models.cells import Cell
from benchmarks.cost_models.tables import Table
from benchmarks.proxies.population import Population, population
from benchmarks.regret.__main__ import main
from benchmarks.regret.choosing import outcome, picks
from benchmarks.regret.costs import (
    CellCosts,
    CostModels,
    KernelCosts,
    KnownCosts,
    known_costs,
    one_of_each,
)
from benchmarks.regret.knowledge import Measuring, TrueCosts
from benchmarks.regret.protocol import BUDGETS, merits, searches
from benchmarks.regret.results import REFERENCE, Result, costs_of, ensemble_of
from benchmarks.regret.targets import missed
from host.errors import UsageError
from host.proxies.ensembles import RECOMMENDED, Ensemble
from host.spaces.base import Candidate
from host.spaces.nasbench201 import NasBench201

SPACE = NasBench201()
BY_SIZE = Ensemble("size", {"parameters": 1.0}, "a test")


def texts(count: int, seed: int = 0) -> list[str]:
    numbers = np.random.default_rng(seed).permutation(5**6)[:count]
    return [
        SPACE.text(Candidate(tuple(int(number) // 5**edge % 5 for edge in range(6))))
        for number in numbers
    ]


def table(count: int) -> Table:
    cells = tuple(map(Cell.parsed, texts(count)))
    work = np.array([sum("conv" in edge.operation for edge in cell.live) for cell in cells])
    return Table(Path("t.csv"), cells, {"c10_test": 50.0 + work, "ms": 1.0 + work})


def cells(count: int) -> Population:
    return population(table(count), ["c10_test"], "live")


def exactly(costs: Sequence[float]) -> KnownCosts:
    (known,) = TrueCosts({"ms": np.array(costs)}).about("ms", 0.0, by_none)
    return known


def by_none(places):
    return np.zeros(len(places))


def by(values: list[float]):
    return lambda places: np.array(values)[places]


NAMES = np.array(["a", "b", "c", "d"])


def test_the_best_score_within_the_budget_is_picked_first() -> None:
    known = exactly([1.0, 2.0, 3.0, 4.0])

    assert picks([by([1, 2, 3, 4])], known, 3.0, NAMES, 2).tolist() == [2, 1]


def test_the_first_pick_keeps_its_bound_and_the_others_their_prediction() -> None:
    known = KnownCosts(np.array([1.0, 2, 3, 4]), np.array([2.0, 3, 5, 9]), np.array([0]))

    assert picks([by([1, 2, 3, 4])], known, 3.0, NAMES, 4).tolist() == [1, 2, 0]


def test_scores_pick_in_turn_and_the_first_ones_lead() -> None:
    known = exactly([1.0, 1.0, 1.0, 1.0])

    found = picks([by([4, 3, 2, 1]), by([1, 2, 3, 4])], known, 3.0, NAMES, 3)

    assert found.tolist() == [0, 3, 1]


def test_a_graph_is_picked_once_and_by_its_cheapest_cell() -> None:
    graphs = np.array(["a", "a", "b", "b"])

    found = picks([by([2, 2, 1, 1])], exactly([2.0, 1.0, 1.0, 2.0]), 3.0, graphs, 10)

    assert found.tolist() == [1, 2]


def test_where_no_bound_keeps_the_budget_the_lowest_is_picked() -> None:
    known = KnownCosts(np.array([4.0, 5, 6, 7]), np.array([8.0, 9, 6, 7]), np.array([], dtype=int))

    assert picks([by([1, 2, 3, 4])], known, 3.0, NAMES, 3).tolist() == [2]


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(0, 5), st.floats(0, 3)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 9),
    st.integers(1, 12),
)
def test_picks_are_distinct_graphs_that_are_predicted_to_keep_the_budget(
    rows, limit: int, count: int
) -> None:
    costs, merit, graph, spread = (np.array(column) for column in zip(*rows, strict=True))
    known = KnownCosts(costs.astype(float), costs + spread, np.array([], dtype=int))
    names = graph.astype(str)

    found = picks([lambda places: merit[places]], known, limit, names, count)

    assert 1 <= len(found) <= count
    assert len(set(names[found].tolist())) == len(found)
    assert (known.values[found[1:]] <= limit).all()
    if (known.bounds <= limit).any():
        assert known.bounds[found[0]] <= limit
        assert merit[found[0]] == merit[known.bounds <= limit].max()


def test_losses_are_those_of_the_picks_that_keep_the_budget() -> None:
    costs, accuracy = np.array([1.0, 2.0, 3.0, 4.0]), np.array([80.0, 90.0, 85.0, 99.0])

    found = outcome(np.array([3, 2, 0]), costs, 3.0, accuracy)

    assert found.first == 5.0
    assert found.best == 5.0
    assert not found.met
    assert found.share_met == pytest.approx(2 / 3)
    assert outcome(np.array([1]), costs, 3.0, accuracy).first == 0.0


def test_picks_that_all_break_the_budget_lose_as_much_as_the_worst_cell() -> None:
    found = outcome(np.array([1]), np.array([1.0, 4.0]), 2.0, np.array([70.0, 90.0]))

    assert found.first == found.best == 0.0
    costs = np.array([1.0, 2.0, -1.0, 4.0])
    assert outcome(np.array([3]), costs, 2.0, np.array([70.0, 90.0, 99.0, 95.0])).best == 20.0


@pytest.fixture(scope="module")
def found() -> Population:
    return cells(600)


@pytest.fixture(params=["cells", "kernels"])
def models(request, found: Population) -> CostModels:
    return CellCosts(found.cells) if request.param == "cells" else KernelCosts(found.candidates)


def test_twenty_measurements_bound_most_of_the_other_costs(
    models: CostModels, found: Population
) -> None:
    work = np.array([sum("conv" in edge.operation for edge in cell.live) for cell in found.cells])
    costs = np.where(work > 4, -1.0, 1.0 + work)

    (known,) = measuring(found, {"ms": costs}, models, near=0).about("ms", 9.0, by_none)

    assert len(set(found.graphs[known.measured].tolist())) == 20
    assert (costs[known.measured] > 0).all()
    assert (known.bounds[known.measured] == costs[known.measured]).all()
    assert np.isinf(known.bounds[costs < 0]).all()
    assert np.isinf(known.values[costs < 0]).all()
    able = costs > 0
    assert (known.bounds[able] >= costs[able] - 1e-6).mean() > 0.8
    assert (known.values[able] <= known.bounds[able]).all()


def test_a_higher_level_bounds_higher(models: CostModels, found: Population) -> None:
    generator = np.random.default_rng(0)
    costs = np.exp(generator.normal(size=len(found.cells), scale=0.05))

    low, high = (known_costs(models, costs, np.arange(20), level).bounds for level in (0.5, 0.9))

    assert (low <= high).all()
    assert low.mean() < high.mean()


def test_one_cell_of_each_graph_may_be_measured_in_an_order_of_the_seed() -> None:
    graphs = np.array(["a", "a", "b", "c", "b"])
    places = np.array([0, 1, 2, 4])

    drawn = one_of_each(places, graphs, seed=3)

    assert sorted(graphs[drawn].tolist()) == ["a", "b"]
    assert drawn.tolist() == one_of_each(places, graphs, seed=3).tolist()


def test_a_score_that_is_the_accuracy_loses_nothing_with_true_costs(found: Population) -> None:
    accuracy = found.accuracy["c10_test"]
    costs = {"ms": 1.0 + np.arange(len(accuracy), dtype=np.float64)}

    figures = searches(found, accuracy, costs, TrueCosts(costs), [lambda p: accuracy[p]])

    assert [one.budget for one in figures] == list(BUDGETS)
    assert all(one.first == one.best == 0.0 and one.met == 1.0 for one in figures)


def test_ranks_over_the_allowed_cells_may_differ_from_those_over_all() -> None:
    scores = {"parameters": np.array([1.0, 2.0, 100.0]), "flops": np.array([2.0, 1.0, 0.0])}
    both = Ensemble("both", {"parameters": 1.0, "flops": 1.0}, "a test")

    whole, some = (merits(both, scores, ranking) for ranking in ("population", "feasible"))

    assert whole(np.array([0, 1]))[0] < whole(np.array([0, 1]))[1]
    assert some(np.array([0, 1]))[0] == pytest.approx(some(np.array([0, 1]))[1])


def measuring(found: Population, costs, models: CostModels, near: int, seeds: int = 1) -> Measuring:
    return Measuring(costs, models, found.graphs, 20 - near, near, level=0.9, seeds=seeds)


def test_every_seed_measures_other_cells(found: Population) -> None:
    costs = {"ms": 1.0 + np.arange(len(found.cells), dtype=np.float64)}

    runs = measuring(found, costs, CellCosts(found.cells), 0, 2).about("ms", 9.0, by_none)

    assert len(runs) == 2
    assert set(runs[0].measured.tolist()) != set(runs[1].measured.tolist())


def test_a_search_measures_the_best_cells_that_seem_to_keep_its_budget(
    models: CostModels, found: Population
) -> None:
    work = np.array([sum("conv" in edge.operation for edge in cell.live) for cell in found.cells])
    costs = {"ms": 1.0 + work}
    merit = np.random.default_rng(0).normal(size=len(work))

    before, after = (
        measuring(found, costs, models, near).about("ms", 3.0, lambda places: merit[places])[0]
        for near in (0, 8)
    )

    searched = after.measured[12:]
    assert len(before.measured) == len(after.measured) == 20
    assert len(set(found.graphs[after.measured].tolist())) == 20
    kept = searched[costs["ms"][searched] <= 3.0]
    assert len(kept) >= 4
    within = merit[costs["ms"] <= 3.0]
    assert merit[kept].min() > np.median(within)


def test_a_search_that_expects_nothing_within_its_budget_measures_no_more(
    found: Population,
) -> None:
    costs = {"ms": np.full(len(found.cells), 5.0)}

    (known,) = measuring(found, costs, CellCosts(found.cells), near=8).about("ms", 1.0, by_none)

    assert len(known.measured) == 12


def test_costs_stand_beside_the_same_cells_whatever_their_order() -> None:
    accuracies, devices = table(50), table(60)
    backwards = Table(
        devices.path,
        devices.cells[::-1],
        {"ms": devices.values["ms"][::-1] * np.array([1.0] * 30 + [np.nan] * 30)},
    )
    some = population(accuracies, ["c10_test"], "all")

    costs = costs_of(some, backwards)["ms"]

    assert np.isnan(costs[:30]).all()
    assert costs[30:].tolist() == (1.0 + some.accuracy["c10_test"][30:] - 50.0).tolist()


def test_names_of_scores_are_ensembles_the_reference_or_proxies() -> None:
    assert ensemble_of(RECOMMENDED.name) is RECOMMENDED
    assert ensemble_of(REFERENCE.name) is REFERENCE
    assert ensemble_of("flops").members == ("flops",)
    with pytest.raises(UsageError, match='no ensemble "luck"'):
        ensemble_of("luck")


def test_each_figure_beyond_its_target_is_named(found: Population) -> None:
    accuracy = found.accuracy["c10_test"]
    costs = {"ms": 1.0 + np.arange(len(accuracy), dtype=np.float64)}
    perfect, worst = (
        tuple(searches(found, accuracy, costs, TrueCosts(costs), [order]))
        for order in (lambda p: accuracy[p], lambda p: -accuracy[p])
    )

    assert missed([Result("c10_test", 9445, perfect, {})]) == []
    assert missed([Result("c10_test", 100, worst, {})])[0].startswith("c10_test: first pick loses")
    assert "c10_test: at least 9,000 cells" in missed([Result("c10_test", 100, worst, {})])
    far = Result("c100_test", 100, worst, {})
    assert missed([Result("c10_test", 9445, perfect, {}), far]) == []
    assert missed([far]) == ["a column that is not of CIFAR-100"]


def files(tmp_path: Path, count: int) -> list[str]:
    found = table(count)
    names = texts(count)
    accuracy, costs = tmp_path / "accuracy.csv", tmp_path / "costs.csv"
    for path, column in ((accuracy, "c10_test"), (costs, "ms")):
        lines = [f"{name},{value}" for name, value in zip(names, found.values[column], strict=True)]
        path.write_text("\n".join([f"arch_str,{column}", *lines]) + "\n", encoding="utf-8")
    setting = ["--batch-size", "4", "--resolution", "8", "--processes", "1", "--cells", "1"]
    which = [
        "--csv",
        str(accuracy),
        "--column",
        "c10_test",
        "--costs",
        str(costs),
        "--device",
        "ms",
    ]
    return [*which, *setting, "--turns", "parameters", "flops", "--scores", str(tmp_path / "s")]


def test_the_command_prints_every_device_and_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = files(tmp_path, 120)

    assert main([*words, "--seeds", "2"]) == 0

    printed = capsys.readouterr().out
    assert "budget 0.10" in printed
    assert "c10_test: first pick loses" in printed
    assert main([*words, "--seeds", "1", "--check", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert "c10_test: at least 9,000 cells" in record["missed"]
    assert len(record["results"][0]["figures"]) == 5


def test_a_table_with_too_few_costs_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(files(tmp_path, 20)) == 2

    said = capsys.readouterr().err
    assert "distinct graphs have a cost, 30 are needed" in said
    assert main([*files(tmp_path, 20), "--near", "20"]) == 2
    assert "--near 20 does not lie below --measured" in capsys.readouterr().err
