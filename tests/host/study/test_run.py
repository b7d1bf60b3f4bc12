"""A whole study, from photos to bundles, against devices that answer at once."""

import json
import shutil
import threading
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from host.calibration.setting import Setting
from host.calibration.stored import load
from host.config import StudyConfig
from host.errors import UsageError
from host.export.signing import signing_key
from host.export.verification import verify_bundle
from host.network.torch_module import build_module
from host.spaces.base import Task
from host.spaces.mobile import Mobile
from host.spaces.refine import LUXURIES, Price
from host.study.finalist import FinalistResult, FormResult
from host.study.finalists import choose
from host.study.front import FRONT
from host.study.report import Reporter
from host.study.run import (
    OtherConfigurationError,
    OtherDataError,
    StudyRunsError,
    run_study,
)
from host.study.shipping import NothingToShipError, bundle_contents, shippable, write_bundles
from host.study.stored import (
    DATA,
    NoFrontError,
    OtherVersionError,
    require_result,
    stored_facts,
    stored_result,
)


def form_of(finalist: FinalistResult, name: str) -> FormResult:
    return next(form for form in finalist.forms if form.form == name)


class StopsAt:
    """Raises KeyboardInterrupt at the n-th event, as Ctrl-C would."""

    def __init__(self, event: int) -> None:
        self._left = event

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt

    def stage(self, name: str) -> None:
        self._count()

    def progress(self, what: str, done: int, total: int) -> None:
        self._count()

    def say(self, text: str) -> None:
        self._count()

    def found(self, kind: str, facts: Mapping[str, object], text: str) -> None:
        self._count()


class AtStage:
    """Does something when a stage begins; otherwise as the reporter that it is given."""

    def __init__(self, reporter: Reporter, at_stage: Callable[[str], None]) -> None:
        self._reporter = reporter
        self._at_stage = at_stage
        self.progress = reporter.progress
        self.say = reporter.say
        self.found = reporter.found

    def stage(self, name: str) -> None:
        self._reporter.stage(name)
        self._at_stage(name)


def stop_after_data(name: str) -> None:
    if name == "calibrate":
        raise KeyboardInterrupt


def run(config, store, tmp_path, reporter):
    (tmp_path / "pki").mkdir(exist_ok=True)
    return run_study(config, store=store, workspace=tmp_path, reporter=reporter)


@pytest.fixture
def result(store, made_up_device, study_config, recorder, tmp_path):
    made_up_device()
    return run(study_config, store, tmp_path, recorder)


def test_a_study_ends_with_a_front_and_trained_finalists_in_bundles(result, store, recorder):
    study = store.studies.by_name("stripes")

    assert recorder.stages == ["data", "calibrate", "search", "front", "training", "finalists"]
    assert study.finished_at is not None
    assert len(result.finalists) == 2
    for finalist in result.finalists:
        (bundle,) = finalist.bundles
        verified = verify_bundle(Path(bundle.path))
        assert verified.problems == ()
        assert verified.signer is not None
        assert (bundle.device_class, bundle.devices) == ("x86_64-onnx", ["panel"])
        assert [form.form for form in finalist.forms] == ["onnx-fp32", "onnx-int8"]
        assert form_of(finalist, "onnx-int8").size_bytes < form_of(finalist, "onnx-fp32").size_bytes
        assert form_of(finalist, "onnx-fp32").accuracy.n == 12
    assert stored_result(store, study) == result


def test_its_cost_models_are_kept_in_the_setting_of_the_device_with_what_they_learned_from(
    result, store
):
    device = store.devices.by_name("panel")
    setting = Setting("onnx", "onnxruntime", "1.23.2", 1)

    latency = load(store, device.id, setting, LatencyModel)
    memory = load(store, device.id, setting, PeakMemoryModel)

    assert latency is not None
    assert memory is not None
    assert latency.origin == memory.origin == "study stripes"
    assert latency.examples == memory.examples
    assert len(latency.examples) == latency.model.n >= 10
    for example, seconds in zip(latency.examples, latency.model.measured_values, strict=True):
        measured = store.measurements.get(example.measurement).measurement
        assert measured.model_sha256 == example.model_sha256
        assert measured.latency_seconds == pytest.approx(seconds)


