"""What a gateway does with reports: it ends the reading of meters, and has them evaluated."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from host.errors import GenbaError
from host.gateway.checks import finite, optional
from host.gateway.evaluation import (
    NOTHING_METERED,
    Arrived,
    Evaluated,
    Evaluation,
    Metered,
    RuntimeKey,
)
from host.gateway.samples import phases_from_pb
from host.job import Job
from host.measurement import MeasureSpec, Phase, Spec
from host.measurement.judge import Baseline
from host.store import Report, Store
from protos import genba_agent_pb2 as pb

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

    def __init__(
        self,
        store: Store,
        metering: Metering | None,
        evaluate: Callable[[Arrived], Evaluated] | None = None,
    ) -> None:
        """`evaluate` is Evaluation.evaluated, of this process by default."""
        self._store = store
        self._evaluate = Evaluation(store).evaluated if evaluate is None else evaluate
        self._metering = metering
        self._lock = threading.Lock()
        self._metered: dict[str, str] = {}  # the job being metered, by device
        # Of the last report of each device: it sends it again where it did not hear the answer.
        self._answers: dict[str, tuple[str, Metered]] = {}
        # By device. A baseline stays until the device is probed.
        self._baselines: dict[str, Mapping[RuntimeKey, Baseline]] = {}

    def connected(self, device_id: str) -> None:
        """The device may have reported to another gateway since it was here last."""
        self._baselines.pop(device_id, None)

    def claimed(self, job: Job) -> None:
        """Read the meter of the device while it works on a job with an energy run."""
        self.left(job.device_id)
        if self._metering is None or not measures_energy(job):
            return
        with self._lock:
            self._metered[job.device_id] = job.id
        try:
            self._metering.started(job.device_id, job.id, job.spec)
        except GenbaError as error:  # the device measures all the same
            _log.warning("the meter for job %s is not read: %s", job.id, error)

    def left(self, device_id: str) -> None:
        """The device no longer works on the job that it worked on. Does not block."""
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

    def report(
        self, request: pb.ReportRequest, job: Job, received_at: datetime
    ) -> tuple[Report, str]:
        """What the store keeps of a report, and what to say of it. Raises MessageError."""
        metered = self.end_metering(request, job)
        known = self._baselines.get(job.device_id)
        evaluated = self._evaluate(
            Arrived(request.SerializeToString(), job, received_at, metered, known)
        )
        if evaluated.is_probe:
            self._baselines.pop(job.device_id, None)
        else:
            self._baselines[job.device_id] = evaluated.baselines
        return evaluated.report, evaluated.said

    def is_metered(self, job: Job) -> bool:
        """Whether the meter of the job's device is read for it."""
        return self._metered.get(job.device_id) == job.id

    def end_metering(self, request: pb.ReportRequest, job: Job) -> Metered:
        """End reading; asked again for the same job it gives the same answer.

        To be called as soon as the report arrives: that moment tells how the two clocks differ.
        """
        with self._lock:
            metered = self.is_metered(job)
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
        if not measures_energy(job) or self._store.meters.of_device(job.device_id) is None:
            return ""
        return (
            "its meter was not read, because the gateway started again while the device measured:"
            " measure again"
        )


def measures_energy(job: Job) -> bool:
    """Whether the device measures energy in this job."""
    return isinstance(job.spec, MeasureSpec) and job.spec.plan.energy_windows > 0
