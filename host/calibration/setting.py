"""What a cost model holds for, besides the device: the runtime, its version, its threads."""

from dataclasses import dataclass
from typing import Self

from host.device import Device
from host.measurement import Measurement


@dataclass(frozen=True)
class Setting:
    """A runtime as it is set up; another library, version or number of threads is another one."""

    runtime: str
    library: str
    version: str
    threads: int

    @classmethod
    def of_measurement(cls, measurement: Measurement) -> Self:
        """The setting in which something was measured."""
        return cls(
            measurement.runtime,
            measurement.runtime_library,
            measurement.runtime_version,
            measurement.threads,
        )

    @classmethod
    def of_device(cls, device: Device, runtime: str, threads: int) -> Self:
        """The setting that a device has now. Raises NoRuntimeError."""
        found = device.runtime(runtime)
        return cls(runtime, found.library, found.version, threads)

    def target(self, quantity: str) -> str:
        """Name under which the store keeps the model of that quantity, such as
        "latency_seconds onnxruntime 1.23.2 threads=1".
        """
        return f"{quantity} {self.library} {self.version} threads={self.threads}"

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.library} {self.version}, {threads}"
