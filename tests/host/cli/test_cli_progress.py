"""What is told while devices work: what they do, how long it takes at most, why nothing comes."""

import io
from collections.abc import Callable, Sequence

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from host.api.asking import Asked
from host.calibration.timing import planned_seconds
from host.cli.jobs import JobWatch, NoResultError
from host.cli.progress import DeviceWork, JobBars, JobLines
from host.device import Device
from host.measurement import PRESETS, MeasurementFailure, MeasureSpec, ModelRun
from host.store import Store, Waiting


class Seconds:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Recorder(JobLines):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[DeviceWork] = []
        self.said: list[str] = []

    def update(self, works: Sequence[DeviceWork]) -> None:
        self.works = list(works)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def ask(plant_store: Store) -> Callable[[Device, str], Asked]:
    """Asks a device to measure a model, which takes 60 s at most."""

    def asked(device: Device, model: str) -> Asked:
        blob = plant_store.blobs.put(model.encode())
        spec = MeasureSpec(ModelRun(blob.sha256, blob.size_bytes))
        job = plant_store.jobs.submit(device.id, spec, label=model)
        return Asked(job, device, model, f"measuring {model}", 60.0)

    return asked


def test_the_time_left_is_that_of_the_budgets_less_what_was_spent(
    plant_store: Store, enrol: Callable[[str], Device], ask: Callable[[Device, str], Asked]
) -> None:
    kiosk, press = enrol("kiosk"), enrol("press")
    asked = [ask(kiosk, "a"), ask(kiosk, "b"), ask(press, "a")]
    clock, told = Seconds(), Recorder()
    watch = JobWatch(plant_store, asked, told, timeout=None, clock=clock)
    plant_store.jobs.claim(kiosk.id, "session", 60.0)

    watch(Waiting((), ()))
    clock.now += 45
    watch(Waiting((), ()))
    after_45_seconds = told.works
    watch.ended(asked[0].job.id)
    clock.now += 45
    watch(Waiting((), ()))

    assert after_45_seconds == [
        DeviceWork("kiosk", "measuring a", 0, 2, left_seconds=75.0, total_seconds=120.0),
        DeviceWork("press", None, 0, 1, left_seconds=60.0, total_seconds=60.0),
    ]
    assert told.works[0] == DeviceWork("kiosk", None, 1, 2, 60.0, 120.0)


def test_a_refusal_is_told_once_and_again_when_the_device_refuses_again(
    plant_store: Store, enrol: Callable[[str], Device], ask: Callable[[Device, str], Asked]
) -> None:
    kiosk = enrol("kiosk")
    one = ask(kiosk, "a")
    lease = plant_store.jobs.claim(kiosk.id, "session", 60.0)
    assert lease is not None
    refusal = MeasurementFailure(kiosk.id, None, "not_ready", "62 °C is too hot", plant_store.now())
    plant_store.jobs.report(kiosk.id, one.job.id, lease.attempt, "key", refusal)
    clock, told = Seconds(), Recorder()
    watch = JobWatch(plant_store, [one], told, timeout=None, clock=clock)

    for _ in range(3):
        watch(Waiting((), ()))
        clock.now += 1

    assert told.said == ["kiosk is not ready: 62 °C is too hot; trying again within 15 s"]


def test_offline_devices_are_named_once_and_not_at_once(
    plant_store: Store, enrol: Callable[[str], Device], ask: Callable[[Device, str], Asked]
) -> None:
    kiosk, press = enrol("kiosk"), enrol("press")
    asked = [ask(kiosk, "a"), ask(press, "a")]
    clock, told = Seconds(), Recorder()
    watch = JobWatch(plant_store, asked, told, timeout=None, clock=clock)

    watch(Waiting((), (kiosk, press)))
    at_once = list(told.said)
    for _ in range(3):
        clock.now += 2
        watch(Waiting((), (kiosk, press)))

    assert at_once == []
    assert told.said == [
        "waiting for kiosk, press, which are offline: is genba-agent running there?"
    ]


def test_after_the_timeout_the_jobs_that_stay_are_counted(
    plant_store: Store, enrol: Callable[[str], Device], ask: Callable[[Device, str], Asked]
) -> None:
    kiosk = enrol("kiosk")
    asked = [ask(kiosk, "a"), ask(kiosk, "b")]
    clock = Seconds()
    watch = JobWatch(plant_store, asked, Recorder(), timeout=5.0, clock=clock)
    clock.now += 5

    with pytest.raises(NoResultError, match="no result within 5 s: 2 jobs stay queued"):
        watch(Waiting((), ()))


def test_lines_say_what_begins_and_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JobLines()
    first = DeviceWork("kiosk", "measuring a.onnx", 0, 2, 130.0, 130.0)

    lines.update([first])
    lines.update([first])
    lines.update([DeviceWork("kiosk", None, 1, 2, 65.0, 130.0)])
    lines.update([DeviceWork("kiosk", "measuring b.onnx", 1, 2, 65.0, 130.0)])

    assert capsys.readouterr().err.splitlines() == [
        "genba: kiosk: measuring a.onnx (1 of 2, at most 2 min left)",
        "genba: kiosk: measuring b.onnx (2 of 2, at most 65 s left)",
    ]


def test_bars_show_names_as_they_are_and_leave_the_screen_to_results() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20))
    progress = Progress(*columns, TextColumn("{task.fields[left]}", markup=False), console=console)
    with progress:
        bars = JobBars(progress)

        bars.update([DeviceWork("kiosk", "measuring a[bold].onnx", 0, 2, 30.0, 60.0)])
        bars.say("press is not ready: [1] hot")
        progress.refresh()
        with bars.paused():
            live_meanwhile = progress.live.is_started

    shown = console.file
    assert isinstance(shown, io.StringIO)
    assert "kiosk: measuring a[bold].onnx" in shown.getvalue()
    assert "genba: press is not ready: [1] hot" in shown.getvalue()
    assert "0 of 2, at most 30 s left" in shown.getvalue()
    assert not live_meanwhile


def test_energy_windows_and_processes_count_in_the_time_that_a_plan_takes() -> None:
    plan = PRESETS["quick"]

    plain = planned_seconds(plan, observe_seconds=2.0)
    energy = planned_seconds(plan.with_energy(), observe_seconds=2.0)
    paced = planned_seconds(plan.with_energy(paced_hertz=5.0), observe_seconds=2.0)

    assert plain >= plan.budget_seconds + 2.0
    assert energy - plain >= 11 * plan.energy_window_seconds
    assert paced - energy == pytest.approx(2 * plan.energy_window_seconds)
