"""`genba device drift`: whether a device is still as its cost models know it."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from host.cli.calibrating import (
    NameArgument,
    RuntimeOption,
    Waiter,
)
from host.cli.console import note, print_json, table_console
from host.cli.measure import (
    OnBusyOption,
    TemperatureOption,
    ThreadsOption,
    TimeoutOption,
    WaitQuietOption,
    readiness,
)
from host.cli.pictures import LanguageOption, PictureOption, check_picture, write_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import GenbaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from host.calibration.drift import DriftReport
    from host.calibration.setting import Setting
    from host.device import Device
    from host.measurement import Measured, Readiness
    from host.store import Store


class NoSentinelsError(UsageError):
    """The device was never calibrated in the setting, so there is nothing to compare with."""


class ShapeChangedError(GenbaError):
    """The device is no longer what its cost models know, and the caller wanted to know."""


class RoundFailedError(GenbaError):
    """The device measured none of its sentinels."""


def drift(  # noqa: PLR0913 - the options of a command
    name: NameArgument,
    *,
    runtime: RuntimeOption = "onnx",
    threads: ThreadsOption = 1,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure a round of sentinels now.")
    ] = True,
    on_busy: OnBusyOption = "refuse",
    wait_quiet: WaitQuietOption = 30.0,
    max_start_temperature: TemperatureOption = None,
    timeout: TimeoutOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with 1 where the device needs calibrating.")
    ] = False,
    as_json: JsonOption = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Compare a device with its calibration: it measures three sentinels, and once more if odd.

    A change common to all of them only scales predictions. Ends with 0 then; with --strict it ends
    with 1 where their shape changed, so that only a new calibration helps.
    """
    from host.calibration.setting import Setting
    from host.report.drift import drift_block, drift_record

    check_picture(output)
    with opened(workspace) as (found, store), ExitStack() as stack:
        device = store.devices.by_name(name)
        setting = Setting.of_device(device, runtime, threads)
        report = _known(store, device, setting)
        if measure:
            ready = readiness(on_busy, wait_quiet, max_start_temperature)
            waiter = Waiter(found, store, device, stack, timeout, findable=False)
            report = _measured(store, device, report, waiter, ready)
    if as_json:
        print_json(drift_record(report))
    else:
        table_console().print(drift_block(report, language))
    if output is not None:
        from host.report.drift_plots import drift_figure

        write_picture(output, drift_figure(report, language))
    if report.advice():
        note(report.advice())
    if strict and report.verdict == "reshaped":
        raise ShapeChangedError(report.sentence())


def _known(store: "Store", device: "Device", setting: "Setting") -> "DriftReport":
    """How the device was at its last round. Raises NoSentinelsError."""
    from host.calibration.drift import drift_of

    report = drift_of(store, device, setting)
    if report.references is None:
        raise NoSentinelsError(f"{report.sentence()}: {report.advice()}")
    return report


def _measured(
    store: "Store", device: "Device", report: "DriftReport", waiter: Waiter, ready: "Readiness"
) -> "DriftReport":
    """How the device is after a round, and one more where that is odd."""
    report = _round(store, device, report, waiter, ready)
    if report.is_doubtful:
        note(f"{report.sentence()}: it is measured now")
        report = _round(store, device, report, waiter, ready)
    return report


def _round(
    store: "Store", device: "Device", report: "DriftReport", waiter: Waiter, ready: "Readiness"
) -> "DriftReport":
    from host.calibration.drift import drift_of
    from host.calibration.sentinels import submit_round

    if report.references is None:
        return report
    outcomes = waiter(submit_round(store, device, report.setting, report.references, ready))
    failures = _failures(outcomes)
    if len(failures) == len(outcomes):
        raise RoundFailedError(f"{device.name} measured none of its sentinels: {failures[0]}")
    for failure in failures:
        note(f"{device.name} could not measure a sentinel: {failure}")
    return drift_of(store, device, report.setting)


def _failures(outcomes: "Mapping[str, Measured]") -> list[str]:
    from host.measurement import MeasurementFailure

    return [
        f"{name}: {outcome.kind.replace('_', ' ')}: {outcome.message.rstrip('.')}"
        for name, outcome in outcomes.items()
        if isinstance(outcome, MeasurementFailure)
    ]
