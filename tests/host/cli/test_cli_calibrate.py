"""`genba device calibrate`: what it measures, what it prints and keeps, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.onnx_graph import kernels_from_onnx
from cost_models.tflite_graph import kernels_from_tflite
from host.__main__ import main
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.calibration.stored import load
from host.device import Device
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
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.cli.conftest import Answer, MadeUpDevice

Start = Callable[[str, "Answer"], "MadeUpDevice"]
SETTING = Setting("onnx", "onnxruntime", "1.23.2", 1)
REJECTED = Verdict("REJECT", (Reason("THROTTLED", "REJECT", "The CPU was slowed down."),))
COMMAND = ("device", "calibrate", "kiosk", "--measurements", "12")


def networks(device: "MadeUpDevice") -> list[Job]:
    """What it measured to fit on; sentinels are measured besides."""
    return [job for job in device.done if not job.label.startswith("sentinel ")]


@pytest.fixture(autouse=True)
def few_and_small_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice among hundreds is tested elsewhere, and takes seconds."""
    monkeypatch.setattr("host.calibration.calibration.POOL", 20)
    monkeypatch.setattr("host.calibration.specimens._MOST_WEIGHT_BYTES", 2_000_000)


@pytest.fixture
def measured(
    plant_store: Store, make_measurement: Callable[..., Measurement]
) -> Callable[[Job], Measurement]:
    """A device of 1 GMAC/s, 1 GB/s and 5 µs a kernel, with either runtime."""

    def answer(job: Job) -> Measurement:
        assert isinstance(job.spec, MeasureSpec)
        device = plant_store.devices.by_id(job.device_id)
        assert device is not None
        assert device.facts is not None
        read = kernels_from_tflite if job.spec.run.runtime == "tflite" else kernels_from_onnx
        graph = read(plant_store.blobs.get(job.spec.run.model_sha256))
        moved = sum(k.input_bytes + k.output_bytes + k.weight_bytes for k in graph.kernels)
        seconds = 1e-4 + 5e-6 * len(graph.kernels) + 1e-9 * (graph.macs + moved)
        made = make_measurement(job.device_id, "0" * 64, seconds, energies=())
        peak = 50_000_000 + graph.peak_activation_bytes + 2 * graph.weight_bytes
        process = made.processes[0]
        memory = replace(process.memory, peak_rss_bytes=peak)
        known = {r.name: r for r in device.facts.runtimes}[job.spec.run.runtime]
        return replace(
            made,
            run=job.spec.run,
            runtime_library=known.library,
            runtime_version=known.version,
            plan=job.spec.plan,
            processes=(replace(process, memory=memory),),
            energy_absent_because="no powercap zone",
        )

    return answer


