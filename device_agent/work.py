"""What the host asks of a device and what comes of it, as frozen values."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Union

from device_agent.errors import BadAnswerError

PROTOCOL = "genba-measure/1"
"""Name of the way of measuring that this agent follows."""


@dataclasses.dataclass(frozen=True)
class MeasureSpec:
    """How to measure one model. `timeout_seconds` bounds the life of the whole worker process."""

    protocol: str
    runtime: str
    model_sha256: str
    model_size_bytes: int
    threads: int
    warmup_runs: int
    warmup_seconds: float
    min_samples: int
    min_seconds: float
    timeout_seconds: float


@dataclasses.dataclass(frozen=True)
class Request:
    """What a worker is told: the spec, the file, and the limits that it puts on itself."""

    spec: MeasureSpec
    model_path: Path
    address_space_bytes: int
    parent_pid: int

    def to_json(self) -> str:
        return json.dumps({**dataclasses.asdict(self), "model_path": str(self.model_path)})

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Raises BadAnswerError where the text is not a request."""
        try:
            data = json.loads(text)
            spec = MeasureSpec(**data.pop("spec"))
            return cls(spec=spec, model_path=Path(data.pop("model_path")), **data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadAnswerError(f"not a request ({error})") from error


@dataclasses.dataclass(frozen=True)
class Lease:
    """One job, lent to this device for `seconds` after each renewal."""

    id: str
    job_id: str
    attempt: int
    seconds: float
    spec: MeasureSpec

    @property
    def idempotency_key(self) -> str:
        """The key under which the host stores the outcome at most once."""
        return f"{self.job_id}:{self.attempt}"


@dataclasses.dataclass(frozen=True)
class PowerReading:
    """Energy over a window in which inferences ran back to back; idle is not subtracted."""

    source: str
    scope: str
    kind: str
    energy_joules: float
    window_seconds: float
    inferences: int
    idle_watts: float | None


@dataclasses.dataclass(frozen=True)
class MeasuredSamples:
    """Raw values of one measurement. `power` is None exactly where `power_absent_because` is not
    empty; other absent values are None.
    """

    protocol: str
    runtime: str
    runtime_library: str
    runtime_version: str
    threads: int
    latency_seconds: tuple[float, ...]
    runs_per_sample: int
    warmup_runs: int
    load_seconds: float
    first_inference_seconds: float
    base_rss_bytes: int
    load_rss_bytes: int
    peak_rss_bytes: int
    power: PowerReading | None
    power_absent_because: str
    temperature_start_celsius: float | None
    temperature_end_celsius: float | None
    governor: str | None
    load_average_start: float
    runtime_options: tuple[str, ...]
    cpu_seconds: float | None


class FailureKind(enum.Enum):
    """Why a job has no samples."""

    MODEL_REJECTED = "model_rejected"
    WORKER_CRASHED = "worker_crashed"
    TIMEOUT = "timeout"
    RESOURCE = "resource"
    NO_RUNTIME = "no_runtime"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A job that ended without samples: as good a result as a number."""

    kind: FailureKind
    message: str


Outcome = Union[MeasuredSamples, Failure]


def outcome_to_json(outcome: Outcome) -> str:
    """One line of JSON from which `outcome_from_json` makes an equal outcome."""
    if isinstance(outcome, Failure):
        return json.dumps({"failure": {"kind": outcome.kind.value, "message": outcome.message}})
    return json.dumps({"measured": dataclasses.asdict(outcome)}, allow_nan=False)


def outcome_from_json(text: str) -> Outcome:
    """The outcome that the text describes.

    Raises BadAnswerError where a field is missing, unknown, of another type or not finite.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadAnswerError(f"not JSON ({error})") from error
    if isinstance(data, dict) and set(data) == {"failure"}:
        fields = _fields(_FAILURE, data["failure"], "failure")
        return Failure(**fields)
    if isinstance(data, dict) and set(data) == {"measured"}:
        return _checked(MeasuredSamples(**_fields(_MEASURED, data["measured"], "measured")))
    raise BadAnswerError("neither `measured` nor `failure`")


def _checked(samples: MeasuredSamples) -> MeasuredSamples:
    if not samples.latency_seconds or min(samples.latency_seconds) <= 0:
        raise BadAnswerError("latency_seconds must be positive numbers, at least one")
    if (samples.power is None) != bool(samples.power_absent_because):
        raise BadAnswerError("power and power_absent_because must exclude each other")
    return samples


_Reader = Callable[[Any], Any]


def _fields(readers: Mapping[str, _Reader], data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise BadAnswerError(f"{where} is not an object")
    if set(data) != set(readers):
        wrong = ", ".join(sorted(set(data) ^ set(readers)))
        raise BadAnswerError(f"{where} has missing or unknown fields: {wrong}")
    return {name: _field(read, data[name], f"{where}.{name}") for name, read in readers.items()}


def _field(read: _Reader, value: Any, where: str) -> Any:
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        raise BadAnswerError(f"{where}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("must be a number")
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return float(value)


def _amount(value: Any) -> float:
    amount = _number(value)
    if amount < 0:
        raise ValueError("must not be negative")
    return amount


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("must be a whole number")
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _optional(read: _Reader) -> _Reader:
    return lambda value: None if value is None else read(value)


def _tuple_of(read: _Reader) -> _Reader:
    def read_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError("must be a list")
        return tuple(read(item) for item in value)

    return read_all


def _power(value: Any) -> PowerReading:
    return PowerReading(**_fields(_POWER, value, "power"))


_FAILURE: Mapping[str, _Reader] = {"kind": FailureKind, "message": _text}
_POWER: Mapping[str, _Reader] = {
    "source": _text,
    "scope": _text,
    "kind": _text,
    "energy_joules": _amount,
    "window_seconds": _amount,
    "inferences": _count,
    "idle_watts": _optional(_amount),
}
_MEASURED: Mapping[str, _Reader] = {
    "protocol": _text,
    "runtime": _text,
    "runtime_library": _text,
    "runtime_version": _text,
    "threads": _count,
    "latency_seconds": _tuple_of(_amount),
    "runs_per_sample": _count,
    "warmup_runs": _count,
    "load_seconds": _amount,
    "first_inference_seconds": _amount,
    "base_rss_bytes": _count,
    "load_rss_bytes": _count,
    "peak_rss_bytes": _count,
    "power": _optional(_power),
    "power_absent_because": _text,
    "temperature_start_celsius": _optional(_number),
    "temperature_end_celsius": _optional(_number),
    "governor": _optional(_text),
    "load_average_start": _amount,
    "runtime_options": _tuple_of(_text),
    "cpu_seconds": _optional(_amount),
}
