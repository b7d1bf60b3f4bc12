"""`genba measure`: what it asks of devices, what it prints, and how it ends."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from host.__main__ import main
from host.device import Device
from host.job import Job
from host.measurement import (
    PRESETS,
    Energy,
    FailureKind,
    InputShape,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    OperatorTime,
    Outcome,
    Profile,
    ProfileSpec,
    Reason,
    Verdict,
)
from host.network.ncnn_file import NcnnLayer, NcnnModel, Value, ncnn_file, param_text
from host.store import Store
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.cli.conftest import Answer, MadeUpDevice

REJECTED = Verdict("REJECT", (Reason("UNSTABLE", "REJECT", "the processes differ by 12 %"),))


def measure_spec(device: "MadeUpDevice") -> MeasureSpec:
    spec = device.done[0].spec
    assert isinstance(spec, MeasureSpec)
    return spec


def a_profile(job: Job) -> Profile:
    assert isinstance(job.spec, ProfileSpec)
    return Profile(
        device_id=job.device_id,
        run=job.spec.run,
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        runtime_options=(),
        runs=50,
        run_seconds=0.012,
        operators=(
            OperatorTime("[conv_1]", "Conv", 0.008),
            OperatorTime("relu_1", "Relu", 0.002),
            OperatorTime("conv_2", "Conv", 0.001),
        ),
        profiled_at=job.created_at,
    )


def failure(job: Job, kind: FailureKind, message: str) -> MeasurementFailure:
    return MeasurementFailure(job.device_id, None, kind, message, job.created_at)


def test_a_result_is_printed_with_its_interval_verdict_memory_and_context(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", measured_as_asked)

    code = main(["measure", str(model), "--device", "kiosk"])

    output = capsys.readouterr().out
    assert code == 0
    assert "model.onnx on kiosk · measurement 1" in output
    assert "10.00 ms, 95 % interval [" in output
    assert "measured, n = 62, of which 62 clean; fresh processes: 1" in output
    assert "p90 – (p90 needs 64 clean samples, there are 62)" in output
    assert "RSS: runtime 50.0 MB, model loaded 60.0 MB, peak 70.0 MB" in output
    assert "own pages (USS) at the end 55.0 MB" in output
    assert "none: no powercap zone" in output
    assert "onnxruntime 1.23.2, 1 thread" in output
    assert "cores 1, governor performance" in output
    assert "verdict      OK" in output


def test_the_same_again_is_shown_at_once_unless_asked_anew(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = start_device("kiosk", measured_as_asked)
    command = ["measure", str(model), "--device", "kiosk"]
    main(command)
    capsys.readouterr()

    assert main(command) == 0
    known = capsys.readouterr()
    assert main([*command, "--again"]) == 0

    assert "--again measures anew" in known.err
    assert "measurement 1" in known.out
    assert "measurement 2" in capsys.readouterr().out
    assert len(device.done) == 2


def test_json_has_everything_in_si_one_object_a_line(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    save_model: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", measured_as_asked)
    models = [str(save_model(name)) for name in ("a.onnx", "b.onnx")]

    code = main(["measure", *models, "--device", "kiosk", "--json"])

    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 0
    assert (first["model"], second["model"]) == ("a.onnx", "b.onnx")
    assert first["kind"] == "measurement"
    assert first["latency_seconds"] == pytest.approx(0.01)
    assert first["latency_low_seconds"] <= 0.01 <= first["latency_high_seconds"]
    assert first["verdict"] == {"level": "OK", "codes": [], "reasons": []}
    assert first["p99_seconds"] is None
    assert "662" in first["p99_absent_because"]
    assert first["energies"] == []
    assert first["energy_absent_because"] == "no powercap zone"
    assert first["pss_bytes"] is None
    assert first["peak_rss_bytes"] == 70_000_000
    assert first["thermal"]["start_celsius"] == 40.0
    assert first["plan"]["budget_seconds"] == PRESETS["standard"].budget_seconds


def test_csv_has_a_line_for_every_model_and_device_and_empty_fields_for_what_is_absent(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    save_model: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", measured_as_asked)
    start_device("press", lambda job: failure(job, "resource", 'out of "memory", killed'))
    models = [str(save_model(name)) for name in ("a,1.onnx", "b.onnx")]

    code = main(["measure", *models, "--device", "kiosk", "--device", "press", "--csv"])

    output = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(output, newline="")))
    assert code == 1
    assert "\r\n" in output
    assert sorted((row["model"], row["device"]) for row in rows) == [
        ("a,1.onnx", "kiosk"),
        ("a,1.onnx", "press"),
        ("b.onnx", "kiosk"),
        ("b.onnx", "press"),
    ]
    good = next(row for row in rows if row["device"] == "kiosk")
    bad = next(row for row in rows if row["device"] == "press")
    assert float(good["latency_seconds"]) == pytest.approx(0.01)
    assert good["p99_seconds"] == good["energy_net_joules"] == good["failure_kind"] == ""
    assert bad["failure_message"] == 'out of "memory", killed'
    assert bad["latency_seconds"] == ""


def test_options_become_the_plan_and_the_setup_of_the_runtime(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    model: Path,
) -> None:
    device = start_device("kiosk", measured_as_asked)
    options = "--preset quick --threads 4 --rate 5 --on-busy flag --wait-quiet 7 --json"
    more = "--max-start-temperature 55 --input-shape x=1,3,8,8 --option b=2 --option a=1"

    code = main(["measure", str(model), "--device", "kiosk", *options.split(), *more.split()])

    spec = measure_spec(device)
    assert code == 0
    assert spec.plan == PRESETS["quick"].with_energy(paced_hertz=5.0)
    assert spec.run.threads == 4
    assert spec.run.options == ("a=1", "b=2")
    assert spec.run.input_shapes == (InputShape("x", (1, 3, 8, 8)),)
    assert spec.readiness.measure_when_busy
    assert (spec.readiness.wait_seconds, spec.readiness.max_start_celsius) == (7.0, 55.0)


@pytest.mark.parametrize(
    ("arguments", "windows", "least_timeout"),
    [((), 0, 120), (("--energy",), 5, 200), (("--preset", "thorough"), 0, 600)],
    ids=["plain", "energy", "thorough"],
)
def test_the_device_gets_the_time_that_the_plan_needs(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    model: Path,
    arguments: tuple[str, ...],
    windows: int,
    least_timeout: float,
) -> None:
    device = start_device("kiosk", measured_as_asked)

    main(["measure", str(model), "--device", "kiosk", "--json", *arguments])

    spec = measure_spec(device)
    assert spec.plan.energy_windows == windows
    assert spec.timeout_seconds >= least_timeout


def test_energy_is_printed_with_its_kind_source_scope_and_lag(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    make_measurement: Callable[..., Measurement],
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rapl = make_measurement("d", "0" * 64).energies[0]
    plug: Energy = replace(
        rapl,
        source="shelly",
        scope="wall",
        lag_seconds=1.25,
        paced_hertz=5.0,
        paced_gross_joules=0.4,
        paced_power_watts=2.0,
        warnings=("the idle power before and after differs by 7 %",),
    )
    start_device(
        "kiosk",
        lambda job: replace(measured_as_asked(job), energies=(plug, rapl)),
    )

    main(["measure", str(model), "--device", "kiosk", "--energy"])

    output = capsys.readouterr().out
    assert "30.0 mJ an inference net of idle [28.0, 32.0], gross 50.0 mJ [49.0, 51.0]" in output
    assert "measured by shelly (wall socket): 5 windows" in output
    assert "lag 1.3 s" in output or "lag 1.2 s" in output
    assert "at 5 inferences a second: 400 mJ gross an inference, 2.00 W" in output
    assert "differs by 7 %" in output
    assert "measured by rapl (CPU package): 30.0 mJ net, 50.0 mJ gross" in output


def test_a_rejected_figure_is_shown_and_ends_with_1_only_when_strict(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", lambda job: replace(measured_as_asked(job), verdict=REJECTED))
    command = ["measure", str(model), "--device", "kiosk"]

    assert main(command) == 0
    shown = capsys.readouterr().out
    assert main([*command, "--strict"]) == 1

    assert "REJECT" in shown
    assert "UNSTABLE: the processes differ by 12 %" in shown
    assert "model.onnx on kiosk · measurement 1" in capsys.readouterr().err


def test_one_failure_does_not_hide_the_other_results(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    save_model: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(job: Job) -> Outcome:
        if job.label == "a.onnx":
            return failure(job, "worker_crashed", "the worker ended by SIGILL")
        return measured_as_asked(job)

    start_device("kiosk", answer)
    models = [str(save_model(name)) for name in ("a.onnx", "b.onnx")]

    code = main(["measure", *models, "--device", "kiosk"])

    captured = capsys.readouterr()
    assert code == 1
    assert "kiosk failed at measuring a.onnx: worker crashed: the worker ended by" in captured.err
    assert "1 of 2 failed" in captured.err
    assert "b.onnx on kiosk" in captured.out


def test_the_only_failure_is_one_sentence(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", lambda job: failure(job, "resource", "out of memory"))

    code = main(["measure", str(model), "--device", "kiosk", "--again"])

    lines = capsys.readouterr().err.splitlines()
    assert code == 1
    assert lines[-1] == (
        "genba: kiosk failed at measuring model.onnx: resource: out of memory"
        " (--again tries once more)"
    )


def test_while_a_device_is_not_ready_its_reason_is_told_and_when_it_is_asked_again(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    model: Path,
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refusal = "34 % of the CPU is taken by other programs"
    start_device("kiosk", lambda job: failure(job, "not_ready", refusal))

    code = main(["measure", str(model), "--device", "kiosk", "--timeout", "2"])

    error = capsys.readouterr().err
    assert code == 1
    assert error.count(f"kiosk is not ready: {refusal}; trying again within 15 s") == 1
    assert "no result within 2 s: 1 job stays queued" in error


def test_a_profile_is_a_job_of_its_own_and_its_picture_says_so(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(job: Job) -> Outcome:
        return a_profile(job) if isinstance(job.spec, ProfileSpec) else measured_as_asked(job)

    device = start_device("kiosk", answer)
    picture = tmp_path / "profile.png"

    code = main(["measure", str(model), "--device", "kiosk", "--profile", "-o", str(picture)])

    output = capsys.readouterr().out
    assert code == 0
    assert {type(job.spec) for job in device.done} == {MeasureSpec, ProfileSpec}
    assert "with the profiler on" in output
    assert "75.0%" in output
    assert "between operators" in output
    assert "[conv_1] (Conv)" in output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_profile_in_json_has_seconds_by_kind_and_by_operator(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(job: Job) -> Outcome:
        return a_profile(job) if isinstance(job.spec, ProfileSpec) else measured_as_asked(job)

    start_device("kiosk", answer)

    main(["measure", str(model), "--device", "kiosk", "--profile", "--json"])

    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    profile = next(record for record in records if record["kind"] == "profile")
    assert [row["name"] for row in profile["operator_kinds"]] == [
        "Conv",
        "Relu",
        "between operators",
    ]
    assert profile["operators"][0]["seconds"] == 0.008


def test_a_tflite_file_goes_to_the_tflite_runtime(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    measured_as_asked: Callable[[Job], Measurement],
    tflite_model: Path,
    tmp_path: Path,
) -> None:
    device = start_device("kiosk", measured_as_asked)
    renamed = tmp_path / "weights.bin"
    renamed.write_bytes(tflite_model.read_bytes() + b"\0")

    codes = [
        main(["measure", str(tflite_model), "--device", "kiosk", "--json"]),
        main(["measure", str(renamed), "--device", "kiosk", "--json", "--runtime", "tflite"]),
    ]

    assert codes == [0, 0]
    runs = [job.spec.run.runtime for job in device.done if isinstance(job.spec, MeasureSpec)]
    assert runs == ["tflite", "tflite"]


def test_measure_waits_for_an_offline_device_and_keeps_the_job(
    served: Workspace,
    enrol: Callable[[str], Device],
    plant_store: Store,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")

    code = main(["measure", str(model), "--device", "kiosk", "--timeout", "1.3"])

    error = capsys.readouterr().err
    assert code == 1
    assert "waiting for kiosk, which is offline" in error
    assert "stays queued" in error
    assert plant_store.jobs.waiting(device.id) == 1


def test_ctrl_c_stops_measure_and_the_job_stays_queued(
    served: Workspace, enrol: Callable[[str], Device], plant_store: Store, model: Path
) -> None:
    device = enrol("kiosk")
    command = [sys.executable, "-m", "host", "measure", str(model), "--device", "kiosk"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    line = process.stderr.readline()

    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=20)[1]

    assert "offline" in line
    assert process.returncode == 130
    assert "stays queued" in rest
    assert "Traceback" not in rest
    assert plant_store.jobs.waiting(device.id) == 1


def test_a_device_without_the_runtime_is_told_before_anything_is_asked(
    workspace: Workspace,
    fleet: Any,
    plant_store: Store,
    tflite_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = fleet.device("panel")

    code = main(["measure", str(tflite_model), "--device", "panel"])

    assert code == 2
    assert "panel cannot run TFLite models: not installed" in capsys.readouterr().err
    assert plant_store.jobs.waiting(device.id) == 0


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        (["--rate", "5", "--no-energy"], "--rate measures energy"),
        (["--output", "p.png"], "use it with --profile"),
        (["--profile", "--output", "p.jpg"], "must end with .png"),
        (["--profile", "--output", "nowhere/p.png"], "there is no folder nowhere"),
        (["--profile", "--csv"], "use --json"),
        (["--json", "--csv"], "exclude each other"),
        (["--input-shape", "x"], "write it as name=1,3,224,224"),
        (["--input-shape", "x=1,a"], "write it as name=1,3,224,224"),
        (["--input-shape", "x=0"], "every size must be from 1"),
        (["--input-shape", "x=1", "--input-shape", "x=2"], "names 'x' twice"),
        (["--option", "xnnpack"], "write it as name=value"),
        (["--option", "a=1", "--option", "a=2"], "names 'a' twice"),
        (["--preset", "slow"], "slow"),
        (["--threads", "0"], "greater than or equal to 1"),
        (["--device", "nosuch"], "no device is named 'nosuch'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_ends_with_2_and_one_sentence(
    workspace: Workspace,
    enrol: Callable[[str], Device],
    model: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    because: str,
) -> None:
    enrol("kiosk")

    code = main(["measure", str(model), "--device", "kiosk", *arguments])

    error = capsys.readouterr().err
    assert code == 2
    assert because in error
    assert error.count("\n") == 1


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _external(path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], bytes(16), raw=True)
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y")]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, path, save_as_external_data=True, size_threshold=0)


def _ncnn_of(kind: str, params: dict[int, Value]) -> Callable[[Path], object]:
    """Writes a model of one such layer, without weights."""
    layers = (
        NcnnLayer("Input", "x", (), ("x",), {0: 4}),
        NcnnLayer(kind, "y", ("x",), ("y",), params),
    )
    return lambda path: path.write_bytes(ncnn_file(NcnnModel(param_text(layers), b"")))


@pytest.mark.parametrize(
    ("name", "spoil", "because"),
    [
        ("model.onnx", Path.unlink, "cannot be read"),
        ("model.onnx", _cut, "not an ONNX file, or only a part"),
        ("model.onnx", _noise, "not an ONNX file, or only a part"),
        ("model.onnx", _empty, "not a valid ONNX model"),
        ("model.onnx", _external, "keeps weights in other files"),
        ("model.tflite", Path.unlink, "cannot be read"),
        ("model.tflite", _cut, "is only a part of a TFLite file"),
        ("model.tflite", _noise, "lacks the identifier TFL3"),
        ("model.tflite", _empty, "lacks the identifier TFL3"),
        ("model.ncnn", Path.touch, "is not a whole .ncnn file: these bytes are no .ncnn file"),
        ("model.ncnn", _ncnn_of("BatchNorm", {0: 4}), "0 bytes and its layers read 64"),
        ("model.ncnn", _ncnn_of("Spectrogram", {}), "no device accepts: Spectrogram"),
        ("model.h5", Path.touch, "none of .onnx, .tflite, .ncnn: say its runtime with --runtime"),
    ],
)
def test_a_model_that_cannot_be_sent_ends_with_2(
    workspace: Workspace,
    model: Path,
    tflite_model: Path,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
    name: str,
    spoil: Callable[[Path], object],
    because: str,
) -> None:
    enrol("kiosk")
    path = model.with_name(name)
    spoil(path)

    code = main(["measure", str(path), "--device", "kiosk"])

    error = capsys.readouterr().err
    assert code == 2
    assert because in error
    assert str(path) in error
    assert error.count("\n") == 1