def calibrated(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main([*COMMAND, *options, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_card_says_what_was_learned_and_how_sure_that_is(
    start_device: Start, measured: "Answer", capsys: pytest.CaptureFixture[str]
) -> None:
    start_device("kiosk", measured)

    code = main(list(COMMAND))

    printed = capsys.readouterr()
    assert code == 0
    assert "Calibration of kiosk" in printed.out
    assert "onnxruntime 1.23.2, 1 thread" in printed.out
    assert re.search(
        "12 networks: 10 micro-graphs, [0-2] small networks, [0-2] candidates; all that were",
        printed.out,
    )
    assert "GMAC/s" in printed.out
    assert "GB/s" in printed.out
    assert "held-out error (leave-one-out) median" in printed.out
    assert "left out" in printed.out
    # Twelve networks and as many measurements for references of sentinels, 11 s each.
    assert "kiosk: synthetic chains; 0 of at most 12 networks done, at most 4 min" in printed.err
    assert "kiosk: whole networks; 10 of at most 12 networks done, at most 1 min" in printed.err


def test_the_models_are_kept_with_the_networks_that_they_were_fitted_on(
    start_device: Start,
    measured: "Answer",
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", measured)

    found = calibrated(capsys)

    device = plant_store.devices.by_name("kiosk")
    latency = load(plant_store, device.id, SETTING, LatencyModel)
    memory = load(plant_store, device.id, SETTING, PeakMemoryModel)
    assert latency is not None
    assert memory is not None
    assert latency.examples == memory.examples
    assert [one.name for one in latency.examples] == [one["name"] for one in found["networks"]]
    for example, value in zip(latency.examples, latency.model.measured_values, strict=True):
        assert example.measurement is not None
        stored = plant_store.measurements.get(example.measurement)
        assert stored.measurement.latency_seconds == pytest.approx(value)
        assert stored.measurement.model_sha256 == example.model_sha256
        assert stored.label == example.name


def test_json_is_one_object_in_si(
    start_device: Start, measured: "Answer", capsys: pytest.CaptureFixture[str]
) -> None:
    start_device("kiosk", measured)

    found = calibrated(capsys)

    assert (found["device"], found["library"], found["threads"]) == ("kiosk", "onnxruntime", 1)
    assert found["n"] == len(found["networks"]) == 12
    assert found["ended"] == "budget"
    assert found["left_out"] == []
    assert set(found["models"]) == {"latency_seconds", "peak_rss_bytes"}
    memory = found["models"]["peak_rss_bytes"]
    assert memory["held_out_error_median"] < 0.1
    assert memory["half_width"] > 0
    assert found["energy_absent_because"] is None


def test_the_same_command_again_measures_nothing_and_says_so(
    start_device: Start, measured: "Answer", capsys: pytest.CaptureFixture[str]
) -> None:
    device = start_device("kiosk", measured)
    first = calibrated(capsys)
    device.done.clear()

    assert main([*COMMAND, "--json"]) == 0
    printed = capsys.readouterr()

    assert device.done == []
    assert "12 of them had been measured before; --again measures anew" in printed.err
    assert json.loads(printed.out)["models"] == first["models"]


def test_a_device_is_calibrated_for_tflite_from_the_first_chain_to_the_last_prediction(
    start_device: Start,
    measured: "Answer",
    plant_store: Store,
    tmp_path: Path,
    said: Any,
    loaded: Any,
) -> None:
    device = start_device("kiosk", measured)
    tflite = ("--runtime", "tflite")
    model, picture = tmp_path / "mobile.tflite", tmp_path / "card.png"
    model.write_bytes(mobile_candidates(1, 99, "tflite")[0].model_bytes())

    found = loaded(*COMMAND, *tflite, "-o", picture)
    again = loaded(*COMMAND, *tflite)

    assert (found["runtime"], found["library"]) == ("tflite", "ai-edge-litert")
    assert again["networks"] == found["networks"]
    assert len(networks(device)) == found["n"] == 12
    assert picture.read_bytes().startswith(b"\x89PNG")
    runs = [job.spec.run for job in device.done]  # type: ignore[union-attr]
    assert {run.runtime for run in runs} == {"tflite"}
    assert {plant_store.blobs.get(run.model_sha256)[4:8] for run in runs} == {b"TFL3"}

    (predicted,) = loaded("cost", "predict", model, "--device", "kiosk")
    assert predicted["runtime"] == "tflite"
    assert predicted["latency_seconds"]["flagged"] == []
    validated = loaded("cost", "validate", "kiosk", *tflite, "--count", 5)
    assert validated["quantities"]["latency_seconds"]["summary"]["n"] == 5
    assert "ai-edge-litert 2.1.0, 1 thread" in said("cost", "show", "kiosk", *tflite)
    assert loaded("device", "drift", "kiosk", *tflite)["verdict"] == "steady"
    # Nothing of it is of the other runtime.
    other = said("device", "drift", "kiosk", code=2)
    assert "calibrate it: `genba device calibrate kiosk`" in other


def test_again_measures_anew(
    start_device: Start, measured: "Answer", capsys: pytest.CaptureFixture[str]
) -> None:
    device = start_device("kiosk", measured)
    calibrated(capsys)

    calibrated(capsys, "--again")

    assert len(networks(device)) == 24


def test_more_measurements_go_on_from_those_that_there_are(
    start_device: Start, measured: "Answer", capsys: pytest.CaptureFixture[str]
) -> None:
    device = start_device("kiosk", measured)
    calibrated(capsys)

    found = calibrated(capsys, "--measurements", "15")

    assert found["n"] == 15
    assert len(networks(device)) == 15


def test_rejected_and_failed_measurements_are_left_out_and_named(
    start_device: Start,
    measured: Callable[[Job], Measurement],
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first: list[str] = []

    def answer(job: Job) -> Outcome:
        assert isinstance(job.spec, MeasureSpec)
        sha256 = job.spec.run.model_sha256
        first.append(sha256)
        if sha256 == first[0]:
            return replace(measured(job), verdict=REJECTED)
        if sha256 == first[1]:
            message = "the worker was killed: it needs more memory than there is"
            return MeasurementFailure(job.device_id, sha256, "resource", message, job.created_at)
        return measured(job)

    device = start_device("kiosk", answer)

    found = calibrated(capsys)
    main(list(COMMAND))

    rejected, failed = (
        next(job.label for job in device.done if job.spec.run.model_sha256 == sha256)  # type: ignore[union-attr]
        for sha256 in first[:2]
    )
    assert {one["name"]: one["why"] for one in found["left_out"]} == {
        rejected: "rejected 3 times: The CPU was slowed down.",
        failed: "resource: the worker was killed: it needs more memory than there is",
    }
    assert found["n"] == 10
    assert first.count(first[0]) == 3
    assert first.count(first[1]) == 1
    card = " ".join(capsys.readouterr().out.split())
    assert f"{rejected}: rejected 3 times" in card


def test_a_picture_is_drawn_in_both_languages(
    start_device: Start,
    measured: "Answer",
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", measured)

    for language in ("en", "ja"):
        picture = tmp_path / f"{language}.png"
        assert main([*COMMAND, "-o", str(picture), "--lang", language]) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")

    assert "kiosk の校正" in capsys.readouterr().out


def test_energy_that_nothing_measures_is_said_to_be_absent(
    start_device: Start, measured: "Answer", capsys: pytest.CaptureFixture[str]
) -> None:
    start_device("kiosk", measured)

    found = calibrated(capsys, "--energy")

    assert found["energy_absent_because"] == "no powercap zone"
    assert "energy_joules" not in found["models"]


def test_energy_that_a_sensor_measures_is_modelled(
    start_device: Start,
    measured: "Answer",
    make_measurement: Callable[..., Measurement],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (figure,) = make_measurement("d", "0" * 64).energies

    def answer(job: Job) -> Measurement:
        found = measured(job)
        assert isinstance(found, Measurement)
        joules = 5.0 * found.latency_seconds
        return replace(
            found, energies=(replace(figure, gross_joules=joules, net_joules=0.6 * joules),)
        )

    start_device("kiosk", answer)

    found = calibrated(capsys, "--energy")
    main([*COMMAND, "--energy"])

    assert found["energy_source"] == "rapl"
    assert {"power_watts", "energy_joules"} <= set(found["models"])
    assert "by rapl (package, measured), the same for all 12 networks" in capsys.readouterr().out


def test_a_device_that_is_offline_is_waited_for_and_what_was_asked_stays(
    served: Workspace,
    enrol: Callable[[str], Device],
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")

    code = main([*COMMAND, "--timeout", "1.5"])

    said = capsys.readouterr().err
    assert code == 1
    assert "waiting for kiosk, which is offline: is genba-agent running there?" in said
    assert "10 jobs stay queued, and the same command shows the result later" in said
    assert plant_store.jobs.waiting(device.id) == 10


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(
    start_device: Start,
    measured: "Answer",
    workspace: Workspace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped = threading.Event()

    def answer(job: Job) -> Outcome:
        if len(device.done) >= 6:
            stopped.wait(60)
        return measured(job)

    device = start_device("kiosk", answer)
    running = subprocess.Popen(
        [sys.executable, "-m", "host", *COMMAND],
        cwd=workspace.root,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(device.done) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)

    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    stopped.set()
    found = calibrated(capsys)

    assert running.returncode == 130
    assert "what was measured is kept: the same command goes on from there" in said
    assert found["n"] == 12
    assert len(networks(device)) == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runtime", "ncnn"], "'ncnn'"),
        (["--limit", "40"], "write it as latency_ms=40"),
        (["--limit", "latency_ms=0"], "write it as latency_ms=40"),
        (["--limit", "memory_mb=40"], "write it as latency_ms=40"),
        (["-o", "picture.jpg"], "must end with .png"),
        (["--measurements", "5"], "'--measurements': Input should be greater than or equal to 10"),
        (["--threads", "0"], "'--threads': Input should be greater than or equal to 1"),
        (["--preset", "hasty"], "'hasty'"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_sentence(
    served: Workspace,
    enrol: Callable[[str], Device],
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enrol("kiosk")

    code = main(["device", "calibrate", "kiosk", *options])

    printed = capsys.readouterr().err
    assert code == 2
    assert said in " ".join(printed.split())
    assert "Traceback" not in printed


def test_an_emulated_device_gets_no_cost_model(
    workspace: Workspace,
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")
    assert device.facts is not None
    facts = replace(device.facts, emulated=True)
    plant_store.devices.open_session(device.id, "s", agent_version="0.1.0", facts=facts)

    assert main(["device", "calibrate", "kiosk"]) == 2
    assert "kiosk is emulated" in capsys.readouterr().err


def test_an_unknown_device_and_one_without_the_runtime_are_refused(
    workspace: Workspace,
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")
    assert device.facts is not None
    none = tuple(replace(r, works=False, why_not="no wheel fits") for r in device.facts.runtimes)
    facts = replace(device.facts, runtimes=none)
    plant_store.devices.open_session(device.id, "s", agent_version="0.1.0", facts=facts)

    assert main(["device", "calibrate", "panel"]) == 2
    assert "panel" in capsys.readouterr().err
    assert main(["device", "calibrate", "kiosk"]) == 2
    assert "kiosk cannot run ONNX models: no wheel fits" in capsys.readouterr().err
