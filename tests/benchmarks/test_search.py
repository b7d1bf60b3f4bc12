"""The benchmark of searches: a table as a device, and when a search has reached what random did."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search.__main__ import Found, main
from benchmarks.search.strategies import at_random
from benchmarks.search.tabled import Truth, column
from host.spaces.base import sample
from host.spaces.nasbench201 import NasBench201


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every cell of a smaller space, more accurate and slower with every convolution."""
    path = tmp_path_factory.mktemp("table") / "cells.csv"
    space, rng = NasBench201(), np.random.default_rng(0)
    texts = {space.text(sample(space, rng)) for _ in range(6000)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch_str", "accuracy", "latency_ms"])
        for text in sorted(texts):
            large, small = text.count("conv_3x3"), text.count("conv_1x1")
            noise = rng.uniform(0, 0.5, 2)
            writer.writerow(
                [text, 70 + 3 * large + small + noise[0], 2 + 2 * large + small + noise[1]]
            )
    return path


def test_a_column_leaves_out_cells_without_a_path_and_what_did_not_run(tmp_path: Path) -> None:
    whole, dead = (
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    )
    other = whole.replace("skip_connect", "nor_conv_1x1")
    path = tmp_path / "cells.csv"
    path.write_text(f"arch_str,ms\n{whole},3\n{dead},1\n{other},-1\n")

    assert column(path, "ms") == {whole: 3.0}


def test_both_objectives_are_places_between_the_best_and_the_worst() -> None:
    truth = Truth({"a": 90.0, "b": 80.0, "c": 70.0}, {"a": 3.0, "b": 2.0, "c": 1.0})

    assert truth.objectives(["a", "b", "c"]).tolist() == [[0, 1], [1, 0.5], [2, 0]]


def test_random_measures_no_network_twice(table: Path) -> None:
    truth = Truth.of(column(table, "accuracy"), column(table, "latency_ms"))

    order = at_random(truth, 100, seed=1)

    assert len(set(order)) == 100
    assert order == at_random(truth, 100, seed=1)


def test_what_random_found_is_reached_by_the_first_measurement_that_has_as_much() -> None:
    found = Found("raspi4", random=(0.1,) * 20, study=(0.05, 0.1, 0.2), predictions=(0.3,))

    assert found.reached == 2
    assert found.holds
    assert not Found("raspi4", (0.1,) * 19, (0.05, 0.1), (0.3,)).holds
    assert Found("raspi4", (0.5,), (0.1,), (0.3,)).reached is None


@pytest.mark.slow
def test_it_runs_from_one_command_and_draws(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "search.png"
    words = ["--csv", str(table), "--column", "accuracy", "--costs", str(table)]
    words += ["--device", "latency_ms", "--seeds", "1", "--random", "150", "--candidates", "40"]

    code = main([*words, "--scores", str(tmp_path / "scores"), "--picture", str(picture), "--json"])

    assert code == 0
    (record,) = json.loads(capsys.readouterr().out)["devices"]
    assert len(record["random"]) == 150
    assert 12 <= len(record["study"]) <= 15
    for name in ("random", "study", "predictions"):
        assert record[name] == sorted(record[name])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_table_that_is_not_there_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--csv", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
