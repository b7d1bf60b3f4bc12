"""`genba device calibrate`: fit a device's cost models on a few measurements, unattended."""

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.calibrating import (
    EnergyOption,
    NameArgument,
    PresetOption,
    RuntimeOption,
    Waiter,
    manner_of,
    measuring_seconds,
)
from host.cli.console import note, print_json, table_console
from host.cli.measure import (
    AgainOption,
    OnBusyOption,
    TemperatureOption,
    ThreadsOption,
    TimeoutOption,
    WaitQuietOption,
    readiness,
)
from host.cli.pictures import LanguageOption, PictureOption, check_picture, write_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from host.calibration.calibration import Calibration, Phase, Wish
    from host.calibration.drift import CalibrationWatch
    from host.calibration.measuring import Manner
    from host.calibration.setting import Setting
    from host.calibration.specimens import Form, Specimen
    from host.device import Device
    from host.report.calibration import CalibrationReport
    from host.store import Store

_PHASES: "dict[Phase, str]" = {
    "micro-graphs": "synthetic chains",
    "candidates": "whole networks",
    "limit": "candidates whose interval straddles the limit",
}
_LIMIT = re.compile(r"latency_ms=(\d+(?:\.\d*)?|\.\d+)")


def calibrate(  # noqa: PLR0913 - the options of a command
    name: NameArgument,
    *,
    runtime: RuntimeOption = "onnx",
    threads: ThreadsOption = 1,
    measurements: Annotated[
        int,
        typer.Option(
            min=10,
            max=300,
            help="How many networks to measure at most; three of them are measured four times"
            " more each, to see later by them how the device drifts.",
        ),
    ] = 24,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="latency_ms=MS",
            help="Measure more where this limit decides.",
            show_default=False,
        ),
    ] = None,
    preset: PresetOption = "quick",
    energy: EnergyOption = False,
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
    from host.calibration.calibration import Wish
    from host.calibration.setting import Setting
    from host.report.calibration import CalibrationReport, calibration_card, calibration_record

    limit_seconds = _limit_seconds(limit)
    check_picture(output)
    with opened(workspace) as (found, store):
        device = store.devices.by_name(name)
        device.require_real("a cost model")
        setting = Setting.of_device(device, runtime, threads)
        ready = readiness(on_busy, wait_quiet, max_start_temperature)
        manner = manner_of(store, device, preset, ready, "calibrate", energy=energy, again=again)
        with ExitStack() as stack:
            waiter = Waiter(found, store, device, stack, timeout, findable=not again)
            try:
                wish = Wish(measurements, limit_seconds)
                specimens = _specimens(runtime, seed)
                calibration = _calibrated(store, device, setting, manner, waiter, specimens, wish)
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
        waiter.tell_known()
    if as_json:
        print_json(calibration_record(report))
    else:
        table_console().print(calibration_card(report, language))
    if output is not None:
        from host.report.calibration_plots import calibration_figure

        write_picture(output, calibration_figure(report, language))


def _limit_seconds(limit: str | None) -> float | None:
    if limit is None:
        return None
    match = _LIMIT.fullmatch(limit.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--limit {limit}: write it as latency_ms=40")
    return float(match[1]) / 1000


def _specimens(form: "Form", seed: int) -> "tuple[Sequence[Specimen], Sequence[Specimen]]":
    """Synthetic chains and whole networks, in the format that the runtime takes."""
    from host.calibration.calibration import POOL
    from host.calibration.micrographs import micrographs, small_networks
    from host.calibration.specimens import mobile_candidates

    return micrographs(form), (*small_networks(form), *mobile_candidates(POOL, seed, form))


def _calibrated(
    store: "Store",
    device: "Device",
    setting: "Setting",
    manner: "Manner",
    waiter: Waiter,
    specimens: "tuple[Sequence[Specimen], Sequence[Specimen]]",
    wish: "Wish",
) -> "Calibration":
    from cost_models.latency import LatencyModel
    from host.calibration.calibration import Calibrator
    from host.calibration.drift import CalibrationWatch
    from host.calibration.measuring import Measurer
    from host.calibration.sentinels import token_of
    from host.calibration.stored import models_elsewhere

    micrographs, candidates = specimens
    token = token_of(f"{manner.purpose} {manner.plan}")
    watch = CalibrationWatch(store, device, setting, waiter, note, token, manner.readiness)
    each = measuring_seconds(manner.plan, manner.readiness)

    def say(phase: "Phase", done: int, total: int) -> None:
        _say_phase(device, phase, done, total, each * (total - done) + _reference_seconds(watch))

    return Calibrator(
        micrographs=micrographs,
        candidates=candidates,
        measure=Measurer(store, device, setting, manner, waiter),
        wish=wish,
        threads=setting.threads,
        others=models_elsewhere(store, device.id, setting, LatencyModel),
        on_phase=say,
        after_batch=watch.after_batch,
        latency_of=watch.latency_of,
    ).run()


def _reference_seconds(watch: "CalibrationWatch") -> float:
    """How long the measurements of sentinels that are still to come take at most."""
    from host.calibration.sentinels import PLAN

    return watch.references_left * measuring_seconds(PLAN, watch.readiness)


def _say_phase(device: "Device", phase: "Phase", done: int, total: int, seconds: float) -> None:
    """Say what comes next and how long all of the rest takes at most."""
    note(
        f"{device.name}: {_PHASES[phase]}; {done} of at most {total} networks done, at most"
        f" {max(1.0, seconds / 60):.0f} min left if the device is ready and quiet"
    )


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
