"""Sentinels: three networks of a calibration that a device measures again and again.

One is bound by arithmetic, one by memory, one by the overhead of many small kernels, as the fitted
latency model divides their time: a clock that is capped slows the first, a neighbour on the memory
bus the second, an updated system the third. Their references are measured with the calibration;
rounds of all three follow whenever the device may have changed.
"""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, Self, get_args
from uuid import uuid4

import numpy as np

from cost_models.drift import SentinelNoise, sentinel_noise
from cost_models.nonnegative import NonNegativeModel
from host.calibration.measuring import Wait
from host.calibration.setting import Setting
from host.device import Device
from host.errors import GenbaError
from host.job import Job
from host.measurement import (
    PRESETS,
    Measured,
    Measurement,
    MeasureSpec,
    ModelRun,
    Readiness,
)
from host.store.measurements import AskedMeasurement
from host.store.store import Store

SentinelKind = Literal["compute", "memory", "overhead"]
KINDS: tuple[SentinelKind, ...] = get_args(SentinelKind)

REFERENCE_ROUNDS = 5
"""So many measurements is a reference the median of."""
MOST_REFERENCE_ROUNDS = 8
"""Rounds that are made at most where a device rejects some."""
MIN_SECONDS = 2e-4
"""Quicker networks are timed too coarsely to be sentinels, as long as there are others."""
MAX_SECONDS = 0.2
"""Slower ones would make a round long, as long as there are others."""
TIMEOUT_SECONDS = 300.0
PLAN = PRESETS["quick"]
"""How sentinels are measured, however carefully the calibration is."""

_TARGET = "drift-sentinels"
_PURPOSE = "sentinel"
_REFERENCE = f"{_PURPOSE} reference"
_UNITS: Mapping[SentinelKind, str] = {"compute": "mac", "memory": "byte", "overhead": "kernel"}
_OF_THE_DEVICE = frozenset({"DEVICE_CHANGED", "CLOCK_CHANGED"})
_OF_THE_HEAT = frozenset({"THROTTLED", "HOT"})


class NoReferencesError(GenbaError):
    """The device could not measure its sentinels well enough to compare with later."""


@dataclass(frozen=True)
class SentinelModel:
    """A network that is to be a sentinel, with the measurement that its model was fitted on."""

    kind: SentinelKind
    name: str
    measurement: Measurement

    @property
    def run(self) -> ModelRun:
        """How it is measured."""
        return self.measurement.run


@dataclass(frozen=True)
class Sentinel:
    """A sentinel with its reference; the noise is that of logarithms."""

    kind: SentinelKind
    name: str
    model_sha256: str
    model_size_bytes: int
    reference_seconds: float
    noise: SentinelNoise
    repeats: int


