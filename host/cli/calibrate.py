"""`genba device calibrate`: fit a device's cost models on a few measurements, unattended."""

import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

import typer

from host.cli.console import note, print_json, table_console
from host.cli.measure import (
    AgainOption,
    OnBusyOption,
    Preset,
    TemperatureOption,
    ThreadsOption,
    TimeoutOption,
    WaitQuietOption,
    enough_seconds,
    metered,
    readiness,
)
from host.cli.models import RuntimeName
from host.cli.pictures import LanguageOption, PictureOption, require_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.calibration.calibration import Calibration, Phase
    from host.calibration.measuring import Manner
    from host.calibration.setting import Setting
    from host.device import Device
    from host.job import Job
    from host.measurement import Measured, Outcome
    from host.report.calibration import CalibrationReport
    from host.store import Store
    from host.workspace import Workspace

_PHASES: "dict[Phase, str]" = {
    "micro-graphs": "synthetic chains",
    "candidates": "whole networks",
    "limit": "candidates whose interval straddles the limit",
}
_LIMIT = re.compile(r"latency_ms=(\d+(?:\.\d*)?|\.\d+)")


def calibrate(  # noqa: PLR0913 - the options of a command
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the device.")],
    *,
    runtime: Annotated[RuntimeName, typer.Option(help="What runs the networks there.")] = "onnx",
    threads: ThreadsOption = 1,
    measurements: Annotated[
        int, typer.Option(min=10, max=300, help="How many networks to measure at most.")
    ] = 24,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="latency_ms=MS",
            help="Measure more where this limit decides.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="How carefully to measure each network.")
    ] = "quick",
    energy: Annotated[
        bool, typer.Option("--energy", help="Measure energy too: two minutes more a network.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="For the choice of candidates.")] = 0,
    on_busy: OnBusyOption = "refuse",
    wait_quiet: WaitQuietOption = 30.0,
    max_start_temperature: TemperatureOption = None,
    timeout: TimeoutOption = None,
    again: AgainOption = False,
    as_json: JsonOption = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Fit the cost models of a device on some two dozen measurements, unattended.

    The device measures chains of equal steps, then whole networks, chosen so that each teaches
    most. Ctrl-C loses nothing: the same command goes on. Ends with a card of what was learned.
    """
    from host.calibration.setting import Setting
    from host.report.calibration import CalibrationReport, calibration_card, calibration_record

    _require_onnx(runtime)
    limit_seconds = _limit_seconds(limit)
    if output is not None:
        require_picture(output)
    with opened(workspace) as (found, store):
        device = store.devices.by_name(name)
        setting = Setting.of_device(device, runtime, threads)
        ready = readiness(on_busy, wait_quiet, max_start_temperature)
        purpose = f"calibrate {uuid4().hex}" if again else "calibrate"
        manner = manner_of(store, device, preset, ready, purpose, energy=energy)
        with ExitStack() as stack:
            waiter = Waiter(found, store, device, manner, stack, timeout, findable=not again)
            try:
                calibration = _calibrated(
                    store, device, setting, manner, waiter, measurements, limit_seconds, seed
                )
            except KeyboardInterrupt:
                if not again:
                    note("what was measured is kept: the same command goes on from there")
                raise
        report = CalibrationReport(
            device.name,
            setting,
            store.now(),
            calibration,
            _energy(calibration) if energy else None,
        )
        _keep(store, device, report)
        if waiter.known:
            note(f"{waiter.known} of them had been measured before; --again measures anew")
    if as_json:
        print_json(calibration_record(report))
    else:
        table_console().print(calibration_card(report, language))
    if output is not None:
        _draw(report, output, language)


def _require_onnx(runtime: RuntimeName) -> None:
    if runtime != "onnx":
        raise UsageError(
            "the networks to calibrate with are written as ONNX only, which"
            f" {runtime} runtimes do not run: calibrate with --runtime onnx"
        )


def _limit_seconds(limit: str | None) -> float | None:
    if limit is None:
        return None
    match = _LIMIT.fullmatch(limit.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--limit {limit}: write it as latency_ms=40")
    return float(match[1]) / 1000


def manner_of(
    store: "Store", device: "Device", preset: Preset, ready: Any, purpose: str, *, energy: bool
) -> "Manner":
    """How to measure; with energy its windows suit the device's meter."""
    from host.calibration.measuring import Manner
    from host.measurement import PRESETS, MeasureSpec, ModelRun

    plan = PRESETS[preset].with_energy() if energy else PRESETS[preset]
    spec = MeasureSpec(ModelRun("", 0), plan, ready, enough_seconds(plan, ready))
    with_meter, purpose = metered(store, device, spec, purpose)
    if not isinstance(with_meter, MeasureSpec):
        raise TypeError(f"{type(with_meter)} measures nothing")
    return Manner(with_meter.plan, ready, with_meter.timeout_seconds, purpose)


def _calibrated(
    store: "Store",
    device: "Device",
    setting: "Setting",
    manner: "Manner",
    waiter: "Waiter",
    measurements: int,
    limit_seconds: float | None,
    seed: int,
) -> "Calibration":
    from cost_models.latency import LatencyModel
    from host.calibration.calibration import POOL, Calibrator, Wish
    from host.calibration.drift import CalibrationWatch
    from host.calibration.measuring import Measurer
    from host.calibration.micrographs import micrographs, small_networks
    from host.calibration.sentinels import token_of
    from host.calibration.specimens import mobile_candidates
    from host.calibration.stored import models_elsewhere

    token = token_of(f"{manner.purpose} {manner.plan}")
    watch = CalibrationWatch(store, device, setting, waiter, note, token, manner.readiness)
    return Calibrator(
        micrographs=micrographs(),
        candidates=(*small_networks(), *mobile_candidates(POOL, seed)),
        measure=Measurer(store, device, setting, manner, waiter),
        wish=Wish(measurements, limit_seconds),
        threads=setting.threads,
        others=models_elsewhere(store, device.id, setting, LatencyModel),
        on_phase=waiter.say_phase,
        after_batch=watch.after_batch,
        latency_of=watch.latency_of,
    ).run()


class Waiter:
    """Waits for outcomes and says how far the whole calibration is; serves the workspace from the
    first wait to the end, where nobody else does.
    """

    def __init__(
        self,
        workspace: "Workspace",
        store: "Store",
        device: "Device",
        manner: "Manner",
        stack: ExitStack,
        timeout: float | None,
        *,
        findable: bool,
    ) -> None:
        from host.cli.jobs import planned_seconds

        self.known = 0
        """How many outcomes were there already."""
        self._workspace, self._store, self._device = workspace, store, device
        self._stack = stack
        self._is_serving = False
        self._timeout = timeout
        self._ends_at: float | None = None
        self._findable = findable
        self._seconds_each = planned_seconds(manner.plan, manner.readiness.observe_seconds)

    def say_phase(self, phase: "Phase", done: int, total: int) -> None:
        """Say what comes next and how long all of the rest takes at most."""
        minutes = max(1.0, (total - done) * self._seconds_each / 60)
        note(
            f"{self._device.name}: {_PHASES[phase]}; {done} of at most {total} networks done, at"
            f" most {minutes:.0f} min left if the device is ready"
        )

    def __call__(self, jobs: "Mapping[str, Job]") -> "dict[str, Measured]":
        """The outcomes, by the name of what is measured."""
        from host.cli.jobs import Asked, await_outcomes
        from host.measurement import Measured

        asked = [
            Asked(job, self._device, name, f"measuring {name}", self._seconds_each)
            for name, job in jobs.items()
        ]
        found: dict[str, Measured] = {}

        def take(one: Asked, outcome: "Outcome") -> None:
            if not isinstance(outcome, Measured):
                raise TypeError(f"job {one.job.id} asked for a measurement: {type(outcome)}")
            found[one.model] = outcome

        self._serve(jobs)
        self.known += await_outcomes(
            self._workspace,
            self._store,
            asked,
            take,
            timeout=self._seconds_left(),
            findable=self._findable,
        )
        return found

    def _seconds_left(self) -> float | None:
        """Of the time to wait, which begins with the first wait."""
        if self._timeout is None:
            return None
        if self._ends_at is None:
            self._ends_at = time.monotonic() + self._timeout
        return max(0.0, self._ends_at - time.monotonic())

    def _serve(self, jobs: "Mapping[str, Job]") -> None:
        """Between two batches the device would otherwise lose its host and come back late."""
        from host.gateway.server import ensure_gateway

        progress = self._store.jobs.progress([job.id for job in jobs.values()])
        if not self._is_serving and any(one.outcome is None for one in progress.values()):
            self._stack.enter_context(ensure_gateway(self._workspace, self._store))
            self._is_serving = True


def _energy(calibration: "Calibration") -> Any:
    """The models of power and energy, or why there are none."""
    from host.calibration.energy import NoEnergyError, fit_energy

    try:
        return fit_energy(calibration)
    except NoEnergyError as error:
        return str(error)


def _keep(store: "Store", device: "Device", report: "CalibrationReport") -> None:
    """Store every model with the networks that it was fitted on."""
    from host.calibration.stored import Example, keep

    for model in report.models:
        examples = [
            Example(row.name, row.measurement.model_sha256, row.number)
            for row in report.rows_of(model)
        ]
        keep(store, device.id, report.setting, model, examples, source=report.source_of(model))


def _draw(report: "CalibrationReport", output: Path, language: Literal["en", "ja"]) -> None:
    from host.report.calibration_plots import calibration_figure
    from host.report.plots import png

    output.write_bytes(png(calibration_figure(report, language)))
    note(f"wrote {output}")
