"""`genba device drift`: a round of sentinels now, the rounds so far, and what to do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from host.__main__ import main
from host.calibration.sentinels import KINDS, SentinelModel, measure_references
from host.calibration.setting import Setting
from host.device import Device
from host.job import Job
from host.measurement import (
    Measured,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    Outcome,
    Reason,
    Verdict,
)
from host.store import Store
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.cli.conftest import Answer, MadeUpDevice

SETTING = Setting("onnx", "onnxruntime", "1.23.2", 1)
SECONDS = {"conv 3x3": 0.020, "copy": 0.004, "tiny $ [b]": 0.0005}
COMMAND = ("device", "drift", "kiosk")
REJECT = Verdict("REJECT", (Reason("CONTENDED", "REJECT", "Other programs were busy."),))


class Speed:
    """How much slower than its references the device is, by sentinel."""

    def __init__(self, make: Callable[..., Measurement], store: Store) -> None:
        self.slowness: dict[str, float] = {}
        self.verdict = Verdict("OK")
        self.fails = False
        self._make, self._store = make, store

    def measured(self, device_id: str, name: str, run: ModelRun) -> Measurement:
        seconds = SECONDS[name] * self.slowness.get(name, 1.0)
        made = self._make(device_id, run.model_sha256, seconds, verdict=self.verdict)
        return replace(made, run=run, measured_at=self._store.now())

    def __call__(self, job: Job) -> Outcome:
        assert isinstance(job.spec, MeasureSpec)
        if self.fails:
            sha256 = job.spec.run.model_sha256
            return MeasurementFailure(job.device_id, sha256, "timeout", "slow.", job.created_at)
        return self.measured(job.device_id, job.label.removeprefix("sentinel "), job.spec.run)


@pytest.fixture
def speed(make_measurement: Callable[..., Measurement], plant_store: Store) -> Speed:
    return Speed(make_measurement, plant_store)


@pytest.fixture
def kiosk(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    plant_store: Store,
    speed: Speed,
    monkeypatch: pytest.MonkeyPatch,
) -> "MadeUpDevice":
    """A device that has references and works."""
    monkeypatch.setattr("host.calibration.sentinels.REFERENCE_ROUNDS", 2)
    device = start_device("kiosk", speed)
    known = plant_store.devices.by_name("kiosk")
    models = []
    for kind, name in zip(KINDS, SECONDS, strict=True):
        blob = plant_store.blobs.put(name.encode())
        run = ModelRun(blob.sha256, blob.size_bytes)
        models.append(SentinelModel(kind, name, speed.measured(known.id, name, run)))

    def wait(jobs: Any) -> dict[str, Measured]:
        from host.store import wait_for_outcomes

        names = {job.id: name for name, job in jobs.items()}
        done = wait_for_outcomes(plant_store, list(jobs.values()), poll_seconds=0.02)
        return {names[job.id]: out for job, out in done if isinstance(out, Measured)}

    measure_references(plant_store, known, SETTING, models, wait, token="january")
    device.done.clear()
    return device


def as_json(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*COMMAND, *options, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_steady_device_needs_one_round(
    kiosk: "MadeUpDevice", capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys)

    assert found["verdict"] == "steady"
    assert (found["ratio"], found["since"], found["advice"]) == (1, None, None)
    assert [one["kind"] for one in found["sentinels"]] == list(KINDS)
    assert found["rounds"][0]["ratios"] == pytest.approx([1, 1, 1])
    assert found["rounds"][0]["verdicts"] == ["OK"] * 3
    assert len(kiosk.done) == 3


def test_a_shift_is_found_at_once_as_an_odd_round_is_measured_again(
    kiosk: "MadeUpDevice",
    speed: Speed,
    plant_store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    speed.slowness = dict.fromkeys(SECONDS, 1.3)

    assert main([*COMMAND, "--strict", "-o", str(tmp_path / "drift.png")]) == 0
    printed = capsys.readouterr()

    assert len(kiosk.done) == 6
    shown = " ".join(printed.out.split())
    assert "Sentinels of kiosk, onnxruntime 1.23.2, 1 thread" in shown
    assert "tiny $ [b]" in shown
    assert "kiosk takes 130.0% of the calibrated time for everything" in shown
    assert "+30.0% OK" in shown
    assert "one more decides: it is measured now" in printed.err
    assert "genba device probe kiosk" in printed.err
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")


def test_a_changed_shape_asks_for_calibration_and_ends_with_1_where_it_is_strict(
    kiosk: "MadeUpDevice", speed: Speed, capsys: pytest.CaptureFixture[str]
) -> None:
    speed.slowness = {"copy": 1.5}

    assert as_json(capsys)["verdict"] == "reshaped"
    assert main([*COMMAND, "--no-measure", "--strict"]) == 1

    said = capsys.readouterr().err
    assert "its sentinels disagree (conv 3x3 +0.0%, copy +50.0%" in said
    assert "calibrate again: `genba device calibrate kiosk --again`" in said


def test_what_is_rejected_is_shown_and_does_not_count(
    kiosk: "MadeUpDevice", speed: Speed, capsys: pytest.CaptureFixture[str]
) -> None:
    speed.slowness, speed.verdict = dict.fromkeys(SECONDS, 2.0), REJECT

    assert main(list(COMMAND)) == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "(+100.0%) REJECT" in shown
    assert "not counted: REJECT CONTENDED" in shown
    assert "No round of sentinels on kiosk counts yet." in shown


def test_no_measure_shows_what_is_known_without_the_device(
    kiosk: "MadeUpDevice", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--no-measure", "--lang", "ja", "-o", str(tmp_path / "a.png")]) == 0

    assert kiosk.done == []
    assert "監視モデル" in capsys.readouterr().out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_device_that_measures_nothing_is_an_error(
    kiosk: "MadeUpDevice", speed: Speed, capsys: pytest.CaptureFixture[str]
) -> None:
    speed.fails = True

    assert main(list(COMMAND)) == 1
    assert (
        "kiosk measured none of its sentinels: conv 3x3: timeout: slow" in capsys.readouterr().err
    )


def test_a_device_that_is_offline_is_not_waited_for_longer_than_asked(
    served: Workspace,
    kiosk: "MadeUpDevice",
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk.close()

    assert main([*COMMAND, "--timeout", "0.5"]) == 1

    assert "what was asked for is withdrawn" in capsys.readouterr().err
    assert plant_store.jobs.waiting(plant_store.devices.by_name("kiosk").id) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            [],
            "kiosk has no sentinels for onnxruntime 1.23.2, 1 thread: calibrate it: `genba device",
        ),
        (["--threads", "2"], "`genba device calibrate kiosk --threads 2`"),
        (["-o", "picture.jpg"], "must end with .png"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    served: Workspace,
    enrol: Callable[[str], Device],
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enrol("kiosk")

    assert main([*COMMAND, *options]) == 2

    assert said in " ".join(capsys.readouterr().err.split())
