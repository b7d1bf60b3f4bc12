"""`genba report`: from a study in the store to a page, and what it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from host.__main__ import main
from host.study.finalist import FinalistResult, finalist_memo
from host.study.front import FRONT, FrontReport, FrontRow, OnDevice, Profile


def on_panel(latency, joules):
    return OnDevice(
        device="panel",
        runtime="onnxruntime 1.23.2",
        predicted_latency_seconds=None,
        predicted_peak_rss_bytes=None,
        latency_seconds=latency,
        latency_low_seconds=latency,
        latency_high_seconds=latency,
        latency_p90_seconds=latency,
        samples=41,
        peak_rss_bytes=81_400_000,
        power_watts=9.0,
        energy_per_inference_joules=joules,
        power_source="rapl, measured",
        power_absent_because="",
        verdict="OK",
    )


@pytest.fixture
def front():
    return FrontReport(
        study="housings",
        space="mobile",
        proxies=["flops"],
        profiles=[
            Profile(
                name="panel",
                device="panel",
                architecture="x86_64",
                cpu="Core 2",
                runtime="onnx",
                runtime_version="1.23.2",
                threads=1,
            )
        ],
        limits=[],
        scored=40,
        measured=12,
        hypervolume=[(40, 0.5)],
        stopped_because="the budget of candidates is spent",
        spent=[],
        rows=[
            FrontRow(
                key="key0",
                text="r64",
                score=-1.0,
                scores={"flops": 1.0},
                parameters=1000,
                macs=10_000,
                model_bytes=4000,
                devices=[on_panel(0.0123, None)],
            )
        ],
        others=[],
    )


@pytest.fixture
def finalist():
    score = {"value": 0.9, "low": 0.85, "high": 0.94, "n": 200}
    form = {
        "form": "onnx-fp32",
        "sha256": "00" * 32,
        "size_bytes": 4000,
        "accuracy": score,
        "balanced_accuracy": 0.9,
        "auroc": score,
        "inspection": None,
        "confusion": [[90, 10], [10, 90]],
        "validation_quality": 0.9,
        "largest_difference": 0.0,
        "float_layers": [],
        "devices": [on_panel(0.0123, 0.36)],
    }
    choice = {
        "device": "panel",
        "form": "onnx-fp32",
        "because": "it is the only one",
        "within_limits": True,
    }
    return FinalistResult.model_validate(
        {
            "key": "key0",
            "text": "r64",
            "score": -1.0,
            "parameters": 1000,
            "macs": 10_000,
            "classes": ["good", "bad"],
            "epochs": 9,
            "best_epoch": 7,
            "train_seconds": 60.0,
            "taught_by": None,
            "validation_auroc": 0.9,
            "validation_balanced_accuracy": 0.9,
            "majority_accuracy": 0.5,
            "forms": [form],
            "choices": [choice],
            "bundles": [],
        }
    )


@pytest.fixture
def study(plant_store, front, finalist):
    """A study in the store of the workspace, with a line of 2 pieces a second."""
    config = json.dumps({"name": "housings", "line": {"rate_hertz": 2.0}})
    made = plant_store.studies.create("housings", config, 7)
    plant_store.studies.put_result(made.id, FRONT, front.model_dump_json())
    plant_store.studies.put_result(made.id, finalist_memo("key0"), finalist.model_dump_json())
    return made


def written(said, *command):
    path = said("report", "housings", *command).strip()
    return path, Path(path).read_text(encoding="utf-8")


def test_the_report_goes_into_the_folder_of_the_study(workspace, study, said):
    path, page = written(said)

    assert path == str(workspace.root / "studies" / "housings" / "report-en.html")
    assert '<html lang="en">' in page
    assert "Seed: 7" in page


def test_language_and_folder_are_as_asked(study, said, tmp_path):
    path, page = written(said, "--lang", "ja", "--out", tmp_path / "out")

    assert path == str(tmp_path / "out" / "report-ja.html")
    assert "推論時間" in page


def test_facts_on_the_data_are_shown_where_the_study_kept_them(plant_store, study, said):
    facts = {
        "folder": "/plant/photos",
        "classes": ["good", "bad"],
        "counts": {"train": [1200, 300], "validation": [400, 100], "test": [400, 100]},
        "fingerprint": "5f" * 32,
    }
    plant_store.studies.put_result(study.id, "data", json.dumps(facts))

    _, page = written(said)

    assert "1,200" in page
    assert "5f" * 32 in page


def test_a_year_costs_what_count_and_price_make_of_the_energy(study, said):
    options = ("--inferences-per-year", 1e7, "--price-per-kwh", 30, "--currency", "JPY")
    _, page = written(said, *options)

    # 0.36 J x 10,000,000 = 1 kWh
    assert re.search(r'<td class="number">1</td><td class="number">30</td></tr>', page)


def test_the_rate_of_the_line_comes_from_the_study_unless_another_is_given(study, said):
    _, page = written(said, "--hours-per-year", 1000)
    _, other = written(said, "--hours-per-year", 1000, "--rate-hertz", 3)

    assert "7,200,000 inferences a year" in page
    assert "10,800,000 inferences a year" in other


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--inferences-per-year", "0"], "--inferences-per-year must be above 0"),
        (["--hours-per-year", "nan"], "--hours-per-year must be above 0 and finite"),
        (["--hours-per-year", "9000"], "at most 8784"),
        (["--rate-hertz", "3"], "--rate-hertz needs --hours-per-year"),
        (["--inferences-per-year", "5", "--hours-per-year", "9"], "exclude each other"),
        (["--price-per-kwh", "30"], "--price-per-kwh and --currency go together"),
        (["--currency", "JPY"], "--price-per-kwh and --currency go together"),
        (["--price-per-kwh", "30", "--currency", "JPY"], "how often devices are asked"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    workspace, study, said, options, sentence
):
    assert sentence in said("report", "housings", *options, code=2)

    assert not (workspace.root / "studies").exists()


def test_a_study_without_a_rate_says_how_to_give_one(plant_store, front, said):
    made = plant_store.studies.create("bare", "{}", 0)
    plant_store.studies.put_result(made.id, FRONT, front.model_dump_json())

    assert "add --rate-hertz" in said("report", "bare", "--hours-per-year", "10", code=2)


def test_a_study_that_is_unknown_or_not_so_far_says_so(plant_store, workspace, said):
    plant_store.studies.create("young", "{}", 0)

    assert "has no front yet" in said("report", "young", code=1)
    assert "no study is named 'other'" in said("report", "other", code=2)


def test_without_a_chromium_the_page_is_written_all_the_same(study, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    code = main(["report", "housings", "--pdf"])

    captured = capsys.readouterr()
    assert code == 1
    assert captured.out.strip().endswith("report-en.html")
    assert "install chromium, or open that file in any browser" in captured.err


def test_facts_of_another_version_are_a_sentence(plant_store, study, said):
    plant_store.studies.put_result(study.id, "data", '{"pictures": 3}')

    assert "written by another version of genba" in said("report", "housings", code=1)


@pytest.mark.parametrize("command", ["report housings", "front show housings"])
def test_what_a_study_found_is_shown_without_torch(workspace, study, command):
    script = (
        "import sys; from host.__main__ import main;"
        "code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    )
    arguments = [*command.split(), "--workspace", str(workspace.root)]

    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )

    assert ran.stdout.splitlines()[-1] == "0 False"