@dataclass(frozen=True)
class References:
    """The sentinels of a device in a setting. `token` says of which calibration they are."""

    id: int
    token: str
    sentinels: tuple[Sentinel, ...]
    measured_at: datetime

    @classmethod
    def of(cls, store: Store, device: Device, setting: Setting) -> Self | None:
        """Those of the newest calibration; None where there are none that this program reads."""
        found = store.cost_models.latest(device.id, setting.target(_TARGET))
        if found is None:
            return None
        try:
            stored = json.loads(found.model_json)
            sentinels = tuple(
                Sentinel(**{**one, "noise": SentinelNoise(**one["noise"])})
                for one in stored["sentinels"]
            )
            return cls(found.id, str(stored["token"]), sentinels, found.created_at)
        except (json.JSONDecodeError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Reading:
    """A sentinel in a round. `not_counted_because` is empty where it counts.

    `ratio` is measured / reference, None where nothing was measured.
    """

    ratio: float | None
    verdict: str | None
    not_counted_because: str


@dataclass(frozen=True)
class Round:
    """The readings of all sentinels in the order of the references. `session` is that of the
    agent that measured.
    """

    at: datetime
    readings: tuple[Reading, ...]
    session: str | None

    @property
    def log_ratios(self) -> tuple[float, ...]:
        """NaN where a reading does not count."""
        return tuple(
            float("nan")
            if reading.not_counted_because or reading.ratio is None
            # A clock of no resolution gives 0 s, which is no speed.
            else float(np.log(reading.ratio))
            if reading.ratio > 0
            else float("nan")
            for reading in self.readings
        )


def choose(
    model: NonNegativeModel, names: Sequence[str], measurements: Sequence[Measurement]
) -> tuple[SentinelModel, ...]:
    """Of the networks that a latency model was fitted on, in its order, one of each kind: where
    most of the time goes into arithmetic, into bytes, into kernels.

    Raises ValueError where there are fewer than three, or not one name and measurement for each
    row.
    """
    rows, seconds = model.measured_rows, model.measured_values
    if not len(KINDS) <= len(rows) == len(names) == len(measurements):
        raise ValueError(f"{len(rows)} rows, {len(names)} names, {len(measurements)} measurements")
    units = np.array([unit for _, unit in model.columns])
    costs = np.stack([model.contributions(row) for row in rows])
    suitable = (seconds >= MIN_SECONDS) & (seconds <= MAX_SECONDS)
    found: list[SentinelModel] = []
    taken: set[int] = set()
    for kind in KINDS:
        of_kind = units == _UNITS[kind]
        share = costs[:, of_kind].sum(axis=1) / np.maximum(costs.sum(axis=1), 1e-12)
        amount = rows[:, of_kind].sum(axis=1) / seconds
        free = [index for index in range(len(rows)) if index not in taken]
        best = max(free, key=lambda i: (suitable[i], share[i], amount[i], names[i]))
        taken.add(best)
        found.append(SentinelModel(kind, names[best], measurements[best]))
    return tuple(found)


def token_of(calibration: str) -> str:
    """A short name for a calibration, given all that makes it another one."""
    return hashlib.sha256(calibration.encode()).hexdigest()[:12]


def is_of_sentinel(job: Job) -> bool:
    """Whether it measures a sentinel: for a reference, or in a round."""
    return job.purpose.startswith(f"{_PURPOSE} ")


def is_of_round(job: Job) -> bool:
    """Whether it belongs to a round: no later command asks for the same one."""
    return is_of_sentinel(job) and not job.purpose.startswith(f"{_REFERENCE} ")


def measure_references(
    store: Store,
    device: Device,
    setting: Setting,
    models: Sequence[SentinelModel],
    wait: Wait,
    *,
    token: str,
    readiness: Readiness | None = None,
) -> References:
    """Measure the sentinels until there are REFERENCE_ROUNDS of each, the one of the calibration
    among them, and keep the result: all later rounds are compared with it. Those of the same
    calibration are not measured again.

    Raises NoReferencesError where fewer than two sentinels have a measurement that counts.
    """
    known = References.of(store, device, setting)
    if known is not None and known.token == token:
        return known
    counted = {
        model.name: [] if why_not_counted(model.measurement, setting) else [model.measurement]
        for model in models
    }
    why: list[str] = []
    for number in range(MOST_REFERENCE_ROUNDS):
        missing = [m for m in models if len(counted[m.name]) < REFERENCE_ROUNDS]
        if not missing:
            break
        purpose = f"{_REFERENCE} {token} {number}"
        jobs = {
            m.name: _submit(store, device, m.name, _run(m.run, setting), purpose, readiness)
            for m in missing
        }
        for name, outcome in wait(jobs).items():
            because = why_not_counted(outcome, setting)
            if because or not isinstance(outcome, Measurement):
                why.append(f"{name}: {because}")
            else:
                counted[name].append(outcome)
    usable = [model for model in models if counted[model.name]]
    if len(usable) < 2:
        raise NoReferencesError(
            f"{device.name} could not measure its sentinels, so that drift cannot be seen:"
            f" {'; '.join(dict.fromkeys(why))}"
        )
    return _keep(store, device, setting, usable, counted, token)


def submit_round(
    store: Store,
    device: Device,
    setting: Setting,
    references: References,
    readiness: Readiness | None = None,
) -> dict[str, Job]:
    """Ask for a new round, before whatever else waits for the device; by the sentinels' names."""
    purpose = f"{_PURPOSE} {references.id} {uuid4().hex}"
    return {
        one.name: _submit(
            store,
            device,
            one.name,
            _run(one, setting),
            purpose,
            readiness,
        )
        for one in references.sentinels
    }


def rounds_of(
    store: Store, device: Device, setting: Setting, references: References
) -> tuple[Round, ...]:
    """The rounds since the references were measured, oldest first."""
    asked = store.measurements.asked_for(device.id, f"{_PURPOSE} {references.id} ")
    by_round: dict[str, list[AskedMeasurement]] = {}
    for one in asked:
        by_round.setdefault(one.purpose, []).append(one)
    found = [_round(ones, references, setting) for ones in by_round.values()]
    return tuple(sorted(found, key=lambda one: one.at))


def session_of(store: Store, device: Device, references: References) -> str | None:
    """The session of the agent that measured the references, as far as is known."""
    asked = store.measurements.asked_for(device.id, f"{_REFERENCE} {references.token} ")
    return asked[-1].session_id if asked else None


def why_not_counted(outcome: Measured, setting: Setting) -> str:
    """Why a reading says nothing of the device; empty where it does.

    What a device rejects does not count, and nothing that heat touched. That the device itself is
    no longer as it was (DEVICE_CHANGED, CLOCK_CHANGED) is what sentinels are to find: alone it is
    no reason.
    """
    if not isinstance(outcome, Measurement):
        return f"{outcome.kind.replace('_', ' ')}: {outcome.message.rstrip('.')}"
    measured_in = Setting.of_measurement(outcome)
    if measured_in != setting:
        return f"measured with {measured_in}"
    thermal, codes = outcome.thermal, outcome.verdict.codes
    hot = [code for code in codes if code in _OF_THE_HEAT]
    if hot or thermal.throttled or thermal.throttle_events:
        return " ".join(hot) or "THROTTLED"
    rejected = [
        reason.code
        for reason in outcome.verdict.reasons
        if reason.level == "REJECT" and reason.code not in _OF_THE_DEVICE
    ]
    return f"REJECT {' '.join(rejected)}" if rejected else ""


def _run(model: ModelRun | Sentinel, setting: Setting) -> ModelRun:
    return ModelRun(model.model_sha256, model.model_size_bytes, setting.runtime, setting.threads)


def _submit(
    store: Store,
    device: Device,
    name: str,
    run: ModelRun,
    purpose: str,
    readiness: Readiness | None = None,
) -> Job:
    spec = MeasureSpec(run, PLAN, readiness or Readiness(), TIMEOUT_SECONDS)
    return store.jobs.submit(device.id, spec, purpose=purpose, priority=1, label=f"sentinel {name}")


def _keep(
    store: Store,
    device: Device,
    setting: Setting,
    models: Sequence[SentinelModel],
    counted: Mapping[str, Sequence[Measurement]],
    token: str,
) -> References:
    repeats = [np.array([m.latency_seconds for m in counted[one.name]]) for one in models]
    widths = [statistics.median(m.latency.half_width for m in counted[one.name]) for one in models]
    sentinels = tuple(
        Sentinel(
            kind=model.kind,
            name=model.name,
            model_sha256=model.run.model_sha256,
            model_size_bytes=model.run.model_size_bytes,
            reference_seconds=float(np.median(seconds)),
            noise=noise,
            repeats=len(seconds),
        )
        for model, seconds, noise in zip(
            models, repeats, sentinel_noise(repeats, widths), strict=True
        )
    )
    text = json.dumps({"token": token, "sentinels": [asdict(one) for one in sentinels]})
    new = store.cost_models.add(device.id, setting.target(_TARGET), text, len(sentinels))
    return References(new, token, sentinels, store.now())


def _round(asked: Sequence[AskedMeasurement], references: References, setting: Setting) -> Round:
    by_model = {one.measurement.model_sha256: one for one in asked}
    readings = []
    for sentinel in references.sentinels:
        found = by_model.get(sentinel.model_sha256)
        if found is None:
            readings.append(Reading(None, None, "not measured"))
            continue
        readings.append(
            Reading(
                found.latency_seconds / sentinel.reference_seconds,
                found.measurement.verdict.level,
                why_not_counted(found.measurement, setting),
            )
        )
    newest = max(asked, key=lambda one: one.measurement.measured_at)
    return Round(newest.measurement.measured_at, tuple(readings), newest.session_id)
