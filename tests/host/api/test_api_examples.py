"""Every example of the API's README runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

import host.api
from host.workspace import Workspace

README = Path(host.api.__file__).with_name("README.md")
_BLOCKS = dict(re.findall(r"## ([^\n]+)\n\n```python\n(.*?)```", README.read_text(), re.DOTALL))


def run(heading: str) -> None:
    exec(compile(_BLOCKS[heading], f"{README}: {heading}", "exec"), {"__name__": "example"})


def test_no_example_is_left_out() -> None:
    assert set(_BLOCKS) == {"Devices", "Measure", "Predict", "Rank without training", "A study"}


def test_devices_are_listed(calibrated: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    run("Devices")

    assert re.match(r"line-3 (online|offline) \['onnxruntime ", capsys.readouterr().out)


def test_a_model_is_measured_by_a_real_agent(
    plant: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run("Measure")

    output = capsys.readouterr().out
    assert "1 of 1" in output
    name, device, latency, low, high = output.splitlines()[-2].split()
    assert (name, device) == ("net.onnx", "line-3")
    # What the made-up clock of the agent's worker says of a file of that size.
    expected = 1e-3 + 2e-9 * Path("net.onnx").stat().st_size
    assert float(latency) == pytest.approx(expected, rel=0.01)
    assert float(low) <= float(latency) <= float(high)


def test_a_model_is_predicted(calibrated: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    run("Predict")

    name, value, low, high, level = capsys.readouterr().out.split()
    assert name == "net.onnx"
    assert float(low) < float(value) < float(high)
    assert level == "0.9"


def test_a_sample_of_a_space_is_ranked(
    calibrated: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run("Rank without training")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("1 ")


@pytest.mark.slow
def test_a_study_runs_to_its_finalist(studied: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run("A study")

    output = capsys.readouterr().out
    assert "stage='finalists'" in output
    assert "onnx-fp32" in output
