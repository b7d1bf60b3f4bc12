"""What the devices of a study have measured of which candidate."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Self

from host.calibration.drift import DriftReport, Watch, drift_of
from host.calibration.measuring import MAX_REPEATS
from host.calibration.setting import Setting
from host.calibration.timing import metered
from host.config import DeviceConfig, MeasuringConfig
from host.device import Device
from host.errors import UsageError
from host.export.forms import Runtime
from host.job import Job
from host.measurement import (
    PRESETS,
    Energy,
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
from host.store.wait import Waiting
from host.study.attendance import Attendance
from host.study.limits import Target
from host.study.proposal import Proposal
from host.study.report import Reporter

Models = Mapping[Runtime, bytes]
"""One network as the files of the runtimes that are to run it."""
Specs = Mapping[tuple[str, str], tuple[MeasureSpec, str]]
"""What is asked, and its purpose, by the name of the model and of the profile."""

_FILES: dict[Runtime, str] = {"onnx": "ONNX", "tflite": "TFLite", "ncnn": "ncnn"}

LONGEST_SECONDS = 300.0
"""How long a device may take for a measurement besides twice the budget of its samples."""


class MissingRuntimeError(UsageError):
    """A device of the study has no runtime for the models that it is to measure."""


@dataclass(frozen=True)
class Manner:
    """How carefully to measure, and what to do on a busy device."""

    plan: Plan
    readiness: Readiness = field(default_factory=Readiness)
    patience_seconds: float = math.inf
    """How long a study waits for a device that is offline."""

    @classmethod
    def of_search(cls, config: MeasuringConfig) -> Self:
        """For candidates: one observes their device for less time than one measures it."""
        return cls(
            PRESETS[config.search],
            _readiness(config, observe_seconds=0.5),
            60 * config.offline_minutes,
        )

    @classmethod
    def of_finalists(cls, config: MeasuringConfig) -> Self:
        """For the figures that are shipped."""
        plan = PRESETS[config.finalists]
        ready = _readiness(config, observe_seconds=2.0)
        manner = cls(plan, ready, 60 * config.offline_minutes)
        return manner.with_energy() if config.energy else manner

    def with_energy(self) -> Self:
        """The same, with an energy run after the samples."""
        return replace(self, plan=self.plan.with_energy())

    @property
    def longest_seconds(self) -> float:
        """How long samples and the windows of an energy run take at most, twice over."""
        windows = 2 * self.plan.energy_windows * self.plan.energy_window_seconds
        return 2 * (self.plan.budget_seconds + windows)


def _readiness(config: MeasuringConfig, observe_seconds: float) -> Readiness:
    if config.on_busy == "refuse":
        return Readiness(observe_seconds=observe_seconds)
    return Readiness(observe_seconds=observe_seconds, wait_seconds=0.0, measure_when_busy=True)


@dataclass(frozen=True)
class StudyDevice:
    """A device profile of a study: a registered device, as configured there."""

    device: Device
    config: DeviceConfig

    @property
    def name(self) -> str:
        """Of the profile."""
        return self.config.name

    @property
    def runtime(self) -> Runtime:
        return self.config.runtime

    def spec(self, sha256: str, size_bytes: int, manner: Manner) -> MeasureSpec:
        """How a model is measured on this profile in this study."""
        return MeasureSpec(
            self.run(sha256, size_bytes),
            plan=manner.plan,
            readiness=manner.readiness,
            timeout_seconds=LONGEST_SECONDS + manner.longest_seconds,
        )

    def run(self, sha256: str, size_bytes: int) -> ModelRun:
        """The model as the profile runs it."""
        return ModelRun(sha256, size_bytes, runtime=self.runtime, threads=self.config.threads)


def study_devices(store: Store, configs: Iterable[DeviceConfig]) -> list[StudyDevice]:
    """The device profiles of a study.

    Raises UsageError where a device is not enrolled, MissingRuntimeError where it lacks the
    profile's runtime.
    """
    devices = []
    for config in configs:
        device = store.devices.by_name(config.machine)
        device.require_real("a study")
        if device.facts is not None and device.facts.runtime(config.runtime) is None:
            known = [r for r in device.facts.runtimes if r.name == config.runtime]
            why = f": {known[0].why_not}" if known else ""
            raise MissingRuntimeError(
                f"{device.name} has no working runtime for {_FILES[config.runtime]} files{why}; "
                f"install the extra genba[{config.runtime}] there and start its agent again, or "
                f"give {config.name} another runtime in [[devices]]"
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
        energy_on: AbstractSet[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`energy_on` are the profiles on which candidates' energy is measured too."""
        self.devices = tuple(devices)
        self._store = store
        self._study_id = study_id
        self.reporter = reporter
        self._manner = manner
        self._energy_on = energy_on
        self._outcomes: dict[tuple[str, str], Measured] = {}
        self.attendance = Attendance(store, reporter, manner.patience_seconds, clock)
        self._watch = Watch(store, self._wait, reporter.say, manner.readiness)
        self._drifts: dict[str, DriftReport | None] = {}
        self._sources: dict[str, str] = {}

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
        """What a profile measured of a candidate, where it did; as it would be measured now.

        Where its sentinels say that the device became slower or quicker since, the latency is
        multiplied by the same ratio: old and new ones can be compared and fitted together. Energy
        is for the latency that was measured with it. The power at the line's rate is not known
        here: see `power`.
        """
        measurement = self.measurement(key, device_name)
        if measurement is None:
            return None
        if target == "peak_rss_bytes":
            return float(measurement.peak_rss_bytes)
        if target == "energy_per_inference_joules":
            energy = self._energy(measurement, device_name)
            return None if energy is None else energy.gross_joules
        drift = self._drift_of(device_name)
        now = measurement.latency_seconds if drift is None else drift.latency_now(measurement)
        if target == "latency_seconds":
            return now
        p90 = measurement.latency.quantile(0.9)
        return None if p90 is None else p90 * now / measurement.latency_seconds

    def upper_value(self, key: str, device_name: str, target: Target) -> float | None:
        """As `value`, at the upper end of its 95 % interval where there is one: what a limit is
        held against.
        """
        value, measurement = (
            self.value(key, device_name, target),
            self.measurement(key, device_name),
        )
        if value is None or measurement is None:
            return None
        if target == "latency_seconds":
            return value * measurement.latency_interval_seconds[1] / measurement.latency_seconds
        if target == "energy_per_inference_joules":
            energy = self._energy(measurement, device_name)
            return None if energy is None else energy.gross_interval_joules[1]
        return value

    def power(self, key: str, device_name: str) -> tuple[float, float] | None:
        """Joules of an inference above idle, and idle watts; None where nothing measured them."""
        measurement = self.measurement(key, device_name)
        energy = None if measurement is None else self._energy(measurement, device_name)
        return None if energy is None else (energy.net_joules, energy.idle_watts)

    def why_no_energy(self, device_name: str) -> str:
        """Why energy is absent from the measurements of a profile, in words."""
        reasons = dict.fromkeys(
            m.energy_absent_because or "only estimates of it, which say nothing of a network"
            for key in sorted(self.keys)
            if (m := self.measurement(key, device_name)) is not None
            and self._energy(m, device_name) is None
        )
        return "; ".join(reasons) or "no candidate was measured there"

    def usable(self, device_name: str) -> list[str]:
        """The candidates whose measurement may be fitted: it is there and not rejected."""
        return [
            key
            for key in sorted(self.keys)
            if (measurement := self.measurement(key, device_name)) is not None
            and measurement.verdict.level != "REJECT"
        ]

    def is_lost(self, device: StudyDevice) -> bool:
        """Whether the study has given the device up."""
        return device.device.id in self.attendance.lost

    @property
    def has_lost(self) -> bool:
        """Whether it has given any of them up."""
        return bool(self.attendance.lost)

    def device_seconds(self) -> float:
        """How long devices have worked for this study, stops and repeats included."""
        return sum(self._store.jobs.device_seconds(self._study_id).values())

    def _energy(self, measurement: Measurement, device_name: str) -> Energy | None:
        """The figure of the source that the profile's first measurement quotes: two sources see
        different parts of a device. An estimate is no figure.
        """
        known = [e for e in measurement.energies if e.kind in ("measured", "derived")]
        if not known:
            return None
        source = self._sources.setdefault(device_name, known[0].source)
        return next((energy for energy in known if energy.source == source), None)

    def complete(self, key: str) -> bool:
        """Whether every device has measured this candidate."""
        return all(self.measurement(key, device.name) for device in self.devices)

    def measure(self, proposals: Sequence[Proposal]) -> None:
        """Have untrained candidates measured on every profile; returns when all outcomes are in.

        Waits for a device that is offline as long as the study's patience, saying so; an exception
        from outside, such as Ctrl-C, leaves the jobs queued.
        """
        runtimes = {device.runtime for device in self.devices}
        models = {p.key: p.untrained(runtimes) for p in proposals if p.key not in self.keys}
        found = self.measure_models(models, purpose="search", manner=self._manner)
        for (key, device_name), outcome in found.items():
            self._outcomes[key, device_name] = outcome
            if isinstance(outcome, MeasurementFailure):
                self.reporter.say(
                    f"{device_name} could not measure candidate {key[:8]}: {outcome.message}"
                )

    def measure_models(
        self, models: Mapping[str, Models], *, purpose: str, manner: Manner
    ) -> dict[tuple[str, str], Measured]:
        """Have models measured on every profile that runs their files; by the model's name and the
        profile's.

        What a device measured and the verdict rejects is measured again, MAX_REPEATS times at
        most; the last one counts then, with its verdict. The same bytes for the same purpose are
        measured once in the life of a workspace, and repeated once in a study.
        """
        blobs = {
            (name, runtime): self._store.blobs.put(data)
            for name, files in models.items()
            for runtime, data in files.items()
        }
        wanted = {
            (name, device.name): blobs[name, device.runtime]
            for name, files in models.items()
            for device in self.devices
            if device.runtime in files and not self.is_lost(device)
        }
        found: dict[tuple[str, str], Measured] = {}
        for repeat in range(MAX_REPEATS + 1):
            if not wanted:
                break
            again = f", again {repeat} in study {self._study_id}" if repeat else ""
            new = self._ask(wanted, purpose + again, manner)
            # A repeat that failed does not undo what was measured.
            found |= {k: v for k, v in new.items() if k not in found or isinstance(v, Measurement)}
            wanted = {pair: wanted[pair] for pair, outcome in new.items() if _rejected(outcome)}
        return found

    def _ask(
        self, wanted: Mapping[tuple[str, str], Blob], purpose: str, manner: Manner
    ) -> dict[tuple[str, str], Measured]:
        specs = self._specs(wanted, purpose, manner)
        self._look_at_sentinels(specs)
        asked: dict[str, list[tuple[str, str]]] = {}
        jobs: dict[str, Job] = {}
        by_name = {device.name: device for device in self.devices}
        for (name, profile), (spec, told) in specs.items():
            job = self._store.jobs.submit(
                by_name[profile].device.id,
                spec,
                study_id=self._study_id,
                purpose=told,
                label=f"{purpose} {name[:8]}",
            )
            jobs[job.id] = job
            asked.setdefault(job.id, []).append((name, profile))
        return self._collect(jobs, asked)

    def _specs(self, wanted: Mapping[tuple[str, str], Blob], purpose: str, manner: Manner) -> Specs:
        """What to ask of each profile for each model, and under what purpose: energy windows are
        as long as the device's meter needs.
        """
        found: dict[tuple[str, str], tuple[MeasureSpec, str]] = {}
        for device in self.devices:
            own = {name: blob for (name, profile), blob in wanted.items() if profile == device.name}
            if not own:
                continue
            how = manner.with_energy() if device.name in self._energy_on else manner
            blank = device.spec("", 0, how)
            spec, told = metered(self._store, device.device, blank, purpose, self.reporter.say)
            if not isinstance(spec, MeasureSpec):
                raise TypeError(f"{type(spec)} measures nothing")
            for name, blob in own.items():
                run = device.run(blob.sha256, blob.size_bytes)
                found[name, device.name] = replace(spec, run=run), told
        return found

    def _collect(
        self, jobs: Mapping[str, Job], asked: Mapping[str, Sequence[tuple[str, str]]]
    ) -> dict[tuple[str, str], Measured]:
        totals = Counter(profile for pairs in asked.values() for _, profile in pairs)
        done: Counter[str] = Counter()
        found: dict[tuple[str, str], Measured] = {}
        for job, outcome in self.attendance.outcomes(list(jobs.values())):
            if not isinstance(outcome, Measured):
                raise TypeError(f"job {job.id} asked for a measurement and has {type(outcome)}")
            for name, profile in asked[job.id]:
                found[name, profile] = outcome
                done[profile] += 1
                self.reporter.progress(f"measurements on {profile}", done[profile], totals[profile])
        return found

    def _look_at_sentinels(self, specs: Specs) -> None:
        """Before devices measure anything new, see whether they still are as they were."""
        is_answered = self._store.jobs.is_answered
        for device in self.devices:
            setting = None if self.is_lost(device) else self.setting(device)
            own = [asked for (_, profile), asked in specs.items() if profile == device.name]
            if setting is None or all(is_answered(device.device.id, *asked) for asked in own):
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
            setting = self.setting(device)
            found = None if setting is None else drift_of(self._store, device.device, setting)
            self._drifts[device_name] = None if not found or not found.references else found
        return self._drifts[device_name]

    def setting(self, device: StudyDevice) -> Setting | None:
        """The setting in which the device measures now; None where it has not said."""
        known = self._store.devices.by_id(device.device.id)
        if known is None or known.facts is None or known.facts.runtime(device.runtime) is None:
            return None
        return Setting.of_device(known, device.runtime, device.config.threads)

    def _wait(self, jobs: Mapping[str, Job]) -> dict[str, Measured]:
        """The outcomes of sentinels, by the names of these."""
        names = {job.id: name for name, job in jobs.items()}
        waiting = self.attendance.outcomes(list(jobs.values()))
        return {names[job.id]: out for job, out in waiting if isinstance(out, Measured)}

    def say_waiting(self, waiting: Waiting) -> None:
        """Say who is offline. Raises LostDeviceError for who stays away too long."""
        self.attendance.say(waiting)


def _rejected(outcome: Measured) -> bool:
    return isinstance(outcome, Measurement) and outcome.verdict.level == "REJECT"