@pytest.mark.slow
def test_a_study_in_the_space_of_nasbench201_ends_in_a_bundle(
    store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    table = study_table | {
        "devices": [{"name": "panel", "max_latency_ms": 4.0}],
        "space": {"name": "nasbench201", "resolution": 16},
        "search": {"proxies": ["flops"], "batch_size": 8, "population": 12},
        "finalists": {"count": 1, "epochs": 1, "batch_size": 16},
    }

    result = run(StudyConfig.model_validate(table), store, tmp_path, recorder)

    (finalist,) = result.finalists
    assert finalist.text.startswith("|")
    assert verify_bundle(Path(finalist.bundles[0].path)).problems == ()


def test_the_shipped_files_say_what_they_are_and_run_in_plain_onnxruntime(result):
    finalist = result.finalists[0]
    with zipfile.ZipFile(finalist.bundles[0].path) as bundle:
        names = [name for name in bundle.namelist() if name.endswith(".onnx")]
        models = [bundle.read(name) for name in names]

    assert len(models) == 2
    for model in models:
        properties = {p.key: p.value for p in onnx.load_from_string(model).metadata_props}
        assert properties["classes"] == "good\nstriped"
        assert "panel: latency" in properties["measured"]
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        shape = session.get_inputs()[0].shape
        (logits,) = session.run(None, {"input": np.zeros(shape, np.float32)})
        assert logits.shape == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.95])
def test_a_study_that_is_stopped_anywhere_ends_as_if_it_had_not_been(
    share, store, made_up_device, study_config, recorder, tmp_path, result
):
    device = made_up_device("other")
    table = study_config.model_dump() | {"name": "stopped"}
    table["devices"][0]["name"] = "other"
    config = StudyConfig.model_validate(table)

    with pytest.raises(KeyboardInterrupt):
        run(config, store, tmp_path, StopsAt(1 + int(share * recorder.events)))
    again = run(config, store, tmp_path, recorder)

    assert [row.key for row in again.front.rows] == [row.key for row in result.front.rows]
    assert [f.forms[0].accuracy for f in again.finalists] == [
        f.forms[0].accuracy for f in result.finalists
    ]
    assert len(device.measured) == len(set(device.measured))


def test_a_finished_study_runs_again_from_what_is_stored(
    result, store, made_up_device, study_config, recorder, tmp_path
):
    again = run(study_config, store, tmp_path, recorder)

    assert again == result


def test_the_same_name_with_another_configuration_is_refused(
    result, store, study_table, recorder, tmp_path
):
    changed = StudyConfig.model_validate(study_table | {"seed": 4})

    with pytest.raises(OtherConfigurationError, match="seed: 3, now 4"):
        run(changed, store, tmp_path, recorder)


def test_a_study_that_runs_already_is_not_run_twice(
    store, made_up_device, study_config, recorder, tmp_path
):
    made_up_device()

    def run_again(name: str) -> None:
        if name == "calibrate":
            with pytest.raises(StudyRunsError, match="'stripes' is running"):
                run(study_config, store, tmp_path, recorder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study_config, store, tmp_path, AtStage(recorder, run_again))


def test_why_a_study_failed_is_kept(store, made_up_device, study_table, recorder, tmp_path):
    made_up_device()
    table = study_table | {"devices": [{"name": "panel", "max_latency_ms": 0.01}]}

    with pytest.raises(Exception, match="no candidate meets all limits"):
        run(StudyConfig.model_validate(table), store, tmp_path, recorder)

    because = store.studies.by_name("stripes").failed_because
    assert because is not None
    assert "max_latency_ms = 0.01 on panel" in because


