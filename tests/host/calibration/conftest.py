"""A made-up device whose latency follows from the kernels of what it is given."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cost_models.kernels import KernelGraph
from host.calibration.calibration import LeftOut, Row
from host.calibration.sentinels import (
    KINDS,
    References,
    SentinelModel,
    measure_references,
    submit_round,
)
from host.calibration.setting import Setting
from host.device import Device
from host.job import Job
from host.measurement import (
    Energy,
    Measured,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    Thermal,
    Verdict,
)
from host.store import Store

if TYPE_CHECKING:
    from host.calibration.specimens import Specimen
    from tests.host.conftest import FakeClock, Fleet

MAC_SECONDS: Mapping[str, float] = {
    "conv": 3e-11,
    "pointwise": 2.5e-11,
    "depthwise": 6e-11,
    "grouped": 4e-11,
    "gemm": 3e-11,
    "matmul": 4e-11,
    "recurrent": 1e-10,
}


def latency_seconds(graph: KernelGraph) -> float:
    """20 µs an inference, 3 µs a kernel, 0.12 ns a byte, and the multiply-accumulates."""
    work = sum(
        3e-6
        + kernel.macs * MAC_SECONDS.get(kernel.kind, 1e-10)
        + 1.2e-10 * (kernel.input_bytes + kernel.output_bytes + kernel.weight_bytes)
        for kernel in graph.kernels
    )
    return 2e-5 + work


@dataclass
class MadeUp:
    """Answers what a calibration asks; `refuse` names what cannot be measured, and why."""

    make: Callable[..., Measurement]
    slowness: float = 1.0
    noise: float = 0.01
    refuse: Callable[["Specimen"], str | None] = lambda _: None
    energies: tuple[Energy, ...] = ()
    asked: list[str] = field(default_factory=list)

    def __call__(self, specimens: Sequence["Specimen"]) -> dict[str, Row | LeftOut]:
        return {one.name: self._answer(one) for one in specimens}

    def _answer(self, one: "Specimen") -> Row | LeftOut:
        self.asked.append(one.name)
        why = self.refuse(one)
        if why is not None:
            return LeftOut(one.name, one.kind, why)
        seed = int.from_bytes(one.name.encode()[-8:], "big")
        spread = math.exp(np.random.default_rng(seed).normal(0, self.noise))
        seconds = latency_seconds(one.kernels) * self.slowness * spread
        made = self.make("d", "0" * 64, seconds, energies=self.energies)
        peak = 60_000_000 + one.kernels.peak_activation_bytes + 2 * one.kernels.weight_bytes
        process = made.processes[0]
        memory = replace(process.memory, peak_rss_bytes=peak)
        measurement = replace(made, processes=(replace(process, memory=memory),))
        return Row(one.name, one.kind, measurement, len(self.asked))


@pytest.fixture
def made_up(make_measurement: Callable[..., Measurement]) -> MadeUp:
    return MadeUp(make_measurement)


class Watched:
    """A device with references of three sentinels, which answers their jobs at once.

    `slowness` is by the sentinel's name, 1 where it is not named; `verdicts` and `thermals`
    likewise.
    """

    SECONDS: Mapping[str, float] = {"conv": 0.020, "copy": 0.004, "tiny": 0.0005}
    SETTING = Setting("onnx", "onnxruntime", "1.23.2", 1)

    def __init__(
        self, store: Store, device: Device, clock: "FakeClock", make: Callable[..., Measurement]
    ) -> None:
        self.store, self.device, self.clock = store, device, clock
        self.slowness: dict[str, float] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.thermals: dict[str, Thermal] = {}
        self.fails: set[str] = set()
        self.version = self.SETTING.version
        self.jobs: list[Job] = []
        self._make = make
        self._session = ""
        self.start_agent("first")

    def start_agent(self, session: str) -> None:
        """The agent is started, and says so."""
        facts = self.device.facts
        assert facts is not None
        self._session = session
        self.store.devices.open_session(self.device.id, session, agent_version="0.1.0", facts=facts)

    def measured(self, name: str, run: ModelRun) -> Measurement:
        """What it measures now of a network that is called so."""
        seconds = self.SECONDS[name] * self.slowness.get(name, 1.0)
        made = self._make(self.device.id, run.model_sha256, seconds)
        return replace(
            made,
            run=run,
            runtime_version=self.version,
            verdict=self.verdicts.get(name, Verdict("OK")),
            thermal=self.thermals.get(name, Thermal()),
            measured_at=self.store.now(),
        )

    def wait(self, jobs: Mapping[str, Job]) -> dict[str, Measured]:
        """Answer all of them, a second each."""
        for _ in jobs:
            lease = self.store.jobs.claim(self.device.id, self._session, 60.0)
            if lease is None:
                continue
            job = lease.job
            assert isinstance(job.spec, MeasureSpec)
            self.clock.advance(1)
            self.jobs.append(job)
            name = job.label.removeprefix("sentinel ")
            outcome: Measured = self.measured(name, job.spec.run)
            if name in self.fails:
                outcome = MeasurementFailure(
                    self.device.id,
                    job.spec.run.model_sha256,
                    "timeout",
                    "too slow.",
                    job.created_at,
                )
            key = f"{job.id}:{lease.attempt}"
            self.store.jobs.report(self.device.id, job.id, lease.attempt, key, outcome)
        found = {name: self.store.jobs.outcome(job.id) for name, job in jobs.items()}
        return {name: one for name, one in found.items() if isinstance(one, Measured)}

    def models(self) -> list[SentinelModel]:
        """The sentinels, with the measurements of a calibration."""
        found = []
        for kind, name in zip(KINDS, self.SECONDS, strict=True):
            blob = self.store.blobs.put(name.encode())
            run = ModelRun(blob.sha256, blob.size_bytes)
            found.append(SentinelModel(kind, name, self.measured(name, run)))
        return found

    def calibrate(self, token: str = "january") -> References:
        """Measure the references."""
        return measure_references(
            self.store, self.device, self.SETTING, self.models(), self.wait, token=token
        )

    def measure_round(self, after_hours: float = 1.0) -> None:
        """One round of sentinels, some time later."""
        self.clock.advance(after_hours * 3600)
        references = References.of(self.store, self.device, self.SETTING)
        assert references is not None
        self.wait(submit_round(self.store, self.device, self.SETTING, references))


@pytest.fixture
def watched(
    store: Store, fleet: "Fleet", clock: "FakeClock", make_measurement: Callable[..., Measurement]
) -> Watched:
    """A device that is not calibrated yet."""
    return Watched(store, fleet.device("kiosk"), clock, make_measurement)
