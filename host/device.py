"""A registered machine, and what its agent says about it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from host.errors import UsageError

RuntimeName = Literal["onnx", "tflite", "ncnn"]
CalibratedRuntime = Literal["onnx", "tflite"]
"""Those that a device is calibrated with; a study fits models of its own for all."""
_FORMAT_NAMES = {"onnx": "ONNX", "tflite": "TFLite", "ncnn": "ncnn"}


class NoRuntimeError(UsageError):
    """The device has nothing that runs the model."""


class EmulatedDeviceError(UsageError):
    """A program plays the device, so no figure of it may be built upon."""


@dataclass(frozen=True)
class Runtime:
    """A library on the device that runs models, as probed in a child process there."""

    name: str
    library: str
    version: str
    works: bool
    why_not: str


@dataclass(frozen=True)
class PowerSource:
    """A place on the device where power can be read, or the reason why it cannot."""

    name: str
    works: bool
    why_not: str


@dataclass(frozen=True)
class Guard:
    """One of the walls around the processes that run models there, or the reason why it is not."""

    name: str
    works: bool
    how: str
    why_not: str


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is, as its agent reads it. Absent is None.

    `emulated` is None where an older agent does not look; such a device counts as a real one.
    """

    hostname: str
    machine: str
    pointer_bits: int
    cpu_model: str
    cpu_flags: tuple[str, ...]
    cpu_cores_physical: int | None
    cpu_cores_logical: int
    ram_bytes: int
    os_name: str
    kernel: str
    python_version: str
    governor: str | None
    temperature_celsius: float | None
    cpu_max_hertz: float | None
    runtimes: tuple[Runtime, ...] = ()
    power_sources: tuple[PowerSource, ...] = ()
    guards: tuple[Guard, ...] = ()
    emulated: bool | None = None

    def runtime(self, name: str) -> Runtime | None:
        """The runtime of that name if the device has it and it works there."""
        return next((r for r in self.runtimes if r.name == name and r.works), None)


@dataclass(frozen=True)
class Device:
    """A registered machine. `id` is for ever; `name` is for people and unique.

    A revoked device may not connect until it enrols again; its history stays its own.
    """

    id: str
    name: str
    spki_sha256: str
    enrolled_at: datetime
    last_seen_at: datetime | None = None
    agent_version: str | None = None
    facts: DeviceFacts | None = field(default=None, repr=False)
    revoked_at: datetime | None = None

    @property
    def is_emulated(self) -> bool:
        """Whether its agent says that a program plays its CPU."""
        return self.facts is not None and self.facts.emulated is True

    def require_real(self, purpose: str) -> None:
        """Raises EmulatedDeviceError, with the purpose it may not serve, where it is emulated."""
        if self.is_emulated:
            raise EmulatedDeviceError(
                f"{self.name} is emulated, and times under emulation say nothing of the machine:"
                f" {purpose} needs the real one"
            )

    def runtime(self, name: str) -> Runtime:
        """The runtime of that name. Raises NoRuntimeError where there is none that works."""
        if self.facts is None:
            raise NoRuntimeError(
                f"{self.name} has not said yet what it can run: start genba-agent there once"
            )
        found = self.facts.runtime(name)
        if found is None:
            known = (r.why_not for r in self.facts.runtimes if r.name == name)
            reason = next(known, "it is not installed")
            raise NoRuntimeError(
                f"{self.name} cannot run {_FORMAT_NAMES.get(name, name)} models: {reason}"
            )
        return found


@dataclass(frozen=True)
class MeterBinding:
    """A meter on the plant's network that measures one device's supply."""

    url: str
    options: dict[str, str] = field(default_factory=dict, repr=False)  # may hold a password
