"""What a device measured: raw samples, and the statistics that follow from them."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from host.measurement.energy import Energy
from host.measurement.samples import EnergyRun, NumberKind, Preflight, ProcessRun, Thermal
from host.measurement.spec import ModelRun, Plan
from host.measurement.statistics import Latency, latency_of
from host.measurement.verdict import Verdict


@dataclass(frozen=True)
class Measurement:
    """One successful measurement. Raw samples are kept; every statistic is derived from them.

    `energies` holds one figure for each source that could be read, the one to quote first. `plan`
    and `preflight` are None for measurements of the protocol genba-measure/1.
    """

    device_id: str
    run: ModelRun
    plan: Plan | None
    protocol: str
    runtime_library: str
    runtime_version: str
    runtime_options: tuple[str, ...]
    cpus: tuple[int, ...]
    preflight: Preflight | None
    processes: tuple[ProcessRun, ...]
    thermal: Thermal
    governor: str | None
    load_average_start: float
    energy_run: EnergyRun | None
    energies: tuple[Energy, ...]
    energy_absent_because: str
    verdict: Verdict
    measured_at: datetime

    @property
    def model_sha256(self) -> str:
        return self.run.model_sha256

    @property
    def runtime(self) -> str:
        return self.run.runtime

    @property
    def threads(self) -> int:
        return self.run.threads

    @cached_property
    def latency(self) -> Latency:
        """The figure to use, with its interval, quantiles, and where it comes from."""
        return latency_of(self.processes, self.threads)

    @property
    def latency_seconds(self) -> float:
        return self.latency.seconds

    @property
    def latency_interval_seconds(self) -> tuple[float, float]:
        return self.latency.interval_seconds

    @property
    def latency_kind(self) -> NumberKind:
        return self.latency.kind

    @property
    def sample_count(self) -> int:
        return self.latency.n

    @property
    def energy(self) -> Energy | None:
        """The energy to quote, or None for the reason in `energy_absent_because`."""
        return self.energies[0] if self.energies else None

    @property
    def base_rss_bytes(self) -> int:
        return max(process.memory.base_rss_bytes for process in self.processes)

    @property
    def load_rss_bytes(self) -> int:
        return max(process.memory.load_rss_bytes for process in self.processes)

    @property
    def peak_rss_bytes(self) -> int:
        return max(process.memory.peak_rss_bytes for process in self.processes)
