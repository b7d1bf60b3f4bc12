"""A whole study, from photos to bundles, against devices that answer at once."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from host.calibration.setting import Setting
from host.calibration.stored import load
from host.config import StudyConfig
from host.errors import UsageError
from host.export.bundle import verify_bundle
from host.study.finalist import Form, FormResult, Score
from host.study.finalists import choose, gate
from host.study.front import OnDevice
from host.study.report import Reporter
from host.study.run import (
    OtherConfigurationError,
    OtherImagesError,
    StudyRunsError,
    run_study,
    stored_result,
)


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


class AtStage:
    """Does something when a stage begins; otherwise as the reporter that it is given."""

    def __init__(self, reporter: Reporter, at_stage: Callable[[str], None]) -> None:
        self._reporter = reporter
        self._at_stage = at_stage
        self.progress = reporter.progress
        self.say = reporter.say

    def stage(self, name: str) -> None:
        self._reporter.stage(name)
        self._at_stage(name)


def stop_after_data(name: str) -> None:
    if name == "calibrate":
        raise KeyboardInterrupt


def run(config, store, tmp_path, reporter):
    return run_study(config, store=store, workspace=tmp_path, reporter=reporter)


@pytest.fixture
def result(store, made_up_device, study_config, recorder, tmp_path):
    made_up_device()
    return run(study_config, store, tmp_path, recorder)


def test_a_study_ends_with_a_front_and_trained_finalists_in_bundles(result, store, recorder):
    study = store.studies.by_name("stripes")

    assert recorder.stages == ["data", "calibrate", "search", "front", "finalists"]
    assert study.finished_at is not None
    assert len(result.finalists) == 2
    for finalist in result.finalists:
        assert verify_bundle(Path(finalist.bundle)) == ()
        assert [form.form for form in finalist.forms] == ["fp32", "int8"]
        assert finalist.form("int8").size_bytes < finalist.form("fp32").size_bytes
        assert finalist.form("fp32").accuracy.n == 12
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
    assert verify_bundle(Path(finalist.bundle)) == ()


def test_the_shipped_files_say_what_they_are_and_run_in_plain_onnxruntime(result):
    finalist = result.finalists[0]
    with zipfile.ZipFile(finalist.bundle) as bundle:
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

    with pytest.raises(OtherImagesError, match="have changed since the study 'stripes' began"):
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


def figures(latency: float) -> OnDevice:
    return OnDevice(
        device="panel",
        runtime="onnxruntime 1.23.2",
        predicted_latency_seconds=None,
        predicted_peak_rss_bytes=None,
        latency_seconds=latency,
        latency_low_seconds=0.98 * latency,
        latency_high_seconds=1.02 * latency,
        samples=30,
        peak_rss_bytes=1,
        power_watts=None,
        energy_per_inference_joules=None,
        power_source=None,
        power_absent_because="none",
        verdict="OK",
        agreement=1.0,
    )


def form(name: str, quality: float) -> FormResult:
    score = Score(value=quality, low=0, high=1, n=100)
    return FormResult(
        form=name,
        sha256="",
        size_bytes=1,
        accuracy=score,
        balanced_accuracy=quality,
        auroc=score,
        validation_quality=quality,
        devices=[],
    )


@pytest.mark.parametrize(
    ("int8_latency", "int8_quality", "chosen", "reason"),
    [
        (0.5, 0.90, "int8", "2.00 times as fast"),
        (0.5, 0.80, "fp32", "loses 0.100 in quality"),
        (2.0, 0.95, "fp32", "no gain"),
        (0.99, 0.95, "fp32", "no gain"),
    ],
    ids=["faster and as good", "faster but worse", "slower", "faster within the noise"],
)
def test_int8_ships_only_where_it_is_faster_and_good_enough(
    int8_latency, int8_quality, chosen, reason
):
    forms = [form("fp32", 0.90), form("int8", int8_quality)]

    measured: dict[Form, OnDevice] = {"fp32": figures(1.0), "int8": figures(int8_latency)}
    name, because = gate(forms, measured, {"fp32": True, "int8": True}, 0.02)

    assert name == chosen
    assert reason in because


@pytest.mark.parametrize(
    ("within", "chosen"),
    [({"fp32": True, "int8": False}, "fp32"), ({"fp32": False, "int8": True}, "int8")],
)
def test_the_form_that_alone_is_within_the_limits_ships(within, chosen):
    forms = [form("fp32", 0.90), form("int8", 0.90)]
    latency: dict[Form, float] = (
        {"fp32": 0.5, "int8": 1.0} if chosen == "int8" else {"fp32": 1.0, "int8": 0.5}
    )

    name, because = gate(forms, {n: figures(s) for n, s in latency.items()}, within, 0.02)

    assert name == chosen
    assert f"only {chosen} is within the limits" in because


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
            ("fp32", "int8 does not run here")
        ]
    assert any("could not measure the int8 form" in said for said in recorder.said)


def test_the_manifest_holds_scores_predictions_measurements_and_accuracies(result):
    with zipfile.ZipFile(result.finalists[0].bundle) as bundle:
        manifest = json.loads(bundle.read("manifest.json"))

    text = json.dumps(manifest)
    for word in ("jacob_cov", "latency_seconds", "auroc", "onnxruntime", "data_fingerprint"):
        assert word in text, word


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"agreement": None}, "could not be checked"),
        ({"agreement": 0.8}, "on 80% of the images only"),
        ({"verdict": "REJECT"}, "cannot be compared"),
        ({"latency_kind": "derived"}, "cannot be compared"),
    ],
    ids=["unchecked", "other answers", "rejected", "another kind of figure"],
)
def test_int8_that_cannot_be_trusted_on_the_device_is_not_shipped(changes, reason):
    forms = [form("fp32", 0.90), form("int8", 0.90)]
    int8 = figures(0.5).model_copy(update=changes)
    measured: dict[Form, OnDevice] = {"fp32": figures(1.0), "int8": int8}

    name, because = gate(forms, measured, {"fp32": True, "int8": True}, 0.02)

    assert name == "fp32"
    assert reason in because


def test_a_device_whose_int8_kernels_saturate_gets_fp32(
    store, made_up_device, study_config, recorder, tmp_path
):
    made_up_device().saturates = True

    result = run(study_config, store, tmp_path, recorder)

    for finalist in result.finalists:
        assert [choice.form for choice in finalist.choices] == ["fp32"]
        (device,) = finalist.form("int8").devices
        assert device.agreement is not None
        assert device.agreement < 0.5


def test_a_finalist_whose_figures_are_rejected_says_so(
    store, made_up_device, study_config, recorder, tmp_path
):
    made_up_device().reject = lambda lease: lease.job.purpose.startswith("finalist")

    result = run(study_config, store, tmp_path, recorder)

    assert result.finalists
    assert any("are not to be trusted (other programs were busy)" in s for s in recorder.said)
    (device,) = result.finalists[0].form("fp32").devices
    assert device.verdict == "REJECT"
