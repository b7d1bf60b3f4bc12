"""What the Python API refuses before anything is done: one sentence that names the argument."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.api import OpenWorkspace, open_workspace
from host.calibration.specimens import mobile_candidates
from host.errors import UsageError
from host.workspace import GatewaySettings, Workspace


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    path.write_bytes(mobile_candidates(1, seed=99)[0].model_bytes())
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenWorkspace]:
    """A workspace without devices."""
    Workspace.create(tmp_path / "plant", GatewaySettings(address="127.0.0.1"))
    with open_workspace(tmp_path / "plant") as workspace:
        yield workspace


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"preset": "slow"}, "preset must be one of quick, standard, thorough, not 'slow'"),
        ({"runtime": "torch"}, "runtime must be one of onnx, tflite.*, not 'torch'"),
        ({"threads": 0}, "threads must be a whole number from 1 to 1024, not 0"),
        ({"threads": 1.5}, "threads must be a whole number"),
        ({"rate_hertz": 0.0}, "rate_hertz must be a number from 0.001 to 10000, not 0.0"),
        ({"rate_hertz": math.nan}, "rate_hertz must be a number"),
        ({"rate_hertz": math.inf}, "rate_hertz must be a number"),
        ({"timeout_seconds": -1.0}, "timeout_seconds must be a number at least 0, not -1.0"),
        ({"devices": "panel"}, r"devices must be a list, such as \['panel'\], not a string"),
        ({"files": "net.onnx"}, r"files must be a list, such as \['net.onnx'\], not a string"),
    ],
)
def test_what_cannot_be_measured_so_is_refused_by_its_argument(
    opened: OpenWorkspace, model: Path, wish: dict[str, Any], why: str
) -> None:
    given: dict[str, Any] = {"files": [model], "devices": ["panel"]}

    with pytest.raises(UsageError, match=why):
        opened.measure(**given | wish)


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"threads": 1025}, "threads must be a whole number from 1 to 1024, not 1025"),
        ({"runtime": "torch"}, "runtime must be one of"),
        ({"files": "net.onnx"}, "files must be a list"),
    ],
)
def test_what_cannot_be_predicted_so_is_refused_by_its_argument(
    opened: OpenWorkspace, model: Path, wish: dict[str, Any], why: str
) -> None:
    given: dict[str, Any] = {"files": [model], "device": "panel"}

    with pytest.raises(UsageError, match=why):
        opened.predict(**given | wish)


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"sample": 0}, "sample must be a whole number from 1 to 1000000, not 0"),
        ({"sample": -1}, "sample must be a whole number from 1 to 1000000, not -1"),
        ({"batch_size": 1}, "batch_size must be a whole number from 2 to 4096, not 1"),
        ({"resolution": 0}, "resolution must be a whole number from 1 to 4096, not 0"),
        ({"draws": 0}, "draws must be a whole number from 1 to 1000, not 0"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2147483647, not -1"),
        ({"threads": 0}, "threads must be a whole number"),
        ({"processes": 0}, "processes must be a whole number"),
        ({"devices": "panel"}, "devices must be a list"),
        ({"proxies": "flops"}, "proxies must be a list"),
    ],
)
def test_what_cannot_be_ranked_so_is_refused_by_its_argument(
    opened: OpenWorkspace, wish: dict[str, Any], why: str
) -> None:
    given: dict[str, Any] = {"targets": "mobile", "proxies": ["flops"]}

    with pytest.raises(UsageError, match=why):
        opened.rank(**given | wish)
