"""From what a device reports to what is kept: energies, statistics, the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from host.gateway.checks import MessageError, text
from host.gateway.messages import outcome_from_pb
from host.job import Job
from host.measurement import (
    Energy,
    Measurement,
    MeasurementFailure,
    Outcome,
    PowerSeries,
    VerifiedOutputs,
)
from host.measurement.energy import energies_of
from host.measurement.estimate import EstimateError, UtilisationModel, records_of
from host.measurement.judge import Baseline, judge
from host.store import Report, Store, UnknownBlobError
from protos import genba_agent_pb2 as pb

Metered = tuple[tuple[PowerSeries, ...], str]
NOTHING_METERED: Metered = ((), "")
RuntimeKey = tuple[str, str, str]
"""The name, library and version of a runtime."""


@dataclass(frozen=True)
class Arrived:
    """A report as it came, and what is known of its job besides."""

    request: bytes  # a serialised ReportRequest
    job: Job
    received_at: datetime
    metered: Metered = NOTHING_METERED
    baselines: Mapping[RuntimeKey, Baseline] | None = None


@dataclass(frozen=True)
class Evaluated:
    """What is kept of a report, what to say of it, and the baselines of the device by now."""

    report: Report
    said: str
    is_probe: bool
    baselines: Mapping[RuntimeKey, Baseline]


class Evaluation:
    """Makes outcomes of reports. Its methods take milliseconds of CPU time and read the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def evaluated(self, arrived: Arrived) -> Evaluated:
        """Everything that follows from a report.

        Raises MessageError where the device sent something that makes no sense.
        """
        request = pb.ReportRequest.FromString(arrived.request)
        job = arrived.job
        if not 1 <= request.attempt <= job.attempt:
            raise MessageError(
                f"attempt must be one of 1 to {job.attempt}, but is {request.attempt}"
            )
        baselines = dict(arrived.baselines or {})
        outcome = self.outcome(request, job, arrived.received_at, arrived.metered, baselines)
        key = text(request.idempotency_key)[:100]
        attempt = job.device_id, job.id, request.attempt
        report = Report.of(attempt, key, outcome, arrived.received_at)
        return Evaluated(report, _said(outcome), job.spec.kind == "probe", baselines)

    def outcome(
        self,
        request: pb.ReportRequest,
        job: Job,
        received_at: datetime,
        metered: Metered,
        baselines: dict[RuntimeKey, Baseline],
    ) -> Outcome:
        """What became of the job. A baseline that was looked up is added to those that are known.

        Raises MessageError.
        """
        outcome = outcome_from_pb(request, job, received_at)
        if isinstance(outcome, VerifiedOutputs):
            self._require_outputs(outcome)
        if not isinstance(outcome, Measurement):
            return outcome
        measured = self._with_energies(outcome, *metered)
        device = self._store.devices.by_id(job.device_id)
        verdict = judge(
            measured,
            self._baseline(measured, baselines),
            emulated=device is not None and device.is_emulated,
        )
        judged = replace(measured, verdict=verdict)
        # The statistics do not depend on the verdict: they are computed once.
        judged.__dict__["latency"] = measured.latency
        return judged

    def _baseline(
        self, measured: Measurement, baselines: dict[RuntimeKey, Baseline]
    ) -> Baseline | None:
        runtime = (measured.runtime, measured.runtime_library, measured.runtime_version)
        if runtime not in baselines:
            found = self._store.measurements.baseline(measured.device_id, *runtime)
            if found is None:
                return None
            baselines[runtime] = found
        return baselines[runtime]

    def _require_outputs(self, outputs: VerifiedOutputs) -> None:
        try:
            size = self._store.blobs.path(outputs.outputs_sha256).stat().st_size
        except UnknownBlobError as error:
            raise MessageError("the outputs were not sent before the report") from error
        if size != outputs.outputs_size_bytes:
            raise MessageError(
                f"the outputs have {size} bytes, but the report says {outputs.outputs_size_bytes}"
            )

    def _with_energies(
        self, measurement: Measurement, series: tuple[PowerSeries, ...], because: str
    ) -> Measurement:
        run = measurement.energy_run
        if run is None:
            return measurement
        whole = replace(run, series=(*run.series, *series))
        energies, why_none = energies_of(whole)
        if because and energies:
            energies = (_warned(energies[0], because), *energies[1:])
        measured = replace(measurement, energy_run=whole, energies=energies)
        if energies:
            return measured
        estimated, why_not = self._estimated(measured)
        if estimated is not None:
            return replace(measured, energies=(_warned(_warned(estimated, why_none), because),))
        reasons = [reason for reason in (why_none, because, why_not) if reason]
        return replace(measured, energy_absent_because="; ".join(reasons))

    def _estimated(self, measurement: Measurement) -> tuple[Energy | None, str]:
        """The energy by what meters said of this device, or else of others with its CPU."""
        run = measurement.energy_run
        if run is None:
            return None, ""
        thermal = measurement.thermal
        throttled = bool(thermal.throttle_events or thermal.throttled)
        because = ""
        for device_ids in self._alike(measurement.device_id):
            records = records_of(self._store.measurements.with_measured_energy(device_ids))
            if not records:
                continue
            try:
                return UtilisationModel.fit(records).estimate(run, throttled=throttled), ""
            except EstimateError as error:
                because = f"no estimate: {error}"
        return None, because

    def _alike(self, device_id: str) -> tuple[list[str], list[str]]:
        """The device itself, and all devices with its CPU."""
        device = self._store.devices.by_id(device_id)
        facts = None if device is None else device.facts
        if facts is None or not facts.cpu_model:
            return [device_id], []
        known = [*self._store.devices.all(), *self._store.devices.removed()]
        real = [d for d in known if d.facts is not None and not d.is_emulated]
        alike = [d.id for d in real if d.facts and d.facts.cpu_model == facts.cpu_model]
        return [device_id], alike


def _said(outcome: Outcome) -> str:
    if isinstance(outcome, Measurement):
        return f"measured, {outcome.verdict.level}"
    if isinstance(outcome, MeasurementFailure):
        return outcome.kind
    return type(outcome).__name__


def _warned(energy: Energy, warning: str) -> Energy:
    return replace(energy, warnings=(*energy.warnings, warning)) if warning else energy
