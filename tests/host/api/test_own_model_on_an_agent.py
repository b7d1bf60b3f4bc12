"""A model of the user's own on a real agent: quantised, measured, judged and compared."""

import json
from pathlib import Path

import pytest

from host.__main__ import main
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.spaces.base import Candidate, Task
from host.spaces.mobile import Mobile
from host.workspace import Workspace


@pytest.fixture
def mine(plant: Workspace) -> Path:
    """A classifier of grey images in two classes, as nobody has trained it."""
    space = Mobile({"resolution": (32,)})
    network = space.build(Candidate((0,) * len(space.decisions)), Task(channels=1, classes=2))
    path = plant.root.parent / "mine.onnx"
    path.write_bytes(onnx_bytes(network, random_weights(network, seed=0)))
    return path


def test_from_float_to_int8_to_the_comparison(
    plant: Workspace, mine: Path, study_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(study_photos))
    busy = ("--on-busy", "flag", "--wait-quiet", "0", "--preset", "quick")
    assert main(["quantize", str(mine), *data, "--max-drop", "1", "--json"]) == 0
    int8 = json.loads(capsys.readouterr().out)["int8_file"]

    place = ("--devices", "line-3", "--workspace", str(plant.root))
    code = main(["evaluate", str(mine), int8, *place, *data, *busy, "--json"])

    printed = capsys.readouterr()
    assert code == 0, printed.err
    fp32, small = json.loads(printed.out)["entries"]
    assert [fp32["label"], small["label"]] == ["mine.onnx", "mine.int8.onnx"]
    for entry in (fp32, small):
        assert entry["quality"]["n"] == 12
        (on,) = entry["devices"]
        # What the made-up clock of the agent's worker says of a file of that size.
        expected = 1e-3 + 2e-9 * entry["size_bytes"]
        assert on["measured"]["latency_seconds"] == pytest.approx(expected, rel=0.01)
    assert small["size_bytes"] != fp32["size_bytes"]
