"""Scores of real cells, kept in a file."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cost_models.cells import Cell
from benchmarks.cost_models.tables import Table, TableError
from benchmarks.proxies import scoring
from benchmarks.proxies.judging import averaged, judge, merits_of
from benchmarks.proxies.population import is_live, population, pruned
from benchmarks.proxies.score_file import ScoreFile, ScoreFileError, versioned
from benchmarks.proxies.scoring import (
    gathered,
    keys_of,
    missing,
    score_missing,
    score_one,
)
from benchmarks.proxies.setting import Setting
from host.proxies.catalogue import PROXIES, proxies_by_name
from host.spaces.nasbench201 import NasBench201

CONV = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|"
SAME = "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"
DANGLING = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|none~0|nor_conv_1x1~1|none~2|"
POOL = "|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|"
SKIP = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
NOTHING = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
LOST = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"
TEXTS = (CONV, SAME, DANGLING, POOL, SKIP, NOTHING, LOST)
ACCURACY = np.array([90.0, 91.0, 89.0, 40.0, 50.0, 10.0, 10.0])
COLUMNS = ["c10_test"]
SETTING = Setting(batch_size=4, resolution=8, cells=1, classes=10, images="gaussian", seed=0)
PAIR = proxies_by_name(["parameters", "naswot"])


def table(texts=TEXTS, accuracy=ACCURACY) -> Table:
    return Table(Path("t.csv"), tuple(map(Cell.parsed, texts)), {"c10_test": accuracy})


def test_protocol_all_takes_every_cell_and_live_those_without_dead_edges() -> None:
    every, live = population(table(), COLUMNS, "all"), population(table(), COLUMNS, "live")

    assert len(every.cells) == 7
    assert every.dead == 2
    assert every.distinct == 4
    assert [cell.edges for cell in live.cells] == [
        Cell.parsed(text).edges for text in (CONV, SAME, POOL, SKIP, NOTHING)
    ]


def test_a_cell_without_its_dead_edges_is_the_same_network() -> None:
    space = NasBench201()

    assert space.text(pruned(Cell.parsed(DANGLING))) == CONV
    assert is_live(Cell.parsed(CONV))
    assert not is_live(Cell.parsed(DANGLING))


def test_a_sample_is_a_function_of_the_seed_and_keeps_accuracies_beside_their_cells() -> None:
    whole = population(table(), COLUMNS, "all")
    places = dict(zip(whole.cells, whole.accuracy["c10_test"].tolist(), strict=True))

    first, again = (
        population(table(), COLUMNS, "all", sample=3, seed=4),
        population(table(), COLUMNS, "all", sample=3, seed=4),
    )

    assert first.cells == again.cells
    assert len(first.cells) == 3
    assert [places[cell] for cell in first.cells] == first.accuracy["c10_test"].tolist()


def test_cells_without_an_accuracy_take_no_part() -> None:
    gaps = ACCURACY.copy()
    gaps[:6] = np.nan

    with pytest.raises(
        TableError, match="holds 1 cells of protocol 'all' with a value in c10_test"
    ):
        population(table(accuracy=gaps), COLUMNS, "all")


def test_a_distinct_network_is_scored_once_and_a_second_run_scores_nothing(tmp_path: Path) -> None:
    found = population(table(), COLUMNS, "all")
    path = tmp_path / "folder" / "scores.jsonl"

    assert score_missing(found, PAIR, [SETTING], ScoreFile.opened(path), 1) == {}

    keys = keys_of(found, SETTING)
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(set(keys) - {None})
    assert keys[0] == keys[2]
    assert keys[5] is None
    assert missing(found, PAIR, [SETTING], ScoreFile.opened(path)) == []


def test_scores_read_from_the_file_are_those_that_were_computed(tmp_path: Path) -> None:
    found = population(table(), COLUMNS, "all")
    path = tmp_path / "scores.jsonl"
    file = ScoreFile.opened(path)

    score_missing(found, PAIR, [SETTING], file, 1)
    computed = gathered(found, PAIR, [SETTING], file)
    read = gathered(found, PAIR, [SETTING], ScoreFile.opened(path))

    for name in ("parameters", "naswot"):
        np.testing.assert_array_equal(computed[name][0], read[name][0])
    parameters = read["parameters"][0]
    candidate = found.candidates[0]
    assert candidate is not None
    whole = SETTING.scores(candidate, ["parameters"])["parameters"]
    assert parameters[0] == parameters[2] == whole > SETTING.stand_in(candidate).parameters
    assert np.isnan(parameters).tolist() == [False] * 5 + [True] * 2


def test_two_processes_give_the_same_scores_as_one() -> None:
    found = population(table(), COLUMNS, "all")
    one, two = ScoreFile(), ScoreFile()

    score_missing(found, PAIR, [SETTING], one, 1)
    score_missing(found, PAIR, [SETTING], two, 2)

    left, right = (gathered(found, PAIR, [SETTING], file) for file in (one, two))
    for name in ("parameters", "naswot"):
        np.testing.assert_array_equal(left[name][0], right[name][0])


def test_another_setting_or_proxy_or_version_is_scored_anew(tmp_path: Path) -> None:
    found = population(table(), COLUMNS, "all")
    file = ScoreFile.opened(tmp_path / "scores.jsonl")
    score_missing(found, PAIR, [SETTING], file, 1)
    whole = len(set(keys_of(found, SETTING)) - {None})

    seeds = missing(found, PAIR, SETTING.inits(2), file)
    more = missing(found, proxies_by_name(["parameters", "depth"]), [SETTING], file)
    newer = missing(found, [replace(PAIR[0], version=PAIR[0].version + 1)], [SETTING], file)

    assert {work.setting.seed for work in seeds} == {1}
    assert len(seeds) == len(more) == len(newer) == whole
    assert {work.names for work in more} == {("depth",)}


def test_a_line_that_a_stopped_run_left_unfinished_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    ScoreFile.opened(path).add(SETTING, "first", {"a@1": 1.0, "b@1": math.nan}, 0.1)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"setting": {"batch_si')

    reopened = ScoreFile.opened(path)
    reopened.add(SETTING, "second", {"a@1": 2.0}, 0.1)

    found = ScoreFile.opened(path)
    assert found.of(SETTING, "first")["a@1"] == 1.0
    assert math.isnan(found.of(SETTING, "first")["b@1"])
    assert found.of(SETTING, "second") == {"a@1": 2.0}
    assert found.of(replace(SETTING, seed=1), "first") == {}
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    "line", ["no json", "[1]", "{}", '{"setting": {"speed": 1}, "network": "n", "scores": {}}']
)
def test_a_file_of_something_else_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")

    with pytest.raises(ScoreFileError, match=r"scores.jsonl, line 1 holds no scores"):
        ScoreFile.opened(path)


def test_a_folder_or_a_binary_file_is_no_file_of_scores(tmp_path: Path) -> None:
    binary = tmp_path / "scores"
    binary.write_bytes(b"\xff\xfe\x00")

    for path in (tmp_path, binary):
        with pytest.raises(ScoreFileError, match="cannot read"):
            ScoreFile.opened(path)
    with pytest.raises(ScoreFileError, match="cannot write"):
        ScoreFile(binary / "below").add(SETTING, "n", {}, 0.0)


def test_a_proxy_that_raises_costs_no_other_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_evidence: object) -> float:
        raise RuntimeError("no such thing")

    monkeypatch.setitem(PROXIES, "depth", replace(PROXIES["depth"], compute=broken))
    candidate = pruned(Cell.parsed(CONV))

    done = score_one(scoring.Work(SETTING, candidate, "key", ("parameters", "depth", "naswot")))

    assert set(done.scores) == {"parameters", "naswot"}
    assert done.failures == {"depth": "RuntimeError: no such thing"}


def test_a_failed_score_is_tried_again_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_evidence: object) -> float:
        raise ZeroDivisionError

    found, file = population(table(), COLUMNS, "all"), ScoreFile()
    with monkeypatch.context() as patch:
        patch.setitem(PROXIES, "depth", replace(PROXIES["depth"], compute=broken))
        failures = score_missing(found, proxies_by_name(["depth"]), [SETTING], file, 1)
    assert failures == {"depth": "ZeroDivisionError: "}
    proxies = proxies_by_name(["depth"])

    assert score_missing(found, proxies, [SETTING], file, 1) == {}

    assert missing(found, proxies, [SETTING], file) == []
    assert versioned(proxies[0]) == "depth@1"


def test_cells_without_a_path_rank_below_every_other() -> None:
    found, file = population(table(), COLUMNS, "all"), ScoreFile()
    proxies = proxies_by_name(["parameters", "ntk_condition"])
    score_missing(found, proxies, [SETTING], file, 1)
    scores = averaged(gathered(found, proxies, [SETTING], file), proxies)

    figures = judge(found, "c10_test", merits_of(scores, proxies), resamples=20, seed=0)

    assert [one.name for one in figures] == ["parameters", "ntk_condition"]
    assert figures[0].kendall is not None
    assert figures[0].kendall > 0.7
    assert figures[0].best_of == (90.0, 90.0, 90.0)
    assert figures[0].unscored == 0


def test_a_lower_is_better_proxy_keeps_its_direction_over_several_runs() -> None:
    (proxy,) = proxies_by_name(["ntk_condition"])
    runs = {"ntk_condition": [np.array([3.0, 1.0, math.nan]), np.array([2.0, 1.0, math.nan])]}

    scores = averaged(runs, [proxy])
    merits = merits_of(scores, [proxy])["ntk_condition"]

    assert scores["ntk_condition"][1] < scores["ntk_condition"][0]
    assert merits[1] > merits[0]
    assert np.isnan(merits[2])
