"""`genba device probe`: how a device is, and how fast its reference models run."""

from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from host.cli.console import note, print_json, table_console
from host.cli.measure import (
    OnBusyOption,
    TemperatureOption,
    TimeoutOption,
    WaitQuietOption,
    readiness,
)
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import GenbaError

if TYPE_CHECKING:
    from host.api.asking import Asked
    from host.device import Device
    from host.measurement import Outcome, ProbeResult
    from host.measurement.judge import Baseline
    from host.store import Store

_SECONDS = 30.0  # shown as the time that a probe takes at most; it has no budget


class NotProbedError(GenbaError):
    """The device could not be probed, or no reference model ran there."""


def probe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the device.")],
    *,
    on_busy: OnBusyOption = "refuse",
    wait_quiet: WaitQuietOption = 30.0,
    max_start_temperature: TemperatureOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Observe a device and run its reference models: the baseline that verdicts compare with."""
    from host.api.asking import Asked
    from host.cli.jobs import await_outcomes
    from host.measurement import ProbeSpec, is_disturbed
    from host.report.measurement import probe_block
    from host.report.records import probe_record

    found_probes: list[ProbeResult] = []
    with opened(workspace) as (found, store):
        device = store.devices.by_name(name)
        before = _baselines(store, device)
        spec = ProbeSpec(readiness(on_busy, wait_quiet, max_start_temperature))
        job = store.jobs.submit(device.id, spec, purpose=f"probe {uuid4().hex}", priority=1)

        def keep(one: Asked, outcome: "Outcome") -> None:
            found_probes.append(_probed(one, outcome))

        one = Asked(job, device, "", "probing", spec.readiness.observe_seconds + _SECONDS)
        await_outcomes(found, store, [one], keep, timeout=timeout, findable=False)
    result = found_probes[0]
    if as_json:
        print_json(probe_record(result, device.name))
    else:
        table_console().print(probe_block(result, device.name, before))
    if not any(run.latency_seconds for run in result.references):
        raise NotProbedError(f"no reference model ran on {name}: its baseline stays as it was")
    if is_disturbed(result):
        note(f"{name} was disturbed, so this sets no baseline: probe it again when it is quiet")
    else:
        note(f"this is the new baseline of {name}: verdicts on later measurements compare with it")


def _baselines(store: "Store", device: "Device") -> "dict[str, Baseline]":
    """The baseline of each runtime that works, by its name."""
    runtimes = device.facts.runtimes if device.facts else ()
    found = {
        runtime.name: store.measurements.baseline(
            device.id, runtime.name, runtime.library, runtime.version
        )
        for runtime in runtimes
        if runtime.works
    }
    return {name: baseline for name, baseline in found.items() if baseline is not None}


def _probed(one: "Asked", outcome: "Outcome") -> "ProbeResult":
    from host.cli.results import failure_sentence
    from host.measurement import MeasurementFailure, ProbeResult

    if isinstance(outcome, ProbeResult):
        return outcome
    if isinstance(outcome, MeasurementFailure):
        raise NotProbedError(failure_sentence(one, outcome))
    raise NotProbedError(f"job {one.job.id} has a result of another kind")
