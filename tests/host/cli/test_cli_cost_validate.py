"""`genba cost validate`: predicted first, then measured; what counts, and what follows."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.onnx_graph import kernels_from_onnx
from host.calibration.setting import Setting
from host.calibration.specimens import FORMS, mobile_candidates
from host.device import Device
from host.job import Job
from host.measurement import Measurement, MeasureSpec, Reason, Verdict
from host.store import Store
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.cli.conftest import Answer, MadeUpDevice

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)
REJECTED = Verdict("REJECT", (Reason("THROTTLED", "REJECT", "The CPU was slowed down."),))


@pytest.fixture
def measured_by_kernels(
    plant_store: Store, make_measurement: Callable[..., Measurement], nominal: Any
) -> Callable[..., Callable[[Job], Measurement]]:
    """Answers with what the kernels of a model cost; `slowness` is what the models do not know."""

    def device(
        slowness: float = 1.0, verdict: Callable[[Job], Verdict] = lambda _: Verdict("OK")
    ) -> Callable[[Job], Measurement]:
        def answer(job: Job) -> Measurement:
            assert isinstance(job.spec, MeasureSpec)
            graph = kernels_from_onnx(plant_store.blobs.path(job.spec.run.model_sha256))
            seconds = slowness * nominal(LatencyModel(), graph)
            made = make_measurement(
                job.device_id, job.spec.run.model_sha256, seconds, verdict=verdict(job), energies=()
            )
            peak = round(nominal(PeakMemoryModel(), graph))
            memory = replace(made.processes[0].memory, peak_rss_bytes=peak)
            processes = (replace(made.processes[0], memory=memory),)
            return replace(made, run=job.spec.run, plan=job.spec.plan, processes=processes)

        return answer

    return device


@pytest.fixture
def validating(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    plant_store: Store,
    fit_models: Any,
    measured_by_kernels: Callable[..., Callable[[Job], Measurement]],
) -> "Callable[..., MadeUpDevice]":
    """A calibrated device named kiosk that measures."""

    def start(**changes: Any) -> "MadeUpDevice":
        device = start_device("kiosk", measured_by_kernels(**changes))
        fit_models(plant_store, plant_store.devices.by_name("kiosk").id, ONE)
        return device

    return start


def test_intervals_that_hold_are_said_to_hold(
    validating: "Callable[..., MadeUpDevice]", said: Any
) -> None:
    device = validating()

    output = said("cost", "validate", "kiosk", "--count", 8)

    assert len(device.done) == 8
    assert "Latency on kiosk, onnxruntime 1.23.2, 1 thread: predicted, then measured" in output
    assert "8 models: median error" in output
    assert "of 8, expected 5 to 8" in output
    assert "The intervals hold: what is predicted for kiosk can be relied on." in output


def test_a_device_that_is_slower_than_its_models_is_to_be_calibrated_again(
    validating: "Callable[..., MadeUpDevice]", said: Any
) -> None:
    validating(slowness=2.0)

    message = said("cost", "validate", "kiosk", "--count", 6, code=1)

    assert "the intervals of latency do not hold: calibrate again" in message
    assert "`genba device calibrate kiosk`" in message


def test_validate_for_programs_keeps_predicted_and_measured_apart(
    validating: "Callable[..., MadeUpDevice]", loaded: Any
) -> None:
    validating()

    found = loaded("cost", "validate", "kiosk", "--count", 6)

    latency = found["quantities"]["latency_seconds"]
    assert found["holds"] is True
    assert latency["summary"]["n"] == len(latency["models"]) == 6
    for row in latency["models"]:
        error = (row["predicted"] - row["measured"]) / row["measured"]
        assert row["error"] == pytest.approx(error)
        high = math.inf if row["predicted_high"] is None else row["predicted_high"]
        inside = row["predicted_low"] <= row["measured"] <= high
        assert row["inside"] is (None if math.isinf(high) else inside)


def test_what_the_verdict_rejects_does_not_count_and_is_named(
    validating: "Callable[..., MadeUpDevice]", loaded: Any
) -> None:
    rejected: set[str] = set()

    def verdict(job: Job) -> Verdict:
        if not rejected:
            rejected.add(job.label)
        return REJECTED if job.label in rejected else Verdict("OK")

    validating(verdict=verdict)

    found = loaded("cost", "validate", "kiosk", "--count", 6)

    (left_out,) = found["left_out"]
    assert {left_out["model"]} == rejected
    assert "The CPU was slowed down." in left_out["because"]
    models = found["quantities"]["latency_seconds"]["models"]
    assert rejected.isdisjoint(row["model"] for row in models)
    assert len(models) == 5


def test_the_same_again_is_shown_at_once_and_another_seed_measures(
    validating: "Callable[..., MadeUpDevice]", loaded: Any
) -> None:
    device = validating()
    command = ("cost", "validate", "kiosk", "--count", 6)

    first = loaded(*command)
    second = loaded(*command)
    known = len(device.done)
    loaded(*command, "--seed", 2)

    assert first == second
    assert known == 6
    assert len(device.done) == 12


def test_own_files_are_measured_and_those_that_a_model_knows_are_refused(
    validating: "Callable[..., MadeUpDevice]", mobile: Path, tmp_path: Path, said: Any, loaded: Any
) -> None:
    device = validating()
    known = tmp_path / "known.onnx"
    known.write_bytes(mobile_candidates(6, seed=5)[0].model_bytes())

    found = loaded("cost", "validate", "kiosk", mobile)
    message = said("cost", "validate", "kiosk", known, code=2)

    (row,) = found["quantities"]["latency_seconds"]["models"]
    assert row["model"] == "mobile.onnx"
    assert found["holds"] is None
    assert "too few" in found["verdict"]
    assert "fitted on known.onnx" in message
    assert len(device.done) == 1


def test_validate_draws_a_picture(
    validating: "Callable[..., MadeUpDevice]", tmp_path: Path, said: Any
) -> None:
    validating()
    picture = tmp_path / "validation.png"

    said("cost", "validate", "kiosk", "--count", 5, "-o", picture)

    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("nobody",), "nobody"),
        (("kiosk", "--count", "0"), "nothing to validate with"),
        (("kiosk", "--threads", "2"), "genba device calibrate kiosk --threads 2"),
        (("kiosk", "--runtime", "tflite"), "genba device calibrate kiosk --runtime tflite"),
        (("kiosk", "--energy"), "calibrate with --energy"),
        (("kiosk", "absent.onnx"), "cannot be read"),
        (("kiosk", "-o", "no/folder/a.png"), "no folder"),
        (("kiosk", "-o", "folder.png"), "is a folder"),
        (("kiosk", "both.onnx", "both.tflite"), "different runtimes"),
        (("kiosk", "both.onnx", "--runtime", "tflite"), "not a TFLite file"),
        (("kiosk", "both.tflite"), "genba device calibrate kiosk --runtime tflite"),
        (("kiosk", "--count", "-1"), "count"),
    ],
)
def test_what_cannot_be_validated_is_a_sentence_and_asks_nothing_of_the_device(
    kiosk: Device,
    plant_store: Store,
    workspace: Workspace,
    arguments: tuple[str, ...],
    why: str,
    said: Any,
) -> None:
    (workspace.root / "folder.png").mkdir()
    for form in FORMS:
        (candidate,) = mobile_candidates(1, 99, form)
        (workspace.root / f"both.{form}").write_bytes(candidate.model_bytes())

    assert why in said("cost", "validate", *arguments, code=2)
    assert plant_store.jobs.waiting(kiosk.id) == 0


def test_nothing_within_the_time_stays_queued(
    kiosk: Device, served: Workspace, plant_store: Store, said: Any
) -> None:
    command = ("cost", "validate", "kiosk", "--count", 5, "--timeout", 0.2)

    assert "5 jobs stay queued" in said(*command, code=1)
    assert plant_store.jobs.waiting(kiosk.id) == 5
