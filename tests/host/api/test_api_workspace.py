"""What the Python API gives beyond its examples: what is known already, what fails, bad input."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from host.api import (
    MeasuringProgress,
    NotMeasuredError,
    StageBegan,
    StudyEvent,
    TimedOutError,
    open_workspace,
)
from host.api.study import config_of
from host.config import ConfigError, StudyConfig, load_study
from host.errors import GenbaError, UsageError
from host.measurement import Readiness
from host.store import UnknownDeviceError, UnknownStudyError
from host.workspace import Workspace, WorkspaceError
from tests.host.api.conftest import DEVICE

BUSY = Readiness(observe_seconds=0.02, wait_seconds=0.0, measure_when_busy=True)


@pytest.fixture
def refused(plant: Workspace) -> Path:
    """A model that the agent's scan refuses: an operator of nobody's domain."""
    path = plant.root.parent / "refused.onnx"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y"))
    node = helper.make_node("Whirl", ["x"], ["y"], domain="nobody")
    graph = helper.make_graph([node], "refused", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_what_was_measured_before_comes_at_once_and_only_new_work_needs_a_gateway(
    plant: Workspace,
) -> None:
    wish: dict[str, Any] = {"preset": "quick", "readiness": BUSY}
    with open_workspace(plant.root) as workspace:
        (first,) = workspace.measure(["net.onnx"], [DEVICE], **wish)
    with open_workspace(plant.root) as workspace:
        (second,) = workspace.measure([Path("net.onnx")], [DEVICE], **wish)
        served_for_nothing = plant.gateway_runs()
        (anew,) = workspace.measure(["net.onnx"], [DEVICE], **wish, again=True)
        stays = plant.gateway_runs()

    assert second == first
    assert not served_for_nothing
    assert stays
    assert not plant.gateway_runs()
    assert anew.number != first.number
    assert anew.measurement.latency_seconds == pytest.approx(first.measurement.latency_seconds)


def test_files_of_equal_bytes_share_a_measurement_and_each_keeps_its_name(
    plant: Workspace,
) -> None:
    folder = plant.root.parent
    (folder / "twin.onnx").write_bytes((folder / "net.onnx").read_bytes())
    with open_workspace(plant.root) as workspace:
        found = workspace.measure(
            ["net.onnx", "twin.onnx"], [DEVICE], preset="quick", readiness=BUSY
        )

    assert [one.model for one in found] == ["net.onnx", "twin.onnx"]
    assert found[0].number == found[1].number


def test_a_model_that_the_device_refuses_is_a_result_and_the_others_are_measured(
    plant: Workspace, refused: Path
) -> None:
    seen: list[MeasuringProgress] = []
    with open_workspace(plant.root) as workspace:
        bad, good = workspace.measure(
            [refused, "net.onnx"],
            [DEVICE],
            preset="quick",
            readiness=BUSY,
            on_progress=seen.append,
        )

    with pytest.raises(NotMeasuredError, match=r"line-3 could not measure refused\.onnx"):
        _ = bad.measurement
    assert good.measurement.latency_seconds > 0
    came = [progress.newest for progress in seen if progress.newest is not None]
    assert {one.model for one in came} == {"refused.onnx", "net.onnx"}
    assert seen[-1].done == seen[-1].total == 2


def test_a_device_that_stays_away_ends_the_wait_and_its_job_is_found_later(
    plant: Workspace, absent: str
) -> None:
    seen: list[MeasuringProgress] = []
    with open_workspace(plant.root) as workspace:
        with pytest.raises(TimedOutError, match=r"within 0\.3 s"):
            workspace.measure(["net.onnx"], [absent], timeout_seconds=0.3, on_progress=seen.append)
        device = workspace.store.devices.by_name(absent)
        waiting = workspace.store.jobs.waiting(device.id)
        with pytest.raises(TimedOutError, match="withdrawn"):
            workspace.measure(["net.onnx"], [absent], timeout_seconds=0.3, again=True)
        still_waiting = workspace.store.jobs.waiting(device.id)

    assert seen[0].offline == (absent,)
    assert waiting == still_waiting == 1


def test_devices_say_whether_they_are_online_and_what_they_can_run(
    plant: Workspace, absent: str
) -> None:
    with open_workspace("plant") as workspace:
        found = {device.name: device for device in workspace.devices()}

    assert not found[absent].online
    assert found[absent].runtimes[0].library == "onnxruntime"


@pytest.mark.parametrize(
    ("files", "devices", "error"),
    [
        (["none.onnx"], [DEVICE], UsageError),
        (["net.txt"], [DEVICE], UsageError),
        (["net.onnx"], ["nobody"], UnknownDeviceError),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    plant: Workspace, files: list[str], devices: list[str], error: type[GenbaError]
) -> None:
    with open_workspace(plant.root) as workspace, pytest.raises(error) as told:
        workspace.measure(files, devices)

    assert "\n" not in str(told.value)


def test_predictions_are_in_the_order_of_the_files(calibrated: Workspace) -> None:
    folder = calibrated.root.parent
    (folder / "other.onnx").write_bytes((folder / "net.onnx").read_bytes())
    with open_workspace(calibrated.root) as workspace:
        found = workspace.predict(["other.onnx", "net.onnx", "other.onnx"], DEVICE)

    assert [one.model for one in found] == ["other.onnx", "net.onnx"]
    assert found[0].forecasts == found[1].forecasts


def test_a_setting_without_cost_models_says_what_to_run(calibrated: Workspace) -> None:
    command = "genba device calibrate line-3 --threads 2"
    with open_workspace(calibrated.root) as workspace, pytest.raises(UsageError, match=command):
        workspace.predict(["net.onnx"], DEVICE, threads=2)


def test_a_folder_without_a_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="genba init"):
        open_workspace(tmp_path)


def test_files_are_ranked_too(plant: Workspace) -> None:
    with open_workspace(plant.root) as workspace:
        ranking = workspace.rank("net.onnx", proxies=["flops"])

    assert [place.subject.text for place in ranking.places] == ["net.onnx"]


def test_what_is_neither_a_file_nor_a_space_is_not_ranked(plant: Workspace) -> None:
    wrong = "neither a file nor a space"
    with open_workspace(plant.root) as workspace, pytest.raises(UsageError, match=wrong):
        workspace.rank("magic")


def test_a_study_is_one_configuration_whether_from_a_file_or_a_table(studied: Workspace) -> None:
    from_file = config_of("study.toml")

    assert from_file == load_study(Path("study.toml"))
    assert config_of(from_file) is from_file
    assert config_of(from_file.model_dump()) == from_file


def test_the_folder_of_a_table_is_taken_from_the_current_one(
    studied: Workspace, tmp_path: Path
) -> None:
    table = config_of("study.toml").model_dump()

    found = config_of(table | {"data": table["data"] | {"folder": "photos"}})

    assert found.data.folder == str(tmp_path / "photos")


@pytest.mark.parametrize(
    ("change", "why"),
    [({"devices": []}, "devices"), ({"magic": 1}, "magic"), ({"seed": -1}, "seed")],
)
def test_a_table_that_is_no_study_names_the_key(
    studied: Workspace, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        config_of(config_of("study.toml").model_dump() | change)


def test_before_its_first_run_a_study_has_neither_status_nor_result(studied: Workspace) -> None:
    with open_workspace(studied.root) as workspace:
        study = workspace.study("study.toml")

        assert study.name == "stripes"
        assert study.status() is None
        assert study.result() is None
        with pytest.raises(UnknownStudyError):
            workspace.stored_study("stripes")


def test_a_study_that_its_listener_stops_goes_on_from_there(studied: Workspace) -> None:
    stages: list[str] = []

    def stop_at_the_front(event: StudyEvent) -> None:
        if isinstance(event, StageBegan):
            stages.append(event.name)
            if event.name == "front":
                raise KeyboardInterrupt

    with open_workspace(studied.root) as workspace:
        study = workspace.study(Path("study.toml"))
        with pytest.raises(KeyboardInterrupt):
            study.run(stop_at_the_front)
        stopped = study.status()
        again = workspace.stored_study("stripes")

    assert stages[-1] == "front"
    assert stopped is not None
    assert stopped.finished_at is None
    assert stopped.scored > 0
    assert stopped.jobs["done"] >= 11
    assert isinstance(again.config, StudyConfig)
    assert again.config == study.config
