"""The commands that judge proxies, and the survey, on a few real cells."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.proxies.__main__ import main
from benchmarks.proxies.bootstrap import Interval
from benchmarks.proxies.cost import Cost, cheap_proxies
from benchmarks.proxies.judging import Figures
from benchmarks.proxies.setting import Setting
from benchmarks.proxies.targets import BASELINES, dataset, missed, published
from benchmarks.proxies.timing import cpu_milliseconds
from benchmarks.survey.__main__ import main as survey
from benchmarks.survey.figures import matrix_of
from host.proxies.ensembles import RECOMMENDED
from host.spaces.base import Candidate
from host.spaces.nasbench201 import NasBench201

SPACE = NasBench201()


def figures(column: str, kendall: float, spearman: float, top: float) -> Figures:
    return Figures(
        column=column,
        name=RECOMMENDED.name,
        is_ensemble=True,
        kendall=kendall,
        kendall_interval=Interval(0.7, 0.9),
        spearman=spearman,
        spearman_interval=None,
        kendall_top=(top, 0.5),
        best_of=(90.0, 91.0, 92.0),
        ndcg=0.9,
        unscored=0,
    )


GOOD = [figures("c10_test", 0.81, 0.95, 0.4), figures("c100_test", 0.80, 0.94, 0.36)]
CHEAP = {RECOMMENDED.name: 60.0}


def test_nothing_is_missed_where_every_target_is_reached() -> None:
    assert missed(GOOD, "all", 2000, CHEAP) == []


def test_each_figure_below_its_target_is_named() -> None:
    poor = [figures("c10_test", 0.79, 0.93, 0.3), GOOD[1]]

    found = missed(poor, "all", 1999, {RECOMMENDED.name: 101.0})

    assert found == [
        "at least 2,000 cells",
        "at most 100 ms of CPU a cell",
        "CIFAR-10 Kendall >= 0.8",
        "CIFAR-10 Spearman >= 0.94",
        "CIFAR-10 Kendall within the top 5 % >= 0.35",
    ]


def test_what_was_not_judged_is_missed() -> None:
    found = missed(GOOD[:1], "live", 2000, {})

    assert "the protocol of all cells" in found
    assert "at most 100 ms of CPU a cell" in found
    assert "CIFAR-100 Kendall >= 0.79" in found


def test_columns_are_told_by_their_names() -> None:
    assert dataset("c10_test") == "CIFAR-10"
    assert dataset("CIFAR100-accuracy") == "CIFAR-100"
    assert dataset("accuracy") is None


def test_published_figures_belong_to_their_population() -> None:
    az = {"name": "az_nas", "is_ensemble": True}
    one = Figures(**{**vars(GOOD[0]), **az})

    assert published(one, "all") == 0.741 == BASELINES[1].kendall["CIFAR-10"]
    assert published(one, "live") is None
    assert published(Figures(**{**vars(one), "name": "nobody"}), "all") is None


def test_the_cost_of_sharing_is_that_of_the_separate_passes_over_the_shared() -> None:
    found = Cost(networks=1, shared=100.0, naive={"a": 200.0, "b": 350.0}, building=5.0)

    assert found.ratio == pytest.approx(5.5)
    assert {proxy.cost for proxy in cheap_proxies()} == {"forward", "backward"}


def test_cpu_time_is_the_median_without_the_first_network() -> None:
    setting = Setting(4, 8, 1, 10, "gaussian", 0)
    conv = Candidate((3, 0, 0, 3, 0, 0))

    found = cpu_milliseconds({"free": ["flops"], "none": ["nobody"]}, [conv, conv], setting)

    assert set(found) == {"free"}
    assert found["free"] > 0.0
    assert cpu_milliseconds({"free": ["flops"]}, [conv], setting) == {}


def test_similar_scores_stand_side_by_side_in_the_matrix() -> None:
    generator = np.random.default_rng(0)
    first, other = generator.normal(size=200), generator.normal(size=200)
    near = {"a": first, "x": other, "b": first + 0.1 * generator.normal(size=200)}

    found = matrix_of(near | {"constant": np.ones(200)})

    assert abs(found.names.index("a") - found.names.index("b")) == 1
    assert np.allclose(found.values, found.values.T)
    assert np.allclose(np.diag(found.values), 1.0)
    assert found.values[found.names.index("constant"), found.names.index("a")] == 0.0


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    numbers = np.random.default_rng(0).permutation(5**6)[:14]
    choices = [tuple(int(number) // 5**edge % 5 for edge in range(6)) for number in numbers]
    rows = [
        f"{SPACE.text(Candidate(choice))},{60 + 3 * choice.count(3) + place / 100},{50 + place}"
        for place, choice in enumerate(choices)
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["arch_str,c10_test,c10_val", *rows]) + "\n", encoding="utf-8")
    setting = ["--batch-size", "4", "--resolution", "8", "--cells", "1", "--processes", "1"]
    few = ["--resamples", "20", "--timed", "2", "--scores", str(tmp_path / "scores.jsonl")]
    return ["--csv", str(path), "--column", "c10_test", *setting, *few]


def test_the_command_judges_every_proxy_and_ensemble(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0

    printed = capsys.readouterr().out
    assert f"{RECOMMENDED.name} *" in printed
    assert "Synflow + AZ proxies 0.776" in printed
    assert main([*words, "--json", "--check", "--timed", "0"]) == 1
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert {"parameters", "vkdnw", RECOMMENDED.name} <= {one["name"] for one in record["figures"]}
    assert "at least 2,000 cells" in record["missed"]
    assert record["cells"] == 14
    assert "networks to score" not in captured.err


def test_mistakes_are_told_in_a_sentence(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, said in (
        (["--proxies", "luck"], 'there is no proxy "luck"'),
        (["--column", "speed"], "no column 'speed'"),
        (["--classes", "10", "100"], "--classes has 2 numbers for 1 columns"),
        (["--scores", str(tmp_path)], "cannot read"),
        (["--batch-size", "1"], "two images or more"),
        (["--cost", "--timed", "1"], "--timed 1 leaves nothing to time"),
    ):
        assert main([*words, *wrong]) == 2
        assert said in capsys.readouterr().err
    assert main(words[:2]) == 2
    assert "name a column" in capsys.readouterr().err


def test_the_survey_is_a_page_with_its_pictures(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "survey"
    cheap = ["parameters", "flops", "depth", "naswot", "jacob_cov", "ntk_condition"]

    assert survey(["--out", str(out), *words, "--proxies", *cheap]) == 0

    page = (out / "survey.html").read_text(encoding="utf-8")
    assert "validation accuracy, trained" in page
    assert page.count("<svg") == 3
    assert "<script" not in page
    for name in ("correlation.png", "cost.png", "matrix-c10_test.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert str(out / name) in capsys.readouterr().out or name != "correlation.png"


def test_a_survey_that_cannot_be_written_is_told_in_a_sentence(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    assert (
        survey(["--out", str(tmp_path / "file"), *words, "--proxies", "parameters", "flops"]) == 2
    )

    assert "cannot write the survey" in capsys.readouterr().err
