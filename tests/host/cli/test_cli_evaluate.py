"""`genba evaluate`: own models measured, judged, and beside a study, told apart from it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from host.__main__ import main
from host.config import StudyConfig
from host.data.images import scan_folder
from host.device import DeviceFacts
from host.job import Job
from host.measurement import (
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    Outcome,
    Reason,
    Verdict,
)
from host.store import Store
from host.study.finalist import Choice, FinalistResult, FormResult, Score, finalist_memo
from host.study.front import FRONT, FrontReport, FrontRow, LimitLine, OnDevice, Profile
from host.study.stored import FINGERPRINT
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.cli.conftest import MadeUpDevice

SIDE = 12
REJECTED = Verdict("REJECT", (Reason("UNSTABLE", "REJECT", "the processes differ by 12 %"),))


def classifier(path: Path, slope: float, **metadata: str) -> Path:
    """Calls an image bright (class 0 of "bright", "dark") by its mean; slope 0 cannot tell."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["logits"]),
    ]
    weight = np.array([[slope, -slope]], np.float32)
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, metadata)
    onnx.save(made, path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Tells bright from dark."""
    return classifier(tmp_path / "good.onnx", 5.0)


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """Calls bright dark and dark bright."""
    return classifier(tmp_path / "wrong.onnx", -5.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images: dark ones and bright ones, with what is for the test in a folder of its own."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("test", 12)):
        for name, level in (("bright", 180), ("dark", 60)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 40, level + 40, (SIDE, SIDE), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture
def undivided(photos: Path, tmp_path: Path) -> Path:
    """The same without a test folder."""
    for name in ("bright", "dark"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for part in ("train", "test"):
            for file in (photos / part / name).iterdir():
                target = tmp_path / "all" / name / f"{part}{file.name}"
                target.write_bytes(file.read_bytes())
    return tmp_path / "all"


Latencies = dict[str, float]


@pytest.fixture
def panel(
    start_device: "Callable[..., MadeUpDevice]", make_measurement: Callable[..., Measurement]
) -> "Callable[..., MadeUpDevice]":
    """Starts a device that takes so long for the files of those names, 10 ms for others."""

    def start(name: str = "panel", verdict: Verdict | None = None, **seconds: float) -> Any:
        def answer(job: Job) -> Outcome:
            assert isinstance(job.spec, MeasureSpec)
            latency = seconds.get(job.label.partition(".")[0], 0.010)
            sha256 = job.spec.run.model_sha256
            made = make_measurement(job.device_id, sha256, latency, energies=())
            return replace(
                made,
                run=job.spec.run,
                plan=job.spec.plan,
                verdict=verdict or made.verdict,
                energy_absent_because="no powercap zone",
            )

        return start_device(name, answer)

    return start


def on(device: str, latency: float) -> OnDevice:
    return OnDevice(
        device=device,
        runtime="onnxruntime 1.23.2",
        predicted_latency_seconds=None,
        predicted_peak_rss_bytes=None,
        latency_seconds=latency,
        latency_low_seconds=latency * 0.99,
        latency_high_seconds=latency * 1.01,
        latency_p90_seconds=latency * 1.1,
        samples=62,
        peak_rss_bytes=60_000_000,
        power_watts=None,
        energy_per_inference_joules=None,
        power_source=None,
        power_absent_because="no powercap zone",
        verdict="OK",
    )


def a_front(limit_seconds: float) -> FrontReport:
    rows = [
        FrontRow(
            key=key,
            text=f"{key} of mobile",
            score=combined,
            scores={"flops": 1.0},
            parameters=1000,
            macs=10_000,
            model_bytes=4000,
            devices=[on("panel", latency)],
        )
        for key, combined, latency in (("k1", 2.0, 0.004), ("k2", 1.0, 0.002), ("k3", 9.0, 0.008))
    ]
    profile = Profile(
        name="panel",
        device="panel",
        architecture="x86_64",
        cpu="Celeron",
        runtime="onnx",
        runtime_version="onnxruntime 1.23.2",
        threads=1,
    )
    limit = LimitLine(
        quantity="latency_seconds",
        device="panel",
        maximum=limit_seconds,
        text="max_latency_ms = 9 on panel",
    )
    return FrontReport(
        study="housings",
        space="mobile",
        proxies=["flops"],
        profiles=[profile],
        limits=[limit],
        scored=40,
        measured=20,
        hypervolume=[],
        stopped_because="converged",
        spent=[],
        rows=rows,
        others=[],
    )


def a_finalist() -> FinalistResult:
    share = Score(value=0.75, low=0.55, high=0.88, n=24)
    form = FormResult(
        form="onnx-fp32",
        sha256="0" * 64,
        size_bytes=4100,
        accuracy=share,
        balanced_accuracy=0.75,
        auroc=Score(value=0.8, low=0.6, high=0.9, n=24),
        inspection=None,
        confusion=[[9, 3], [3, 9]],
        validation_quality=0.8,
        largest_difference=1e-6,
        float_layers=[],
        devices=[on("panel", 0.004)],
    )
    return FinalistResult(
        key="k1",
        text="k1 of mobile",
        score=2.0,
        parameters=1000,
        macs=10_000,
        classes=["bright", "dark"],
        epochs=3,
        best_epoch=2,
        train_seconds=5.0,
        taught_by=None,
        validation_auroc=0.8,
        validation_balanced_accuracy=0.75,
        majority_accuracy=0.5,
        forms=[form],
        choices=[Choice(device="panel", form="onnx-fp32", because="only", within_limits=True)],
        bundles=[],
    )


@pytest.fixture
def study(plant_store: Store, photos: Path) -> str:
    """A study whose front and finalist are in the store, judged on the photos."""
    config = StudyConfig.model_validate(
        {"name": "housings", "data": {"folder": str(photos)}, "devices": [{"name": "panel"}]}
    )
    made = plant_store.studies.create("housings", config.effective_json(), config.seed)
    put = plant_store.studies.put_result
    put(made.id, FINGERPRINT, json.dumps(scan_folder(photos).fingerprint))
    put(made.id, FRONT, a_front(0.009).model_dump_json())
    put(made.id, finalist_memo("k1"), a_finalist().model_dump_json())
    return "housings"


@pytest.fixture
def told(said: Callable[..., str]) -> Callable[..., str]:
    """What a command prints, as one line: the table's width breaks sentences."""
    return lambda *command: " ".join(said(*command).split())


def by_label(found: Any) -> dict[str, Any]:
    return {entry["label"]: entry for entry in found["entries"]}


def test_own_models_are_measured_with_interval_verdict_memory_and_size(
    panel: Any, good: Path, wrong: Path, loaded: Any
) -> None:
    panel(good=0.004, wrong=0.020)
    panel("press")

    found = loaded("evaluate", good, wrong, "--devices", "panel,press")

    entries = by_label(found)
    assert list(entries) == ["good.onnx", "wrong.onnx"]
    assert entries["good.onnx"]["size_bytes"] == good.stat().st_size
    on_panel, on_press = entries["good.onnx"]["devices"]
    figures = on_panel["measured"]
    assert figures["latency_seconds"] == pytest.approx(0.004)
    assert figures["latency_low_seconds"] <= 0.004 <= figures["latency_high_seconds"]
    assert figures["peak_rss_bytes"] == 70_000_000
    assert figures["verdict"] == "OK"
    assert on_press["measured"]["latency_seconds"] == pytest.approx(0.010)
    assert entries["good.onnx"]["quality"] is None
    assert found["dominances"] == []


def test_with_data_they_are_judged_with_intervals_and_the_better_one_dominates(
    panel: Any, good: Path, wrong: Path, photos: Path, loaded: Any, told: Any
) -> None:
    panel(good=0.004, wrong=0.020)
    command = ("evaluate", good, wrong, "--devices", "panel", "--data", photos)

    found = loaded(*command)
    text = told(*command)

    entries = by_label(found)
    best = entries["good.onnx"]["quality"]
    assert (best["measure"], best["value"], best["n"]) == ("AUROC", 1.0, 24)
    assert best["low"] < 1.0
    assert entries["good.onnx"]["accuracy"]["value"] == 1.0
    assert entries["wrong.onnx"]["quality"]["value"] == 0.0
    assert found["dominances"] == [
        {"place": "panel", "winner": "good.onnx", "loser": "wrong.onnx", "certain": True}
    ]
    assert "good.onnx dominates wrong.onnx" in text
    assert "mean and std from the training images" in text
    assert "classes in the order of the folders" in text
    assert "drawn from the folder" not in text


def test_a_test_part_that_was_drawn_is_said_to_be_so(
    panel: Any, good: Path, undivided: Path, told: Any
) -> None:
    panel()

    text = told("evaluate", good, "--devices", "panel", "--data", undivided)

    assert "the test images were drawn from the folder" in text


def test_labels_and_normalisation_are_taken_from_the_options(
    panel: Any, good: Path, photos: Path, tmp_path: Path, loaded: Any
) -> None:
    panel()
    (tmp_path / "labels.txt").write_text("dark\nbright\n")
    options = ("--labels", tmp_path / "labels.txt", "--mean", "0.5", "--std", "0.25")

    found = loaded("evaluate", good, "--devices", "panel", "--data", photos, *options)

    assert by_label(found)["good.onnx"]["quality"]["value"] == 0.0
    assert "mean and std from the options, classes in the order of the options" in found["notes"][0]


def test_what_genba_wrote_into_the_file_is_used(
    panel: Any, tmp_path: Path, photos: Path, loaded: Any
) -> None:
    panel()
    telling = {"classes": "dark\nbright", "mean": "[0.47]", "std": "[0.2]"}
    model = classifier(tmp_path / "shipped.onnx", -5.0, **telling)

    found = loaded("evaluate", model, "--devices", "panel", "--data", photos)

    assert by_label(found)["shipped.onnx"]["quality"]["value"] == 1.0
    assert "mean and std from the file, classes in the order of the file" in found["notes"][0]


def test_a_prediction_stands_beside_the_measurement_where_the_device_is_calibrated(
    panel: Any, plant_store: Store, fit_models: Any, mobile: Path, loaded: Any, said: Any
) -> None:
    from host.calibration.setting import Setting

    panel()
    device = plant_store.devices.by_name("panel")
    fit_models(plant_store, device.id, Setting("onnx", "onnxruntime", "1.23.2", 1))

    found = loaded("evaluate", mobile, "--devices", "panel")
    without = loaded("evaluate", mobile, "--devices", "panel", "--threads", "2")

    (on_panel,) = by_label(found)["mobile.onnx"]["devices"]
    told = on_panel["predicted_latency_seconds"]
    assert told["low"] < told["value"] < told["high"]
    (on_panel,) = by_label(without)["mobile.onnx"]["devices"]
    assert on_panel["predicted_latency_seconds"] is None
    assert any("calibrate panel --threads 2" in note for note in without["notes"])


def test_beside_a_study_kinds_are_told_apart_and_only_trained_ones_dominate(
    panel: Any, study: str, good: Path, wrong: Path, loaded: Any, told: Any
) -> None:
    panel(good=0.003, wrong=0.020)
    command = ("evaluate", good, wrong, "--study", study)

    found = loaded(*command)
    text = told(*command)

    kinds = {label: entry["kind"] for label, entry in by_label(found).items()}
    assert kinds == {
        "good.onnx": "own model",
        "wrong.onnx": "own model",
        "F1": "finalist",
        "C1": "candidate",
        "C2": "candidate",
    }
    assert by_label(found)["C1"]["score"] == 9.0
    assert by_label(found)["C1"]["quality"] is None
    assert by_label(found)["good.onnx"]["score"] is None
    pairs = {(one["winner"], one["loser"]) for one in found["dominances"]}
    assert pairs == {("good.onnx", "wrong.onnx"), ("good.onnx", "F1"), ("F1", "wrong.onnx")}
    (miss,) = found["missed_limits"]
    assert (miss["label"], miss["quantity"]) == ("wrong.onnx", "latency_seconds")
    assert "wrong.onnx on panel misses max_latency_ms = 9 on panel: 20" in text
    assert "candidate, untrained" in text
    assert "its score is no accuracy" in text


def test_other_images_than_the_study_had_are_not_compared_with_its_finalists(
    panel: Any, study: str, good: Path, undivided: Path, told: Any, loaded: Any
) -> None:
    panel(good=0.003)
    command = ("evaluate", good, "--study", study, "--data", undivided)

    found = loaded(*command)

    assert found["dominances"] == []
    assert "is of different images: it is not compared" in told(*command)


def test_where_the_images_of_the_study_are_gone_own_models_are_not_judged(
    panel: Any, plant_store: Store, study: str, good: Path, loaded: Any
) -> None:
    panel()
    found_study = plant_store.studies.by_name(study)
    plant_store.studies.put_result(found_study.id, FINGERPRINT, json.dumps("other images"))

    found = loaded("evaluate", good, "--study", study)

    entry = by_label(found)["good.onnx"]
    assert entry["quality"] is None
    assert "are not those that the study housings had" in entry["no_quality_because"]
    assert any("are not those that the study housings had" in note for note in found["notes"])


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_picture_is_drawn_in_both_languages(
    panel: Any, study: str, good: Path, wrong: Path, tmp_path: Path, said: Any, language: str
) -> None:
    panel(good=0.003, wrong=0.020)
    whole, alone = tmp_path / "whole.png", tmp_path / "alone.png"

    said("evaluate", good, wrong, "--study", study, "-o", whole, "--lang", language)
    said("evaluate", good, "--devices", "panel", "-o", alone, "--lang", language)

    with Image.open(whole) as image:
        both_rows = image.height
    with Image.open(alone) as image:
        one_row = image.height
    assert both_rows > 1.5 * one_row > 400


def test_what_a_device_rejects_is_shown_and_dominates_nothing(
    panel: Any, good: Path, wrong: Path, photos: Path, loaded: Any, told: Any
) -> None:
    panel(verdict=REJECTED)
    command = ("evaluate", good, wrong, "--devices", "panel", "--data", photos)

    assert loaded(*command)["dominances"] == []
    assert "good.onnx on panel: REJECT: the processes differ by 12 %" in told(*command)


def test_a_model_that_a_device_cannot_measure_is_said_and_ends_with_1(
    start_device: Any, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(job: Job) -> MeasurementFailure:
        return MeasurementFailure(job.device_id, None, "worker_crashed", "SIGILL", job.created_at)

    start_device("panel", fail)

    code = main(["evaluate", str(good), "--devices", "panel"])

    printed = capsys.readouterr()
    assert code == 1
    assert "good.onnx on panel: worker crashed: SIGILL" in printed.out
    assert "panel could not measure good.onnx" in printed.err


def test_files_of_one_name_are_told_apart_by_their_paths(
    panel: Any, tmp_path: Path, loaded: Any
) -> None:
    panel()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = classifier(tmp_path / "a" / "net.onnx", 5.0)
    second = classifier(tmp_path / "b" / "net.onnx", 4.0)

    found = loaded("evaluate", first, second, "--devices", "panel")

    assert list(by_label(found)) == [str(first), str(second)]


def test_a_tflite_file_is_measured_and_has_no_accuracy(
    panel: Any, tflite_model: Path, good: Path, photos: Path, loaded: Any
) -> None:
    panel()

    found = loaded("evaluate", tflite_model, good, "--devices", "panel", "--data", photos)

    entry = by_label(found)["model.tflite"]
    assert entry["devices"][0]["measured"]["latency_seconds"] == pytest.approx(0.010)
    assert entry["quality"] is None
    assert entry["no_quality_because"] == "only ONNX files are judged here"


def test_a_device_without_the_runtime_is_refused_before_any_image_is_judged(
    plant_store: Store,
    device_facts: DeviceFacts,
    good: Path,
    photos: Path,
    said: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def judge(*_: object) -> None:
        pytest.fail("an image was judged")

    monkeypatch.setattr("host.evaluation.judging.judge", judge)
    facts = replace(device_facts, runtimes=())
    plant_store.devices.add_token("panel", "secret", plant_store.now() + timedelta(hours=1))
    plant_store.devices.enrol("secret", "key", facts)
    command = ("evaluate", good, "--data", photos)

    assert "cannot run ONNX models" in said(*command, "--devices", "panel", code=2)
    assert "nobody" in said(*command, "--devices", "nobody", code=2)


def test_a_folder_in_place_of_a_picture_is_refused_before_anything_is_measured(
    panel: Any, good: Path, tmp_path: Path, said: Any
) -> None:
    panel()
    (tmp_path / "folder.png").mkdir()

    said_so = said("evaluate", good, "--devices", "panel", "-o", tmp_path / "folder.png", code=2)

    assert "is a folder: name a file" in said_so


@pytest.fixture
def bad_files(
    workspace: Workspace, good: Path, tflite_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in the current folder that are no classifiers of grey images in two classes."""
    monkeypatch.setenv("GENBA_WORKSPACE", str(workspace.root))
    monkeypatch.chdir(good.parent)
    five = onnx.load(good)
    five.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((1, 5), np.float32), "weight")
    )
    five.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(five, "five.onnx")
    signal = onnx.load(good)
    signal.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(signal, "signal.onnx")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("good.onnx",), "--devices A,B"),
        (("good.onnx", "--devices", "nobody"), "nobody"),
        (("good.onnx", "--devices", "panel,"), "write it as --devices a,b"),
        (("none.onnx", "--devices", "panel"), "none.onnx"),
        (("good.onnx", "--study", "nothing"), "no study is named 'nothing'"),
        (("good.onnx", "--study", "housings", "--devices", "press"), "it has panel"),
        (("good.onnx", "--devices", "panel", "--data", "nowhere"), "nowhere"),
        (("good.onnx", "--devices", "panel", "--mean", "0.5"), "belong together"),
        (("good.onnx", "--devices", "panel", "--mean", "a", "--std", "1"), "--mean a"),
        (("good.onnx", "--devices", "panel", "--labels", "none.txt"), "none.txt"),
        (("good.onnx", "--devices", "panel", "-o", "a.pdf"), ".png"),
        (("five.onnx", "--devices", "panel", "--data", "PHOTOS"), "5 numbers"),
        (("signal.onnx", "--devices", "panel", "--data", "PHOTOS"), "channels"),
        (("model.tflite", "--study", "housings"), "no file runs on any of these devices"),
    ],
)
@pytest.mark.usefixtures("bad_files")
def test_what_cannot_be_evaluated_is_one_sentence_and_ends_with_2(
    enrol: Any,
    study: str,
    photos: Path,
    arguments: tuple[str, ...],
    why: str,
    said: Any,
) -> None:
    enrol("panel")
    command = [str(photos) if part == "PHOTOS" else part for part in arguments]

    assert why in said("evaluate", *command, code=2)
