"""Measuring networks on a device through the queue of the store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from host.calibration.calibration import LeftOut, Row
from host.calibration.setting import Setting
from host.calibration.specimens import Specimen
from host.device import Device
from host.job import Job
from host.measurement import (
    Measured,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    Plan,
    Readiness,
)
from host.store.store import Store

MAX_REPEATS = 2
"""How often a measurement whose verdict is REJECT is made once more."""

Wait = Callable[[Mapping[str, Job]], Mapping[str, Measured]]
"""Waits for the outcomes of jobs; both by the name of what is measured. May raise to stop."""


@dataclass(frozen=True)
class Manner:
    """How to measure; the same manner finds what was measured before."""

    plan: Plan
    readiness: Readiness
    timeout_seconds: float
    purpose: str = "calibrate"


@dataclass(frozen=True)
class Measurer:
    """Measures on one device in one setting, each network once in the life of a workspace.

    What the verdict rejects is measured again, MAX_REPEATS times at most, and then left out: a
    throttled or disturbed figure never enters a fit.
    """

    store: Store
    device: Device
    setting: Setting
    manner: Manner
    wait: Wait

    def __call__(self, specimens: Sequence[Specimen]) -> dict[str, Row | LeftOut]:
        """The outcome of each of them, by name."""
        found: dict[str, Row | LeftOut] = {}
        left = {one.name: one for one in specimens}
        runs = {name: self._run(one) for name, one in left.items()}
        for repeat in range(MAX_REPEATS + 1):
            if not left:
                break
            jobs = {name: self._submit(runs[name], name, repeat) for name in left}
            outcomes = self.wait(jobs)
            for name, one in list(left.items()):
                outcome = outcomes[name]
                found[name] = self._judged(one, outcome, jobs[name])
                if not (isinstance(outcome, Measurement) and outcome.verdict.level == "REJECT"):
                    del left[name]
        return found

    def knows(self, specimens: Sequence[Specimen]) -> bool:
        """Whether all of them were measured before, so that the device is not needed."""
        is_answered, device, purpose = self.store.jobs.is_answered, self.device, self.manner.purpose
        return all(is_answered(device.id, self._spec(self._run(one)), purpose) for one in specimens)

    def _run(self, specimen: Specimen) -> ModelRun:
        blob = self.store.blobs.put(specimen.model_bytes())
        return ModelRun(blob.sha256, blob.size_bytes, specimen.form, self.setting.threads)

    def _spec(self, run: ModelRun) -> MeasureSpec:
        manner = self.manner
        return MeasureSpec(run, manner.plan, manner.readiness, manner.timeout_seconds)

    def _submit(self, run: ModelRun, name: str, repeat: int) -> Job:
        manner = self.manner
        return self.store.jobs.submit(
            self.device.id,
            self._spec(run),
            purpose=f"{manner.purpose}, again {repeat}" if repeat else manner.purpose,
            label=name,
        )

    def _judged(self, specimen: Specimen, outcome: Measured, job: Job) -> Row | LeftOut:
        name, kind = specimen.name, specimen.kind
        if isinstance(outcome, MeasurementFailure):
            message = outcome.message.rstrip(".")
            return LeftOut(name, kind, f"{outcome.kind.replace('_', ' ')}: {message}")
        if outcome.verdict.level == "REJECT":
            reasons = " ".join(r.sentence for r in outcome.verdict.reasons if r.level == "REJECT")
            return LeftOut(name, kind, f"rejected {MAX_REPEATS + 1} times: {reasons}")
        measured_in = Setting.of_measurement(outcome)
        if measured_in != self.setting:
            return LeftOut(name, kind, f"measured with {measured_in}, not {self.setting}")
        return Row(name, kind, outcome, self.store.measurements.number_of(job.id))
