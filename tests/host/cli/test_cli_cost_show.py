"""`genba cost show`: what the models of a device know, and what they do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cost_models.latency import LatencyModel
from host.calibration.setting import Setting
from host.device import Device
from host.store import Store

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)
TWO = Setting("onnx", "onnxruntime", "1.23.2", 2)
OLD = Setting("onnx", "onnxruntime", "1.22.0", 1)


def test_show_of_a_device_without_models_is_the_command_to_run(
    enrol: Callable[[str], Device], said: Any, loaded: Any
) -> None:
    enrol("kiosk")

    output = said("cost", "show", "kiosk")

    assert output == "kiosk is not calibrated yet: genba device calibrate kiosk\n"
    assert loaded("cost", "show", "kiosk") == []
    chosen = said("cost", "show", "kiosk", "--runtime", "tflite", "--threads", 2)
    assert "genba device calibrate kiosk --runtime tflite --threads 2\n" in chosen


def test_show_of_one_setting_is_all_that_its_models_know(kiosk: Device, said: Any) -> None:
    output = said("cost", "show", "kiosk")

    assert "Cost models of kiosk, onnxruntime 1.23.2, 1 thread" in output
    assert "held-out error (leave-one-out) median" in output
    assert "90 % interval ×/÷ " in output
    assert "not measured: " in output
    assert "energy       – (no measured energy: calibrate with --energy)" in output


def test_show_of_several_settings_is_a_list_and_says_which_is_out_of_date(
    kiosk: Device, plant_store: Store, fit_models: Any, said: Any
) -> None:
    fit_models(plant_store, kiosk.id, TWO, watts=4.0)
    fit_models(plant_store, kiosk.id, OLD)

    output = said("cost", "show", "kiosk")
    chosen = said("cost", "show", "kiosk", "--threads", 2)

    assert output.count("onnxruntime 1.23.2, 1 thread") == 2  # the row, and "has … now"
    assert "kiosk has onnxruntime 1.23.2, 1 thread now: calibrate again" in output
    assert "power" in output
    assert "Cost models of kiosk, onnxruntime 1.23.2, 2 threads" in chosen
    assert "1.22.0" not in chosen


def test_show_for_programs_has_every_coefficient_and_network(kiosk: Device, loaded: Any) -> None:
    (found,) = loaded("cost", "show", "kiosk", "--threads", 1)

    latency = found["models"]["latency_seconds"]
    assert (found["runtime_library"], found["threads"]) == ("onnxruntime", 1)
    assert found["is_current"] is True
    assert latency["n"] == len(latency["networks"]) > 10
    assert set(latency["coefficients"]) == {name for name, _ in LatencyModel.columns}
    assert 0 < latency["held_out_error_median"] < latency["held_out_error_90"]
    assert set(found["absent"]) == {"energy_joules", "power_watts"}


def test_show_draws_a_picture_of_one_setting(
    kiosk: Device, plant_store: Store, fit_models: Any, tmp_path: Path, said: Any
) -> None:
    picture = tmp_path / "held-out.png"

    said("cost", "show", "kiosk", "-o", picture, "--lang", "ja")
    fit_models(plant_store, kiosk.id, TWO)
    said("cost", "show", "kiosk", "-o", tmp_path / "two.png")

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "two.png").exists()


def test_show_in_japanese_keeps_the_figures(kiosk: Device, said: Any) -> None:
    output = said("cost", "show", "kiosk", "--lang", "ja")

    assert "kiosk のコストモデル" in output
    assert "推論時間" in output


def test_a_damaged_model_is_said_and_does_not_hide_the_others(
    kiosk: Device, plant_store: Store, said: Any
) -> None:
    plant_store.cost_models.add(kiosk.id, ONE.target("latency_seconds"), "{", 3)

    output = said("cost", "show", "kiosk")

    assert "cannot be read by this version" in " ".join(output.split())
    assert "peak memory" in output


@pytest.mark.parametrize(
    "arguments", [("nobody",), ("kiosk", "--threads", "0"), ("kiosk", "-o", "picture.txt")]
)
def test_what_cannot_be_shown_is_a_sentence(
    kiosk: Device, arguments: tuple[str, ...], said: Any
) -> None:
    said("cost", "show", *arguments, code=2)
