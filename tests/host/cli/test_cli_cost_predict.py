"""`genba cost predict`: figures with intervals, reasons, explanations, and bad files."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from cost_models.latency import LatencyModel
from cost_models.onnx_graph import kernels_from_onnx
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates
from host.device import Device
from host.store import Store

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)
OLD = Setting("onnx", "onnxruntime", "1.22.0", 1)
QUANTITIES = ("latency_seconds", "peak_rss_bytes", "energy_joules", "power_watts")


def a_model(path: Path, operators: list[tuple[str, str]], shape: list[Any]) -> Path:
    """A chain of operators with one input and one output each, by domain and name."""
    names = ["x", *(f"t{i}" for i in range(len(operators)))]
    nodes = [
        helper.make_node(name, [names[i]], [names[i + 1]], domain=domain)
        for i, (domain, name) in enumerate(operators)
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, shape)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("plant", 1)]
    graph = helper.make_graph(nodes, "chain", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_predict_says_all_four_targets_with_intervals_or_the_reason(
    kiosk: Device, mobile: Path, said: Any
) -> None:
    output = said("cost", "predict", mobile, "--device", "kiosk")

    assert "Predicted for kiosk, onnxruntime 1.23.2, 1 thread" in output
    assert "latency ms" in output
    assert "[90 %], n = " in output
    assert "energy, power: – (no measured energy: calibrate with --energy)" in output


def test_predict_for_programs_is_in_si_units_and_predicted(
    kiosk: Device, plant_store: Store, fit_models: Any, mobile: Path, loaded: Any
) -> None:
    fit_models(plant_store, kiosk.id, ONE, watts=4.0)

    (found,) = loaded("cost", "predict", mobile, "--device", "kiosk")

    assert (found["model"], found["device"]) == ("mobile.onnx", "kiosk")
    assert found["kind"] == "predicted"
    assert (found["runtime_version"], found["threads"]) == ("1.23.2", 1)
    for quantity in QUANTITIES:
        forecast = found[quantity]
        assert forecast["low"] < forecast["value"] < forecast["high"]
        assert forecast["level"] == 0.9
        assert forecast["n"] > 10
        assert found[f"{quantity}_absent_because"] is None
    graph = mobile_candidates(1, seed=99)[0].kernels
    assert (found["macs"], found["kernels"]) == (graph.macs, len(graph.kernels))


def test_predict_is_near_the_truth_of_the_made_up_device(
    kiosk: Device, mobile: Path, loaded: Any, nominal: Any
) -> None:
    (found,) = loaded("cost", "predict", mobile, "--device", "kiosk")

    truth = nominal(LatencyModel(), kernels_from_onnx(mobile))
    assert found["latency_seconds"]["value"] == pytest.approx(truth, rel=0.15)


def test_predict_takes_several_files_and_devices(
    kiosk: Device,
    plant_store: Store,
    enrol: Callable[[str], Device],
    fit_models: Any,
    mobile: Path,
    model: Path,
    said: Any,
    loaded: Any,
) -> None:
    fit_models(plant_store, enrol("press").id, ONE, slowness=3.0)
    devices = ("--device", "kiosk", "--device", "press")

    rows = loaded("cost", "predict", mobile, model, mobile, *devices)
    text = said("cost", "predict", mobile, model, *devices)

    assert [(row["device"], row["model"]) for row in rows] == [
        ("kiosk", "mobile.onnx"),
        ("kiosk", "model.onnx"),
        ("press", "mobile.onnx"),
        ("press", "model.onnx"),
    ]
    ratio = rows[2]["latency_seconds"]["value"] / rows[0]["latency_seconds"]["value"]
    assert ratio == pytest.approx(3.0)
    assert "Predicted for press" in text


def test_csv_has_a_column_for_every_figure_and_empty_fields_for_what_is_absent(
    kiosk: Device, mobile: Path, said: Any
) -> None:
    output = said("cost", "predict", mobile, "--device", "kiosk", "--csv")

    (row,) = csv.DictReader(io.StringIO(output))
    assert row["model"] == "mobile.onnx"
    assert float(row["latency_seconds_low"]) < float(row["latency_seconds"])
    assert row["energy_joules"] == row["energy_joules_high"] == ""
    assert "--energy" in row["energy_joules_absent_because"]


def test_predict_explains_every_kernel_and_the_parts_make_up_the_whole(
    kiosk: Device, mobile: Path, said: Any, loaded: Any
) -> None:
    command = ("cost", "predict", mobile, "--device", "kiosk", "--explain")
    (found,) = loaded(*command)
    text = said(*command)

    parts = found["explanation"]
    assert [kernel["index"] for kernel in parts["kernels"]] == list(range(found["kernels"]))
    seconds = sum(kernel["seconds"] for kernel in parts["kernels"])
    total = seconds + parts["constant_seconds"] + parts["whole_seconds"]
    assert total == pytest.approx(parts["sum_seconds"])
    assert total * parts["factor"] == pytest.approx(found["latency_seconds"]["value"])
    assert "Where the predicted latency of mobile.onnx on kiosk goes" in text
    assert "constant" in text
    assert "cheaper kernels are not shown: --json has all" in text


def test_predict_explains_a_short_network_kernel_by_kernel(
    kiosk: Device, model: Path, said: Any
) -> None:
    text = said("cost", "predict", model, "--device", "kiosk", "--explain")

    assert "Relu" in text
    assert "not shown" not in text


def test_an_unknown_operator_is_named_and_costs_something(
    kiosk: Device, tmp_path: Path, said: Any, loaded: Any
) -> None:
    path = a_model(tmp_path / "odd.onnx", [("", "Relu"), ("plant", "Whirl")], [1, 64])
    plain = a_model(tmp_path / "plain.onnx", [("", "Relu")], [1, 64])

    odd, known = loaded("cost", "predict", path, plain, "--device", "kiosk")
    text = said("cost", "predict", path, "--device", "kiosk")

    assert odd["latency_seconds"]["flagged"] == ["plant:Whirl"]
    assert odd["latency_seconds"]["high"] is None
    assert odd["latency_seconds"]["value"] > known["latency_seconds"]["value"]
    assert "no bound" in text
    assert "no calibration network had plant:Whirl" in text


def test_an_open_size_names_the_input_and_the_option(
    kiosk: Device, tmp_path: Path, said: Any, loaded: Any
) -> None:
    path = a_model(tmp_path / "open.onnx", [("", "Relu")], [1, "length"])
    command = ("cost", "predict", path, "--device", "kiosk")

    message = said(*command, code=2)
    short, long = (loaded(*command, "--input-shape", f"x=1,{length}")[0] for length in (8, 80_000))

    assert "open.onnx" in message
    assert "'x'" in message
    assert "--input-shape" in message
    assert long["latency_seconds"]["value"] > 2 * short["latency_seconds"]["value"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("absent.onnx",), "cannot be read: No such file"),
        (("folder.onnx",), "cannot be read: Is a directory"),
        (("empty.onnx",), "not an ONNX file"),
        (("text.onnx",), "not an ONNX file"),
        (("text.tflite",), "text.tflite"),
        (("text.txt",), "say its runtime with --runtime"),
        (("model.onnx", "--input-shape", "x=0"), "every size must be from 1"),
        (("model.onnx", "--input-shape", "z=1,4"), "no input 'z'"),
        (("model.onnx", "--input-shape", "x=1,4,4"), "dimensions"),
        (("model.onnx", "--threads", "3"), "genba device calibrate kiosk --threads 3"),
        (("model.onnx", "--threads", "0"), "threads"),
        (("model.onnx", "--json", "--csv"), "exclude each other"),
        (("model.onnx", "--explain", "--csv"), "use --json"),
        (("model.onnx", "--device", "nobody"), "nobody"),
    ],
)
def test_what_cannot_be_predicted_is_a_sentence_and_ends_with_2(
    kiosk: Device, model: Path, arguments: tuple[str, ...], why: str, said: Any
) -> None:
    folder = model.parent
    (folder / "folder.onnx").mkdir()
    (folder / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "text.tflite", "text.txt"):
        (folder / name).write_text("no model at all")

    first, *rest = arguments
    message = said("cost", "predict", folder / first, "--device", "kiosk", *rest, code=2)

    assert why in message


def test_a_newer_runtime_on_the_device_asks_for_calibration_again(
    plant_store: Store, enrol: Callable[[str], Device], fit_models: Any, model: Path, said: Any
) -> None:
    fit_models(plant_store, enrol("press").id, OLD)

    message = said("cost", "predict", model, "--device", "press", code=2)

    assert "calibrated with onnxruntime 1.22.0, 1 thread" in message
    assert "has onnxruntime 1.23.2, 1 thread now" in message
    assert "`genba device calibrate press`" in message
