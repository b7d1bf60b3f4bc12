"""Calibrating with everything real but the clock of the worker, whose figures are made up."""

import json

import pytest

from host.__main__ import main
from host.calibration import micrographs
from host.measurement import Readiness

SMALL = 8_000_000  # MACs and bytes of a network that runs thousands of times in a second


def small_chains(form):
    """Chains of every kind but grouped convolutions."""
    return tuple(graph for graph in micrographs.micrographs(form) if work(graph.kernels) < SMALL)


def work(graph):
    return graph.macs + sum(k.input_bytes + k.output_bytes for k in graph.kernels)


@pytest.fixture
def genba(monkeypatch, capsys):
    """Runs a command on a plant in this process; returns what it prints.

    Networks are small, a device looks at itself for a moment before it measures, and a reference
    is the median of two measurements: enough where nothing is noisy.
    """
    monkeypatch.setattr("host.calibration.sentinels.REFERENCE_ROUNDS", 2)
    monkeypatch.setattr("host.cli.calibrate._specimens", lambda form, _: (small_chains(form), ()))
    for command in ("calibrate", "drift"):
        monkeypatch.setattr(
            f"host.cli.{command}.readiness",
            lambda *_: Readiness(observe_seconds=0.1, wait_seconds=0.0, measure_when_busy=True),
        )

    def run(plant, *arguments):
        capsys.readouterr()
        code = main([*arguments, "-w", str(plant.workspace)])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_a_device_is_calibrated_once_and_is_steady_by_the_sentinels_of_that(
    make_plant, genba, runtime
):
    plant = make_plant("plant")
    plant.start_agent()
    card, drift = plant.root / "card.png", plant.root / "drift.png"
    setting = ("panel", "--runtime", runtime)
    command = ("device", "calibrate", *setting, "--measurements", "10")

    printed = genba(plant, *command, "-o", str(card))
    measured = plant.measured_by_agent()
    again = json.loads(genba(plant, *command, "--json"))

    assert "10 networks: 10 micro-graphs, " in printed
    assert card.read_bytes().startswith(b"\x89PNG")
    assert (again["runtime"], again["left_out"]) == (runtime, [])
    # Ten networks, most of them the only one of their kind.
    assert 0 < again["models"]["latency_seconds"]["held_out_error_median"] < 1
    # The agent's memory is 40 MiB and three times the file.
    memory = again["models"]["peak_rss_bytes"]["coefficients"]
    assert memory["constant"] == pytest.approx(40 * 1024 * 1024, rel=0.05)
    assert memory["convolution_weight_bytes"] == pytest.approx(3.0, rel=0.2)
    assert plant.measured_by_agent() == measured

    found = json.loads(genba(plant, "device", "drift", *setting, "--json", "-o", str(drift)))
    known = genba(plant, "device", "drift", *setting, "--no-measure")

    assert found["verdict"] == "steady"
    assert found["rounds"][0]["ratios"] == pytest.approx([1.0] * 3, abs=0.02)
    assert drift.read_bytes().startswith(b"\x89PNG")
    assert "panel is as fast as when it was calibrated" in known
    assert plant.measured_by_agent() == measured + 3
