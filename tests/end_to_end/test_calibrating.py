"""Calibrating with everything real but the clock of the worker, whose figures are made up."""

import json

import pytest

BUSY = ("--on-busy", "flag", "--wait-quiet", "0")


@pytest.mark.slow
def test_a_device_is_calibrated_once_and_what_it_measured_is_found_again(make_plant):
    plant = make_plant("plant")
    plant.start_agent()
    command = ("device", "calibrate", "panel", "--measurements", "12", *BUSY)

    ran = plant.genba(*command, "-o", "card.png")
    measured = plant.measured_by_agent()
    again = plant.genba(*command, "--json")

    assert ran.returncode == 0, ran.stderr
    assert "12 networks: 10 micro-graphs, " in ran.stdout
    assert (plant.root / "card.png").read_bytes().startswith(b"\x89PNG")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["left_out"] == []
    # Twelve networks, most of them the only one of their kind.
    assert 0 < found["models"]["latency_seconds"]["held_out_error_median"] < 1
    # The agent's memory is 40 MiB and three times the file.
    memory = found["models"]["peak_rss_bytes"]["coefficients"]
    assert memory["constant"] == pytest.approx(40 * 1024 * 1024, rel=0.05)
    assert memory["convolution_weight_bytes"] == pytest.approx(3.0, rel=0.2)
    assert plant.measured_by_agent() == measured
