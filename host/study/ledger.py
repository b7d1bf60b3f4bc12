"""What the devices of a study have measured of which candidate."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Self

from host.calibration.drift import DriftReport, Watch, drift_of
from host.calibration.measuring import MAX_REPEATS
from host.calibration.setting import Setting
from host.config import DeviceConfig, MeasuringConfig
from host.device import Device
from host.errors import UsageError
from host.job import Job
from host.measurement import (
    PRESETS,
    Measured,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    Plan,
    Readiness,
)
from host.store.blobs import Blob
from host.store.store import Store
from host.store.wait import Waiting, wait_for_outcomes
from host.study.limits import Target
from host.study.proposal import Proposal
from host.study.report import Reporter

OFFLINE_GRACE_SECONDS = 3.0
LONGEST_SECONDS = 300.0
"""How long a device may take for a measurement besides twice the budget of its samples."""


class MissingRuntimeError(UsageError):
    """A device of the study has no runtime for the models that it is to measure."""


@dataclass(frozen=True)
class Manner:
    """How carefully to measure, and what to do on a busy device."""

    plan: Plan
    readiness: Readiness = field(default_factory=Readiness)

    @classmethod
    def of_search(cls, config: MeasuringConfig) -> Self:
        """For candidates: one observes their device for less time than one measures it."""
        return cls(PRESETS[config.search], _readiness(config, observe_seconds=0.5))

    @classmethod
    def of_finalists(cls, config: MeasuringConfig) -> Self:
        """For the figures that are shipped."""
        plan = PRESETS[config.finalists]
        return cls(
            plan.with_energy() if config.energy else plan, _readiness(config, observe_seconds=2.0)
        )


def _readiness(config: MeasuringConfig, observe_seconds: float) -> Readiness:
    if config.on_busy == "refuse":
        return Readiness(observe_seconds=observe_seconds)
    return Readiness(observe_seconds=observe_seconds, wait_seconds=0.0, measure_when_busy=True)


@dataclass(frozen=True)
class StudyDevice:
    """A device of a study, as registered and as configured."""

    device: Device
    config: DeviceConfig

    @property
    def name(self) -> str:
        return self.device.name

    def spec(self, sha256: str, size_bytes: int, manner: Manner) -> MeasureSpec:
        """How a model is measured on this device in this study."""
        return MeasureSpec(
            ModelRun(sha256, size_bytes, threads=self.config.threads),
            plan=manner.plan,
            readiness=manner.readiness,
            timeout_seconds=LONGEST_SECONDS + 2 * manner.plan.budget_seconds,
        )


def study_devices(store: Store, configs: Iterable[DeviceConfig]) -> list[StudyDevice]:
    """The registered devices of a study.

    Raises UsageError where one is not enrolled, MissingRuntimeError where it cannot run ONNX.
    """
    devices = []
    for config in configs:
        device = store.devices.by_name(config.name)
        if device.facts is not None and device.facts.runtime("onnx") is None:
            known = [r for r in device.facts.runtimes if r.name == "onnx"]
            why = f": {known[0].why_not}" if known else ""
            raise MissingRuntimeError(
                f"{device.name} has no working onnxruntime{why}; install the extra genba[onnx] "
                "there and start its agent again"
            )
        devices.append(StudyDevice(device, config))
    return devices


class Ledger:
    """Asks for measurements and keeps the outcomes; the store makes sure of each being made once.

    `study_id` is the study that asks.
    """

    def __init__(
        self,
        store: Store,
        study_id: int,
        devices: Sequence[StudyDevice],
        reporter: Reporter,
        manner: Manner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.devices = tuple(devices)
        self._store = store
        self._study_id = study_id
        self.reporter = reporter
        self._manner = manner
        self._outcomes: dict[tuple[str, str], Measured] = {}
        self._clock = clock
        self._offline_since: float | None = None
        self._said = ""
        self._refusals: dict[str, str] = {}
        self._watch = Watch(store, self._wait, reporter.say, manner.readiness)
        self._drifts: dict[str, DriftReport | None] = {}

    @property
    def keys(self) -> set[str]:
        """The candidates that have been sent to the devices."""
        return {key for key, _ in self._outcomes}

    def outcome(self, key: str, device_name: str) -> Measured | None:
        """What a device made of a candidate; None where it was not asked."""
        return self._outcomes.get((key, device_name))

    def measurement(self, key: str, device_name: str) -> Measurement | None:
        """The measurement of a candidate on a device, where there is one."""
        outcome = self.outcome(key, device_name)
        return outcome if isinstance(outcome, Measurement) else None

    def value(self, key: str, device_name: str, target: Target) -> float | None:
        """What a device measured of a candidate, where it did; as it would be measured now.

        Where its sentinels say that the device became slower or quicker since, the latency is
        multiplied by the same ratio: old and new ones can be compared and fitted together.
        """
        measurement = self.measurement(key, device_name)
        if measurement is None:
            return None
        if target != "latency_seconds":
            return float(getattr(measurement, target))
        drift = self._drift_of(device_name)
        return measurement.latency_seconds if drift is None else drift.latency_now(measurement)

    def complete(self, key: str) -> bool:
        """Whether every device has measured this candidate."""
        return all(self.measurement(key, device.name) for device in self.devices)

    def measure(self, proposals: Sequence[Proposal]) -> None:
        """Have untrained candidates measured on every device; returns when all outcomes are in.

        May wait for ever for a device that is offline, saying so; an exception from outside, such
        as Ctrl-C, leaves the jobs queued.
        """
        models = {p.key: p.untrained_onnx() for p in proposals if p.key not in self.keys}
        found = self.measure_models(models, purpose="search", manner=self._manner)
        for (key, device_name), outcome in found.items():
            self._outcomes[key, device_name] = outcome
            if isinstance(outcome, MeasurementFailure):
                self.reporter.say(
                    f"{device_name} could not measure candidate {key[:8]}: {outcome.message}"
                )

    def measure_models(
        self, models: Mapping[str, bytes], *, purpose: str, manner: Manner
    ) -> dict[tuple[str, str], Measured]:
        """Have ONNX models measured on every device; by the model's name and the device's.

        What a device measured and the verdict rejects is measured again, MAX_REPEATS times at
        most; the last one counts then, with its verdict. The same bytes for the same purpose are
        measured once in the life of a workspace, and repeated once in a study.
        """
        blobs = {name: self._store.blobs.put(data) for name, data in models.items()}
        wanted = {(name, device.name) for name in models for device in self.devices}
        found: dict[tuple[str, str], Measured] = {}
        for repeat in range(MAX_REPEATS + 1):
            if not wanted:
                break
            again = f", again {repeat} in study {self._study_id}" if repeat else ""
            new = self._ask(blobs, wanted, purpose + again, manner)
            # A repeat that failed does not undo what was measured.
            found |= {k: v for k, v in new.items() if k not in found or isinstance(v, Measurement)}
            wanted = {pair for pair in wanted if _rejected(new[pair])}
        return found

    def _ask(
        self,
        blobs: Mapping[str, Blob],
        wanted: AbstractSet[tuple[str, str]],
        purpose: str,
        manner: Manner,
    ) -> dict[tuple[str, str], Measured]:
        asked: dict[str, list[tuple[str, str]]] = {}
        jobs: dict[str, Job] = {}
        self._look_at_sentinels(blobs, wanted, purpose, manner)
        for name, blob in blobs.items():
            for device in self.devices:
                if (name, device.name) not in wanted:
                    continue
                job = self._store.jobs.submit(
                    device.device.id,
                    device.spec(blob.sha256, blob.size_bytes, manner),
                    study_id=self._study_id,
                    purpose=purpose,
                    label=f"{purpose} {name[:8]}",
                )
                jobs[job.id] = job
                asked.setdefault(job.id, []).append((name, device.name))
        found: dict[tuple[str, str], Measured] = {}
        waiting = wait_for_outcomes(self._store, list(jobs.values()), on_wait=self.say_waiting)
        for done, (job, outcome) in enumerate(waiting, start=1):
            if not isinstance(outcome, Measured):
                raise TypeError(f"job {job.id} asked for a measurement and has {type(outcome)}")
            for name_and_device in asked[job.id]:
                found[name_and_device] = outcome
            self.reporter.progress("measurements", done, len(jobs))
        return found

    def _look_at_sentinels(
        self,
        blobs: Mapping[str, Blob],
        wanted: AbstractSet[tuple[str, str]],
        purpose: str,
        manner: Manner,
    ) -> None:
        """Before devices measure anything new, see whether they still are as they were."""
        for device in self.devices:
            setting = self._setting(device)
            specs = [
                device.spec(blob.sha256, blob.size_bytes, manner)
                for name, blob in blobs.items()
                if (name, device.name) in wanted
            ]
            is_answered = self._store.jobs.is_answered
            if setting is None or all(is_answered(device.device.id, s, purpose) for s in specs):
                continue
            before = self._drift_of(device.name)
            now = self._drifts[device.name] = self._watch.look(device.device, setting)
            self._say_rescaled(device.name, before, now)

    def _say_rescaled(self, device: str, before: DriftReport | None, now: DriftReport) -> None:
        measured = [m for key in self.keys if (m := self.measurement(key, device)) is not None]
        factors = [now.to_now(m.measured_at) for m in measured]
        if before is None or factors == [before.to_now(m.measured_at) for m in measured]:
            return
        older = sorted({f"{factor:.3f}" for factor in factors if factor != 1})
        if older:
            count = sum(factor != 1 for factor in factors)
            self.reporter.say(
                f"{count} latencies that {device} measured before are multiplied by"
                f" {' or '.join(older)} from here on, to compare with what it measures now"
            )

    def _drift_of(self, device_name: str) -> DriftReport | None:
        """As the store knows it; None where the device was never calibrated so."""
        if device_name not in self._drifts:
            device = next(one for one in self.devices if one.name == device_name)
            setting = self._setting(device)
            found = None if setting is None else drift_of(self._store, device.device, setting)
            self._drifts[device_name] = None if not found or not found.references else found
        return self._drifts[device_name]

    def _setting(self, device: StudyDevice) -> Setting | None:
        """The setting in which the device measures now; None where it has not said."""
        known = self._store.devices.by_id(device.device.id)
        if known is None or known.facts is None or known.facts.runtime("onnx") is None:
            return None
        return Setting.of_device(known, "onnx", device.config.threads)

    def _wait(self, jobs: Mapping[str, Job]) -> dict[str, Measured]:
        """The outcomes of sentinels, by the names of these."""
        names = {job.id: name for name, job in jobs.items()}
        waiting = wait_for_outcomes(self._store, list(jobs.values()), on_wait=self.say_waiting)
        return {names[job.id]: out for job, out in waiting if isinstance(out, Measured)}

    def say_waiting(self, waiting: Waiting) -> None:
        """Say who is offline, and who is not ready and why; each thing once."""
        for job_id, why in waiting.not_ready.items():
            if self._refusals.get(job_id) != why:
                self._refusals[job_id] = why
                self.reporter.say(f"a device is not ready, {why}; it is asked again")
        names = ", ".join(device.name for device in waiting.offline)
        if not names:
            if self._said:
                self.reporter.say("all devices are online again")
            self._offline_since, self._said = None, ""
            return
        if self._offline_since is None:
            self._offline_since = self._clock()
        # A device that was told to come back a moment ago is not worth a message.
        if names != self._said and self._clock() - self._offline_since >= OFFLINE_GRACE_SECONDS:
            self._said = names
            self.reporter.say(
                f"waiting for {names}: offline. Start `genba-agent run` there, or stop with "
                "Ctrl-C; nothing is lost, and the same command goes on from here"
            )


def _rejected(outcome: Measured) -> bool:
    return isinstance(outcome, Measurement) and outcome.verdict.level == "REJECT"
