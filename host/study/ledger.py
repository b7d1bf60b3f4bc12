"""What the devices of a study have measured of which candidate."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from host.config import DeviceConfig
from host.device import Device
from host.errors import UsageError
from host.job import Job
from host.measurement import Measurement, MeasurementFailure, MeasureSpec, Outcome
from host.store.store import Store
from host.store.wait import Waiting, wait_for_outcomes
from host.study.proposal import Proposal
from host.study.report import Reporter

OFFLINE_GRACE_SECONDS = 3.0
SEARCH_SECONDS = 0.5
"""How long a candidate is timed at least; many are measured, and a model is fitted on them."""


class MissingRuntimeError(UsageError):
    """A device of the study has no runtime for the models that it is to measure."""


@dataclass(frozen=True)
class StudyDevice:
    """A device of a study, as registered and as configured."""

    device: Device
    config: DeviceConfig

    @property
    def name(self) -> str:
        return self.device.name

    def spec(self, sha256: str, size_bytes: int, min_seconds: float) -> MeasureSpec:
        """How a model is measured on this device in this study."""
        return MeasureSpec(sha256, size_bytes, threads=self.config.threads, min_seconds=min_seconds)


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.devices = tuple(devices)
        self._store = store
        self._study_id = study_id
        self.reporter = reporter
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        self._clock = clock
        self._offline_since: float | None = None
        self._said = ""

    @property
    def keys(self) -> set[str]:
        """The candidates that have been sent to the devices."""
        return {key for key, _ in self._outcomes}

    def outcome(self, key: str, device_name: str) -> Outcome | None:
        """What a device made of a candidate; None where it was not asked."""
        return self._outcomes.get((key, device_name))

    def measurement(self, key: str, device_name: str) -> Measurement | None:
        """The measurement of a candidate on a device, where there is one."""
        outcome = self.outcome(key, device_name)
        return outcome if isinstance(outcome, Measurement) else None

    def complete(self, key: str) -> bool:
        """Whether every device has measured this candidate."""
        return all(self.measurement(key, device.name) for device in self.devices)

    def measure(self, proposals: Sequence[Proposal]) -> None:
        """Have untrained candidates measured on every device; returns when all outcomes are in.

        May wait for ever for a device that is offline, saying so; an exception from outside, such
        as Ctrl-C, leaves the jobs queued.
        """
        models = {p.key: p.untrained_onnx() for p in proposals if p.key not in self.keys}
        found = self.measure_models(models, purpose="search", min_seconds=SEARCH_SECONDS)
        for (key, device_name), outcome in found.items():
            self._outcomes[key, device_name] = outcome
            if isinstance(outcome, MeasurementFailure):
                self.reporter.say(
                    f"{device_name} could not measure candidate {key[:8]}: {outcome.message}"
                )

    def measure_models(
        self, models: Mapping[str, bytes], *, purpose: str, min_seconds: float
    ) -> dict[tuple[str, str], Outcome]:
        """Have ONNX models measured on every device; by the model's name and the device's.

        Samples are taken for `min_seconds` at least.
        The same bytes for the same purpose are measured once in the life of a workspace.
        """
        asked: dict[str, list[tuple[str, str]]] = {}
        jobs: dict[str, Job] = {}
        for name, data in models.items():
            blob = self._store.blobs.put(data)
            for device in self.devices:
                job = self._store.jobs.submit(
                    device.device.id,
                    device.spec(blob.sha256, blob.size_bytes, min_seconds),
                    study_id=self._study_id,
                    purpose=purpose,
                )
                jobs[job.id] = job
                asked.setdefault(job.id, []).append((name, device.name))
        found: dict[tuple[str, str], Outcome] = {}
        waiting = wait_for_outcomes(self._store, list(jobs.values()), on_wait=self._say_offline)
        for done, (job, outcome) in enumerate(waiting, start=1):
            for name_and_device in asked[job.id]:
                found[name_and_device] = outcome
            self.reporter.progress("measurements", done, len(jobs))
        return found

    def _say_offline(self, waiting: Waiting) -> None:
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
