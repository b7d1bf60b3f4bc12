"""From what a device reports to what is kept: meters of the network, energies, the verdict."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from host.errors import GenbaError
from host.gateway.checks import MessageError, finite, optional
from host.gateway.messages import outcome_from_pb
from host.gateway.samples import phases_from_pb
from host.job import Job
from host.measurement import (
    Energy,
    Measurement,
    MeasureSpec,
    Outcome,
    Phase,
    PowerSeries,
    Spec,
    VerifiedOutputs,
)
from host.measurement.energy import energies_of
from host.measurement.estimate import EstimateError, UtilisationModel, records_of
from host.measurement.judge import judge
from host.store import Store, UnknownBlobError
from protos import genba_agent_pb2 as pb

Metered = tuple[tuple[PowerSeries, ...], str]
NOTHING_METERED: Metered = ((), "")
_log = logging.getLogger("genba.gateway")


class Metering(Protocol):
    """Reads the meters on the network that are bound to devices. Its methods may block."""

    def started(self, device_id: str, job_id: str, spec: Spec) -> None:
        """Begin to read the meter of the device, if it has one."""

    def finished(
        self, job_id: str, sent_monotonic_seconds: float | None, phases: Sequence[Phase]
    ) -> Metered:
        """End reading; gives the series over the phases on the device's clock, and what is wrong
        with it.
        """

    def dropped(self, job_id: str) -> None:
        """End reading; nobody wants the series."""


class Reports:
    """Makes outcomes of reports. Its methods block: call them off the event loop."""

    def __init__(self, store: Store, metering: Metering | None) -> None:
        self._store = store
        self._metering = metering
        self._lock = threading.Lock()
        self._metered: dict[str, str] = {}  # the job being metered, by device
        # Of the last report of each device: it sends it again where it did not hear the answer.
        self._answers: dict[str, tuple[str, Metered]] = {}

    def claimed(self, job: Job) -> None:
        """Read the meter of the device while it works on a job with an energy run."""
        self.left(job.device_id)
        spec = job.spec
        if self._metering is None or not isinstance(spec, MeasureSpec):
            return
        if spec.plan.energy_windows == 0:
            return
        with self._lock:
            self._metered[job.device_id] = job.id
        try:
            self._metering.started(job.device_id, job.id, spec)
        except GenbaError as error:  # the device measures all the same
            _log.warning("the meter for job %s is not read: %s", job.id, error)

    def left(self, device_id: str) -> None:
        """The device no longer works on the job that it worked on."""
        with self._lock:
            job_id = self._metered.pop(device_id, None)
            self._answers.pop(device_id, None)
        if job_id is not None and self._metering is not None:
            self._metering.dropped(job_id)

    def close(self) -> None:
        """End all readings."""
        with self._lock:
            devices = list(self._metered)
        for device_id in devices:
            self.left(device_id)

    def outcome(self, request: pb.ReportRequest, job: Job, received_at: datetime) -> Outcome:
        """What became of the job, with everything that follows from it.

        Raises MessageError where the device sent something that makes no sense.
        """
        series, because = self._end_metering(request, job)
        outcome = outcome_from_pb(request, job, received_at)
        if isinstance(outcome, VerifiedOutputs):
            self._require_outputs(outcome)
        if not isinstance(outcome, Measurement):
            return outcome
        measured = self._with_energies(outcome, series, because)
        baseline = self._store.measurements.baseline(
            job.device_id,
            measured.runtime,
            measured.runtime_library,
            measured.runtime_version,
        )
        judged = replace(measured, verdict=judge(measured, baseline))
        # The statistics do not depend on the verdict: they are computed once.
        judged.__dict__["latency"] = measured.latency
        return judged

    def _end_metering(self, request: pb.ReportRequest, job: Job) -> Metered:
        # First of all: the moment of reception tells how the two clocks differ.
        with self._lock:
            metered = self._metered.get(job.device_id) == job.id
            known_id, known = self._answers.get(job.device_id, ("", NOTHING_METERED))
        if known_id == job.id:
            return known
        if not metered or self._metering is None:
            return (), self._why_not_metered(job)
        if not request.measured.HasField("energy"):
            self.left(job.device_id)
            return NOTHING_METERED
        sent = optional(request, "sent_monotonic_seconds", finite)
        answer = self._metering.finished(job.id, sent, phases_from_pb(request.measured.energy))
        with self._lock:
            self._metered.pop(job.device_id, None)
            self._answers[job.device_id] = job.id, answer
        return answer

    def _why_not_metered(self, job: Job) -> str:
        wanted = isinstance(job.spec, MeasureSpec) and job.spec.plan.energy_windows > 0
        if not wanted or self._store.meters.of_device(job.device_id) is None:
            return ""
        return (
            "its meter was not read, because the gateway started again while the device measured:"
            " measure again"
        )

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
        alike = [d.id for d in known if d.facts and d.facts.cpu_model == facts.cpu_model]
        return [device_id], alike


def _warned(energy: Energy, warning: str) -> Energy:
    return replace(energy, warnings=(*energy.warnings, warning)) if warning else energy