def test_an_unreadable_image_is_named_and_the_rest_goes_on(
    store, made_up_device, study_table, image_folder, recorder, tmp_path
):
    made_up_device()
    broken = tmp_path / "images"
    for image in image_folder.rglob("*.png"):
        copy = broken / image.relative_to(image_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(image.read_bytes())
    (broken / "good" / "torn.png").write_bytes(b"\x89PNG but no picture")
    config = StudyConfig.model_validate(study_table | {"data": {"folder": str(broken)}})

    with pytest.raises(KeyboardInterrupt):
        run(config, store, tmp_path, AtStage(recorder, stop_after_data))

    assert any("good/torn.png" in said for said in recorder.said)


def test_a_study_whose_images_have_changed_is_not_continued(
    store, made_up_device, study_table, image_folder, recorder, tmp_path
):
    made_up_device()
    images = tmp_path / "images"
    shutil.copytree(image_folder, images)
    config = StudyConfig.model_validate(study_table | {"data": {"folder": str(images)}})
    with pytest.raises(KeyboardInterrupt):
        run(config, store, tmp_path, AtStage(recorder, stop_after_data))
    (images / "good" / "000.png").unlink()

    with pytest.raises(OtherDataError, match="have changed since the study 'stripes' began"):
        run(config, store, tmp_path, recorder)


@pytest.mark.parametrize("folder", ["missing", "empty", "one class"])
def test_a_folder_that_cannot_be_trained_on_is_refused(
    folder, store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    root = tmp_path / folder
    if folder != "missing":
        root.mkdir()
    if folder == "one class":
        (root / "good").mkdir()
    config = StudyConfig.model_validate(study_table | {"data": {"folder": str(root)}})

    with pytest.raises(UsageError, match=str(root)):
        run(config, store, tmp_path, recorder)


def test_finalists_are_spread_over_the_front():
    assert choose(list("abcdefg"), 3) == ["a", "d", "g"]
    assert choose(list("ab"), 5) == ["a", "b"]
    assert choose(list("abc"), 1) == ["a"]


def test_a_device_that_cannot_run_int8_gets_fp32(
    store, made_up_device, study_config, recorder, tmp_path
):
    device = made_up_device(start=False)

    def refuse_int8(lease):
        model = onnx.load_from_string(store.blobs.get(lease.job.spec.run.model_sha256))
        quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        return "no such operator" if quantised else None

    device.refuse = refuse_int8
    device.start()

    result = run(study_config, store, tmp_path, recorder)

    for finalist in result.finalists:
        assert [(c.form, c.because) for c in finalist.choices] == [
            ("onnx-fp32", "int8 does not run here")
        ]
    assert any("could not measure the onnx-int8 form" in said for said in recorder.said)


def test_the_manifest_holds_scores_predictions_measurements_and_accuracies(result):
    with zipfile.ZipFile(result.finalists[0].bundles[0].path) as bundle:
        manifest = json.loads(bundle.read("manifest.json"))

    text = json.dumps(manifest)
    for word in ("jacob_cov", "latency_seconds", "auroc", "onnxruntime", "data_fingerprint"):
        assert word in text, word


def test_a_device_whose_int8_kernels_saturate_gets_fp32(
    store, made_up_device, study_config, recorder, tmp_path
):
    made_up_device().saturates = True

    result = run(study_config, store, tmp_path, recorder)

    for finalist in result.finalists:
        assert [choice.form for choice in finalist.choices] == ["onnx-fp32"]
        (device,) = form_of(finalist, "onnx-int8").devices
        assert device.agreement is not None
        assert device.agreement < 0.5


def test_a_finalist_whose_figures_are_rejected_says_so(
    store, made_up_device, study_config, recorder, tmp_path
):
    made_up_device().reject = lambda lease: lease.job.purpose.startswith("finalist")

    result = run(study_config, store, tmp_path, recorder)

    assert result.finalists
    assert any("are not to be trusted (other programs were busy)" in s for s in recorder.said)
    (device,) = form_of(result.finalists[0], "onnx-fp32").devices
    assert device.verdict == "REJECT"


def test_every_class_of_devices_gets_a_bundle_of_its_runtime_that_meets_its_limits(
    store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    lite = {"name": "lite", "device": "panel", "runtime": "tflite", "max_latency_ms": 2.0}
    config = StudyConfig.model_validate(
        study_table
        | {
            "devices": [{"name": "panel"}, lite],
            "data": study_table["data"] | {"defect_class": "striped", "cost_of_miss": 5},
            "finalists": {"count": 1, "epochs": 2, "batch_size": 16},
        }
    )

    result = run(config, store, tmp_path, recorder)

    (finalist,) = result.finalists
    assert {"onnx-fp32", "tflite-fp32"} <= {form.form for form in finalist.forms}
    assert [(bundle.device_class, bundle.devices) for bundle in finalist.bundles] == [
        ("x86_64-onnx", ["panel"]),
        ("x86_64-tflite", ["lite"]),
    ]
    for bundle in finalist.bundles:
        assert verify_bundle(Path(bundle.path)).problems == ()
    for form in finalist.forms:
        assert form.largest_difference < 1.0
        (device,) = form.devices
        assert device.agreement is not None
        inspection = form.inspection
        assert inspection is not None
        (good, alarms), (missed, found) = inspection.confusion
        assert good + alarms + missed + found == form.accuracy.n
        assert inspection.cost_per_sample == pytest.approx((5 * missed + alarms) / form.accuracy.n)
    assert shippable(store, "stripes") == [
        (finalist.key, "x86_64-onnx"),
        (finalist.key, "x86_64-tflite"),
    ]


def test_a_profile_of_ncnn_gets_its_candidates_and_its_bundle_as_ncnn_files(
    store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    config = StudyConfig.model_validate(
        study_table
        | {
            "devices": [{"name": "panel", "runtime": "ncnn"}],
            "finalists": {"count": 1, "epochs": 2, "batch_size": 16},
        }
    )

    result = run(config, store, tmp_path, recorder)

    (finalist,) = result.finalists
    assert [form.form for form in finalist.forms] == ["ncnn-fp32"]
    assert [bundle.device_class for bundle in finalist.bundles] == ["x86_64-ncnn"]
    assert verify_bundle(Path(finalist.bundles[0].path)).problems == ()
    assert sum("ncnn int8 is not offered" in said for said in recorder.said) == 1
    (measured,) = finalist.forms[0].devices
    assert measured.agreement is not None


def test_a_bundle_is_written_again_byte_for_byte_from_what_the_store_holds(result, store, tmp_path):
    finalist = result.finalists[0]
    (before,) = finalist.bundles
    key = signing_key(tmp_path / "pki")

    (again,) = write_bundles(store, "stripes", finalist.key, tmp_path / "again", key)

    assert Path(again.path).read_bytes() == Path(before.path).read_bytes()


def test_what_cannot_be_shipped_is_named(result, store):
    with pytest.raises(NothingToShipError, match="has no finalist nosuch"):
        bundle_contents(store, "stripes", "nosuch", "x86_64-onnx")
    with pytest.raises(NothingToShipError, match="class armv7l-tflite: it has x86_64-onnx"):
        bundle_contents(store, "stripes", result.finalists[0].key, "armv7l-tflite")


def test_candidates_are_halved_and_the_score_is_held_against_what_they_learned(result):
    trials = result.trials

    assert trials is not None
    assert len(trials.trials) >= len(result.finalists)
    assert {t.key for t in trials.trials if t.finalist} == {f.key for f in result.finalists}
    dropped = [trial for trial in trials.trials if not trial.finalist]
    assert all(trial.rounds[-1][0] < 2 for trial in dropped)
    if len(trials.trials) > 1 and trials.agreement is not None:
        assert trials.agreement.n == len(trials.trials)
        assert -1 <= trials.agreement.kendall <= 1


def test_a_budget_of_epochs_is_kept_and_shown(
    store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    config = StudyConfig.model_validate(
        study_table | {"budget": study_table["budget"] | {"epochs": 3}}
    )

    result = run(config, store, tmp_path, recorder)

    spent = {line.what: line for line in result.front.spent}
    assert spent["epochs"].allowed == 3
    assert 2 <= spent["epochs"].spent <= 3
    assert spent["device minutes"].spent > 0
    assert spent["candidates"].spent <= config.budget.candidates
    assert len(result.finalists) == 1


@pytest.mark.slow
def test_a_smaller_finalist_learns_from_the_best_one_and_from_weights_that_are_there(
    store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    first = run(StudyConfig.model_validate(study_table), store, tmp_path, recorder)
    space = Mobile()
    task = Task(channels=1, classes=2)
    network = space.build(space.parse(first.finalists[0].text), task)
    weights = tmp_path / "weights.pt"
    torch.save(build_module(network, seed=1).state_dict(), weights)
    table = study_table | {
        "name": "taught",
        "finalists": study_table["finalists"] | {"distillation": True, "weights": str(weights)},
    }

    result = run(StudyConfig.model_validate(table), store, tmp_path, recorder)

    assert any("training starts from weights.pt" in said for said in recorder.said)
    taught = [finalist for finalist in result.finalists if finalist.taught_by is not None]
    assert all(finalist.taught_by == result.finalists[0].key for finalist in taught)


def test_a_study_of_signals_ends_in_bundles_too(
    store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    rng = np.random.default_rng(0)
    for name, pitch in (("sound", 9), ("worn", 31)):
        (tmp_path / "signals" / name).mkdir(parents=True)
        for number in range(12):
            wave = np.sin(np.arange(1200) / pitch + rng.uniform(0, 6)) + rng.normal(0, 0.3, 1200)
            file = tmp_path / "signals" / name / f"{number:02}.csv"
            file.write_text("x\n" + "\n".join(f"{value:.4f}" for value in wave))
    table = study_table | {
        "data": {"folder": str(tmp_path / "signals"), "kind": "signals", "window": 300},
        "devices": [{"name": "panel"}],
        "space": {"name": "conv1d", "restrict": {"width": [4, 8], "depth": [1]}},
        "finalists": {"count": 1, "trials": 1, "epochs": 1, "batch_size": 16},
    }

    result = run(StudyConfig.model_validate(table), store, tmp_path, recorder)

    (finalist,) = result.finalists
    assert finalist.text.startswith("l256 ")
    with zipfile.ZipFile(finalist.bundles[0].path) as bundle:
        preprocessing = json.loads(bundle.read("preprocessing.json"))
    assert (preprocessing["channels"], preprocessing["length"]) == (1, 256)


def test_a_device_that_was_calibrated_narrows_the_space_and_the_study_keeps_to_it(
    result, store, made_up_device, study_table, recorder, tmp_path, monkeypatch
):
    dear = Price(LUXURIES[0], "panel", 1.6)
    monkeypatch.setattr(Price, "of", lambda luxury, *_: dear if luxury is LUXURIES[0] else None)
    config = StudyConfig.model_validate(study_table | {"name": "second"})

    again = run(config, store, tmp_path, recorder)

    assert any("squeeze-and-excite is left out: it costs 60 %" in said for said in recorder.said)
    assert all("se" not in row.text.split("head")[1] for row in again.front.rows)
    monkeypatch.setattr(Price, "of", lambda *_: None)
    assert run(config, store, tmp_path, recorder) == again


def test_a_device_that_is_lost_ends_no_study_and_is_measured_when_it_is_back(
    store, made_up_device, study_table, recorder, tmp_path, monkeypatch
):
    made_up_device()
    slow = made_up_device("slow", speed=0.5, start=False)
    is_gone = threading.Event()

    def dies_after_the_search(lease):
        if lease.job.purpose.startswith("finalist"):
            is_gone.set()
            slow.stop_soon()
        return False

    slow.reject = dies_after_the_search
    monkeypatch.setattr(
        store.devices,
        "offline",
        lambda ids: [slow.device] if is_gone.is_set() and slow.device.id in set(ids) else [],
    )
    slow.start()
    config = StudyConfig.model_validate(
        study_table
        | {
            "devices": [{"name": "panel", "max_latency_ms": 2.0}, {"name": "slow"}],
            "measuring": {"offline_minutes": 0.005},
            "finalists": {"count": 1, "epochs": 1, "batch_size": 16},
        }
    )

    result = run(config, store, tmp_path, recorder)

    (finalist,) = result.finalists
    assert any("slow has been offline" in said for said in recorder.said)
    choices = {choice.device: choice for choice in finalist.choices}
    assert choices["panel"].within_limits
    assert "offline for too long" in choices["slow"].because
    assert [bundle.devices for bundle in finalist.bundles] == [["panel"]]

    is_gone.clear()
    slow.come_back()
    again = run(config, store, tmp_path, recorder)

    (finalist,) = again.finalists
    assert [bundle.devices for bundle in finalist.bundles] == [["panel", "slow"]]


def test_a_budget_too_small_for_one_finalist_says_so(
    store, made_up_device, study_table, recorder, tmp_path
):
    made_up_device()
    config = StudyConfig.model_validate(
        study_table | {"budget": study_table["budget"] | {"epochs": 1}}
    )

    with pytest.raises(UsageError, match="a budget of 1 epochs is too small for one finalist"):
        run(config, store, tmp_path, recorder)


def test_results_of_another_version_are_a_sentence(result, store):
    study = store.studies.by_name("stripes")
    text = store.studies.result(study.id, FRONT)
    store.studies.put_result(study.id, FRONT, text.replace("genba-front/2", "genba-front/1"))

    with pytest.raises(OtherVersionError, match="written by another version of genba"):
        stored_result(store, study)


def test_facts_of_the_data_of_another_version_are_a_sentence(result, store):
    study = store.studies.by_name("stripes")
    store.studies.put_result(study.id, DATA, '{"pictures": 3}')

    with pytest.raises(OtherVersionError, match="written by another version of genba"):
        stored_facts(store, study)


def test_a_study_without_a_front_says_how_to_go_on(store):
    study = store.studies.create("young", "{}", 0)

    with pytest.raises(NoFrontError, match="genba search resume young"):
        require_result(store, study)


@pytest.mark.slow
def test_two_studies_share_a_device_and_what_both_ask_for_is_measured_once(
    store, made_up_device, study_table, recorder, tmp_path
):
    device = made_up_device()
    (tmp_path / "pki").mkdir()
    short = {"finalists": {"count": 1, "epochs": 1, "batch_size": 16}}
    configs = [
        StudyConfig.model_validate(study_table | short | {"name": name})
        for name in ("first", "second")
    ]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda c: run(c, store, tmp_path, recorder), configs)

    assert [row.key for row in first.front.rows] == [row.key for row in second.front.rows]
    assert {finalist.key for finalist in first.finalists}
    searched = [job for job in device.jobs if job.purpose == "search"]
    assert len(searched) == len({job.spec.run.model_sha256 for job in searched})
