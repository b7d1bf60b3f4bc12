"""`genba rank`: an order with scores, costs and intervals, kept and resumed, and bad input."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from host.calibration.setting import Setting
from host.device import Device
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.proxies.choice import judge
from host.proxies.ensembles import ENSEMBLES, RECOMMENDED
from host.proxies.executors import InProcess
from host.proxies.work import Scores, Work
from host.spaces.base import Task, sample
from host.spaces.mobile import Mobile
from host.store import Store
from host.workspace import Workspace

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)
FREE = ("rank", "mobile", "--proxies", "flops", "--sample", "12")
QUICK = (
    "rank",
    "nasbench201",
    *("--proxies", "flops,naswot,jacob_cov"),
    *("--sample", "6", "--batch-size", "8", "--resolution", "16", "--processes", "1"),
)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three networks of the user's own."""
    space = Mobile({"resolution": (32,), "width": (0.25,), "depth": (1, 2)})
    made = []
    for seed in range(3):
        network = space.build(sample(space, np.random.default_rng(seed)), Task(3, 4))
        made.append(tmp_path / f"model{seed}.onnx")
        made[-1].write_bytes(onnx_bytes(network, random_weights(network, seed=seed)))
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images of three classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("crack", "good", "stain"):
        (root / name).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 256, (24, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """What is computed in this process from here on."""
    computed: list[Work] = []
    really = InProcess.run

    def run(self: InProcess, todo: Any) -> Any:
        for work, scores in really(self, todo):
            computed.append(work)
            yield work, scores

    monkeypatch.setattr(InProcess, "run", run)
    return computed


def test_the_table_says_what_is_a_score_and_what_is_counted(
    workspace: Workspace, said: Any
) -> None:
    text = said(*FREE, "--top", "3")

    assert "Ranked without training by flops: 12 networks of mobile" in text
    assert "(log-rank)" in text
    assert "9 more are not shown" in text
    assert "no accuracy" in text
    assert "lower count of MACs" in text
    assert "predicted" not in text


def test_by_one_proxy_the_order_is_its_own(workspace: Workspace, loaded: Any) -> None:
    found = loaded(*FREE)

    macs = [row["macs"] for row in found["ranking"]]
    assert macs == sorted(macs, reverse=True)
    assert [row["rank"] for row in found["ranking"]] == list(range(1, 13))
    assert [row["scores"]["flops"] for row in found["ranking"]] == macs
    assert all(row["on_front"] for row in found["ranking"])
    assert found["kind"] == "score"


def test_without_a_choice_the_recommended_ensemble_judges(
    workspace: Workspace, loaded: Any
) -> None:
    small = ("--sample", "2", "--batch-size", "8", "--resolution", "32", "--processes", "1")

    found = loaded("rank", "nasbench201", *small)
    named = loaded("rank", "nasbench201", *small, "--ensemble", RECOMMENDED.name)

    assert found["ensemble"] == RECOMMENDED.name
    assert found["proxies"] == list(RECOMMENDED.members)
    assert named == found


def test_the_same_seed_gives_the_same_ranking_and_nothing_is_computed_twice(
    workspace: Workspace, loaded: Any, works: list[Work]
) -> None:
    first = loaded(*QUICK)
    computed = len(works)

    again, other = loaded(*QUICK), loaded(*QUICK, "--seed", "1")

    assert computed == 6
    assert again == first
    assert other["ranking"] != first["ranking"]
    assert len(works) == computed + 6


def test_a_larger_sample_computes_only_what_is_new(
    workspace: Workspace, loaded: Any, works: list[Work]
) -> None:
    loaded(*QUICK)
    loaded(*QUICK, "--sample", "9")

    assert len(works) == 9


def test_a_pool_of_processes_gives_the_same_ranking(
    workspace: Workspace, loaded: Any, works: list[Work]
) -> None:
    pooled = loaded(*QUICK, "--processes", "2")
    here = len(works)

    assert here == 0
    assert pooled == loaded(*QUICK)
    assert works == []  # what the pool computed is in the store


def test_inits_give_ranks_with_intervals(workspace: Workspace, loaded: Any, said: Any) -> None:
    found = loaded(*QUICK, "--inits", "3")
    text = said(*QUICK, "--inits", "3")

    assert found["draws"] == 3
    assert found["rank_percentiles"] == [10, 90]
    for row in found["ranking"]:
        assert 1 <= row["rank_low"] <= row["rank_high"] <= 6
    assert "10-90 %" in text
    assert "mean of 3 draws" in text


def test_one_init_has_no_interval_and_says_how_to_get_one(
    workspace: Workspace, loaded: Any, said: Any
) -> None:
    found = loaded(*QUICK)

    assert found["ranking"][0]["rank_low"] is None
    assert found["rank_percentiles"] is None
    assert "--inits 5" in said(*QUICK)


def test_free_proxies_prune_first_and_dear_ones_see_the_rest(
    workspace: Workspace, loaded: Any, said: Any, works: list[Work]
) -> None:
    pruned = loaded(*QUICK, "--sample", "10", "--keep", "0.25")
    text = said(*QUICK, "--sample", "10", "--keep", "0.25")
    everything = loaded(*FREE[:1], "nasbench201", "--proxies", "flops", "--sample", "10")

    assert len(works) == len(pruned["ranking"]) == 3
    assert (pruned["networks"], pruned["pruned"], pruned["pruned_by"]) == (10, 7, ["flops"])
    largest = {row["key"] for row in everything["ranking"][:3]}
    assert {row["key"] for row in pruned["ranking"]} == largest
    assert "7 of 10 networks were left out before by flops" in text


def test_devices_give_predicted_latency_with_its_interval_and_a_front(
    kiosk: Device,
    plant_store: Store,
    enrol: Callable[[str], Device],
    fit_models: Any,
    loaded: Any,
    said: Any,
) -> None:
    fit_models(plant_store, enrol("press").id, ONE, slowness=3.0)

    found = loaded(*QUICK, "--devices", "kiosk,press")
    text = said(*QUICK, "--devices", "kiosk,press")

    assert [device["device"] for device in found["devices"]] == ["kiosk", "press"]
    for row in found["ranking"]:
        fast, slow = row["predicted"]
        latency = fast["latency_seconds"]
        assert latency["low"] < latency["value"] < latency["high"]
        assert slow["latency_seconds"]["value"] == pytest.approx(3 * latency["value"])
        assert "on_front" not in row
    assert found["ranking"][0]["predicted"][0]["on_front"]
    assert "kiosk" in text
    assert "latency ms, predicted" in text
    assert "[90 %]" in text
    assert "lower predicted latency" in text


def test_nothing_on_the_front_is_beaten_by_anything(kiosk: Device, loaded: Any) -> None:
    rows = loaded(*QUICK, "--sample", "15", "--devices", "kiosk")["ranking"]

    points = [(row["score"], row["predicted"][0]["latency_seconds"]["value"]) for row in rows]
    for row, (score, latency) in zip(rows, points, strict=True):
        beaten = any(
            s >= score and cost <= latency and (s, cost) != (score, latency) for s, cost in points
        )
        assert row["predicted"][0]["on_front"] == (not beaten)


def test_files_are_ranked_and_priced(
    kiosk: Device, files: list[Path], loaded: Any, said: Any
) -> None:
    command = ("rank", *files, "--proxies", "flops,naswot", "--batch-size", "8")

    found = loaded(*command, "--devices", "kiosk", "--processes", "1")
    text = said(*command, "--processes", "1")

    assert {row["network"] for row in found["ranking"]} == {f"model{n}.onnx" for n in range(3)}
    assert {row["space"] for row in found["ranking"]} == {"onnx"}
    for row in found["ranking"]:
        assert row["predicted"][0]["latency_seconds"]["value"] > 0
        assert row["scores"]["flops"] == pytest.approx(row["macs"], rel=0.2)
    assert "3 networks of 3 files" in text


def test_a_folder_of_files_is_ranked(workspace: Workspace, files: list[Path], loaded: Any) -> None:
    found = loaded("rank", files[0].parent, "--proxies", "flops", "--processes", "1")

    assert len(found["ranking"]) == 3


def test_images_of_the_user_and_their_classes_are_looked_at(
    workspace: Workspace, photos: Path, loaded: Any, works: list[Work]
) -> None:
    loaded(
        *("rank", "mobile", "--images", photos, "--proxies", "grad_norm", "--sample", "2"),
        *("--batch-size", "8", "--resolution", "32", "--processes", "1"),
    )

    assert len(works) == 2
    for work in works:
        assert work.batch.source == "images"
        assert work.batch.images.shape == (8, 1, 32, 32)
        assert work.batch.labels is not None
        assert set(work.batch.labels.tolist()) <= {0, 1, 2}


def test_more_classes_than_a_file_answers_are_a_sentence(
    workspace: Workspace, photos: Path, files: list[Path], said: Any
) -> None:
    space = Mobile({"resolution": (32,), "width": (0.25,), "depth": (1,)})
    network = space.build(sample(space, np.random.default_rng(0)), Task(1, 2))
    files[0].write_bytes(onnx_bytes(network, random_weights(network, seed=0)))

    message = said(
        *("rank", files[0], "--images", photos, "--proxies", "grad_norm", "--processes", "1"),
        code=2,
    )

    assert "model0.onnx" in message
    assert "labels from 0 to 1" in message


def test_images_that_are_too_small_for_a_network_are_said(workspace: Workspace, said: Any) -> None:
    command = ("rank", "conv1d", "--proxies", "naswot", "--sample", "40", "--processes", "1")

    message = said(*command, "--resolution", "4", code=2)

    assert "too large for --resolution 4" in message


def test_made_images_can_be_chosen(workspace: Workspace, loaded: Any, works: list[Work]) -> None:
    loaded(*QUICK, "--sample", "1")
    loaded(*QUICK, "--sample", "1", "--images", "gaussian")
    loaded(*QUICK, "--sample", "1", "--images", "natural")

    assert [work.batch.source for work in works] == ["natural", "gaussian"]


def test_csv_has_a_row_for_every_network_and_a_column_for_every_figure(
    kiosk: Device, tmp_path: Path, said: Any
) -> None:
    said(*QUICK, "--devices", "kiosk", "--top", "1", "--csv", tmp_path / "ranking.csv")

    with (tmp_path / "ranking.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 6
    for row in rows:
        low, value, high = (
            float(row[f"kiosk predicted {column}"]) for column in ("low", "latency_seconds", "high")
        )
        assert low < value < high
        assert row["rank_low"] == ""
        assert float(row["score naswot"]) > 0
    assert [int(row["rank"]) for row in rows] == sorted(int(row["rank"]) for row in rows)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_picture_is_drawn_in_both_languages(
    kiosk: Device, tmp_path: Path, said: Any, language: str
) -> None:
    plain, priced = tmp_path / "plain.png", tmp_path / "priced.png"

    text = said(*QUICK, "--picture", plain, "--lang", language, "--inits", "2")
    said(*QUICK, "--picture", priced, "--lang", language, "--devices", "kiosk")

    for path in (plain, priced):
        with Image.open(path) as image:
            assert image.width > 800
    assert ("順位" in text) == (language == "ja")
    assert ("score" in text) == (language == "en")


def test_a_network_without_a_score_ranks_last_and_the_table_says_so(
    workspace: Workspace, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(work: Work) -> Scores:
        return {name: float("nan") for name in work.proxies}

    monkeypatch.setattr("host.proxies.executors.compute", spoilt)

    text = said(*QUICK)

    assert "none of these networks has a score by naswot, jacob_cov" in text


def test_where_the_space_is_small_all_of_it_is_ranked(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], loaded: Any, monkeypatch: Any
) -> None:
    small = Mobile(
        {
            "resolution": (32,),
            "width": (0.25,),
            "activation": ("relu",),
            "kernel": (3,),
            "expansion": (1,),
            "depth": (1,),
            "squeeze": (False,),
        }
    )
    monkeypatch.setattr("host.spaces.catalogue.space_by_name", lambda _name: small)

    found = loaded(*FREE)

    assert found["networks"] == 8


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("magic",), "magic is neither a file nor a space"),
        (("mobile", "nasbench201"), "rank one space"),
        (("mobile", "model0.onnx"), "not both at once"),
        (("model0.onnx", "--sample", "3"), "leave it out"),
        (("text.onnx",), "not an ONNX file"),
        (("text.txt",), "not an ONNX file"),
        (("empty",), "no ONNX file"),
        (("mobile", "--proxies", "magic"), 'no proxy "magic"'),
        (("mobile", "--proxies", "flops,"), "write it as --proxies a,b"),
        (("mobile", "--proxies", "flops,flops"), "named twice"),
        (("mobile", "--ensemble", "magic"), 'no ensemble "magic"'),
        (("mobile", "--ensemble", "az_nas", "--proxies", "flops"), "exclude each other"),
        (("mobile", "--devices", "nobody"), "no device is named 'nobody'"),
        (("mobile", "--devices", "kiosk,"), "write it as --devices a,b"),
        (("mobile", "--devices", "press"), "genba device calibrate press"),
        (("mobile", "--devices", "kiosk", "--threads", "3"), "calibrate kiosk --threads 3"),
        (("mobile", "--sample", "-3"), "--sample"),
        (("mobile", "--keep", "0"), "share above 0"),
        (("mobile", "--keep", "-0.5"), "share above 0"),
        (("mobile", "--keep", "1.5"), "share above 0"),
        (("mobile", "--keep", "0.5", "--proxies", "naswot"), "needs a free proxy"),
        (("mobile", "--inits", "0"), "--inits"),
        (("mobile", "--seed", "-1"), "--seed"),
        (("mobile", "--batch-size", "1"), "--batch-size"),
        (("mobile", "--resolution", "-8"), "--resolution"),
        (("mobile", "--processes", "0"), "--processes"),
        (("mobile", "--executor", "slurm"), "--executor"),
        (("mobile", "--images", "nowhere"), "no image folder nowhere"),
        (("mobile", "--images", "empty"), "no class folders"),
        (("mobile", "--picture", "front.pdf"), "must end with .png"),
        (("mobile", "--picture", "nowhere/front.png"), "no folder nowhere"),
        (("mobile", "--csv", "nowhere/all.csv"), "--csv"),
        (("mobile", "--csv", "empty"), "--csv"),
    ],
)
def test_what_cannot_be_ranked_is_a_sentence_and_ends_with_2(
    kiosk: Device,
    enrol: Callable[[str], Device],
    files: list[Path],
    arguments: tuple[str, ...],
    why: str,
    said: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enrol("press")
    monkeypatch.setenv("GENBA_WORKSPACE", str(Path.cwd()))
    monkeypatch.chdir(files[0].parent)
    Path("empty").mkdir()
    for name in ("text.onnx", "text.txt"):
        Path(name).write_text("no model at all")

    assert why in said("rank", *arguments, code=2)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        *(sys.executable, "-m", "host", "rank", "nasbench201", "--sample", "80"),
        *("--proxies", "naswot,jacob_cov,synflow", "--processes", "2", "--json"),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONUNBUFFERED": "1"},
    )
    with workspace.open_store() as store:
        for _ in range(600):
            if some_scores(store) > 10:
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
        kept = some_scores(store)

    assert process.returncode == 130
    assert "every score is kept: the same command goes on" in errors
    assert "Traceback" not in errors
    assert 10 < kept < 3 * 80
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert f"scored: {kept // 3} of 80" in found.stderr
    assert len(json.loads(found.stdout)["ranking"]) == 80


def some_scores(store: Store) -> int:
    from sqlalchemy import func, select

    from host.store.tables import ScoreRow

    with store._database.read() as session:
        return session.scalar(select(func.count()).select_from(ScoreRow)) or 0


def test_a_choice_of_proxies_is_an_ensemble_of_equal_weights() -> None:
    assert judge(None, ["flops", "naswot"]).weights == {"flops": 1.0, "naswot": 1.0}
    assert judge("az_nas", None) == ENSEMBLES["az_nas"]
    assert judge(None, None) == RECOMMENDED
