"""`genba device drift`: whether a device is still as its cost models know it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from host.cli.console import note, print_json, table_console
from host.cli.measure import (
    OnBusyOption,
    TemperatureOption,
    ThreadsOption,
    TimeoutOption,
    WaitQuietOption,
    readiness,
)
from host.cli.models import RuntimeName
from host.cli.pictures import LanguageOption, PictureOption, require_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import GenbaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from host.calibration.drift import DriftReport
    from host.calibration.setting import Setting
    from host.device import Device
    from host.job import Job
    from host.measurement import Measured, Outcome, Readiness
    from host.store import Store
    from host.workspace import Workspace


class NoSentinelsError(UsageError):
    """The device was never calibrated in the setting, so there is nothing to compare with."""


class ShapeChangedError(GenbaError):
    """The device is no longer what its cost models know, and the caller wanted to know."""


class RoundFailedError(GenbaError):
    """The device measured none of its sentinels."""


def drift(  # noqa: PLR0913 - the options of a command
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the device.")],
    *,
    runtime: Annotated[RuntimeName, typer.Option(help="What runs the networks there.")] = "onnx",
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

    if output is not None:
        require_picture(output)
    with opened(workspace) as (found, store):
        device = store.devices.by_name(name)
        setting = Setting.of_device(device, runtime, threads)
        ready = readiness(on_busy, wait_quiet, max_start_temperature)
        report = _report(found, store, device, setting, ready if measure else None, timeout)
    if as_json:
        print_json(drift_record(report))
    else:
        table_console().print(drift_block(report, language))
    if output is not None:
        _draw(report, output, language)
    if report.advice():
        note(report.advice())
    if strict and report.verdict == "reshaped":
        raise ShapeChangedError(report.sentence())


def _report(
    workspace: "Workspace",
    store: "Store",
    device: "Device",
    setting: "Setting",
    ready: "Readiness | None",
    timeout: float | None,
) -> "DriftReport":
    """How the device is, after a round where `ready` says how to measure. Raises
    NoSentinelsError.
    """
    from host.calibration.drift import drift_of
    from host.gateway.server import ensure_gateway

    report = drift_of(store, device, setting)
    if report.references is None:
        raise NoSentinelsError(f"{report.sentence()}: {report.advice()}")
    if ready is None:
        return report
    # Served over both rounds: the device would otherwise lose its host between them.
    with ensure_gateway(workspace, store):
        report = _round(workspace, store, device, report, ready, timeout)
        if report.is_doubtful:
            note(f"{report.sentence()}: it is measured now")
            report = _round(workspace, store, device, report, ready, timeout)
    return report


def _round(
    workspace: "Workspace",
    store: "Store",
    device: "Device",
    report: "DriftReport",
    ready: "Readiness",
    timeout: float | None,
) -> "DriftReport":
    from host.calibration.drift import drift_of
    from host.calibration.sentinels import submit_round

    if report.references is None:
        return report
    jobs = submit_round(store, device, report.setting, report.references, ready)
    outcomes = wait_for_sentinels(workspace, store, device, jobs, ready, timeout)
    failures = _failures(outcomes)
    if len(failures) == len(outcomes):
        raise RoundFailedError(f"{device.name} measured none of its sentinels: {failures[0]}")
    for failure in failures:
        note(f"{device.name} could not measure a sentinel: {failure}")
    return drift_of(store, device, report.setting)


def wait_for_sentinels(
    workspace: "Workspace",
    store: "Store",
    device: "Device",
    jobs: "Mapping[str, Job]",
    ready: "Readiness",
    timeout: float | None,
) -> "dict[str, Measured]":
    """Wait for the jobs of a round, with progress; by the names of the sentinels. They are
    withdrawn where nobody waits any longer, as no later command finds them.
    """
    from host.cli.jobs import Asked, await_outcomes, planned_seconds
    from host.measurement import PRESETS, Measured

    seconds = planned_seconds(PRESETS["quick"], ready.observe_seconds)
    asked = [
        Asked(job, device, name, f"measuring sentinel {name}", seconds)
        for name, job in jobs.items()
    ]
    found: dict[str, Measured] = {}

    def take(one: Asked, outcome: "Outcome") -> None:
        if not isinstance(outcome, Measured):
            raise TypeError(f"job {one.job.id} asked for a measurement: {type(outcome)}")
        found[one.model] = outcome

    await_outcomes(workspace, store, asked, take, timeout=timeout, findable=False)
    return found


def _failures(outcomes: "Mapping[str, Measured]") -> list[str]:
    from host.measurement import MeasurementFailure

    return [
        f"{name}: {outcome.kind.replace('_', ' ')}: {outcome.message.rstrip('.')}"
        for name, outcome in outcomes.items()
        if isinstance(outcome, MeasurementFailure)
    ]


def _draw(report: "DriftReport", output: Path, language: Literal["en", "ja"]) -> None:
    from host.report.drift_plots import drift_figure
    from host.report.plots import png

    output.write_bytes(png(drift_figure(report, language)))
    note(f"wrote {output}")
