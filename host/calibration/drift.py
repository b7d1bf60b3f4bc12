"""Whether a device is still as its cost models know it, and what to do where it is not.

A stored model of latency or energy holds for the state that its device was in when the model was
made. Where the sentinels show that everything became slower or quicker by one factor since,
predictions are multiplied by it: energy is power for as long as a run takes. Where they disagree,
only a new calibration helps. What was measured in one state is never fitted or judged beside what
was measured in another without being brought to the newest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from cost_models.drift import Drift, Verdict, diagnose
from cost_models.latency import LatencyModel
from host.calibration.calibration import Row
from host.calibration.measuring import Wait
from host.calibration.sentinels import (
    KINDS,
    REFERENCE_ROUNDS,
    NoReferencesError,
    References,
    Round,
    choose,
    measure_references,
    rounds_of,
    session_of,
    submit_round,
)
from host.calibration.setting import Setting
from host.device import Device
from host.measurement import Measurement, Readiness
from host.store.store import Store

ROUND_EVERY = timedelta(hours=4)
"""How old the newest round may be before more is measured."""
IDLE_FOR = timedelta(hours=1)
"""A device that measured nothing for so long was away, or may have become another one."""


@dataclass(frozen=True)
class Scale:
    """By how much a device has become slower since its latency model was made.

    `interval` holds the ratio at 90 %; `since` is when the first round showed it.
    """

    device: str
    ratio: float
    interval: tuple[float, float]
    since: datetime

    def sentence(self, quantities: Sequence[str]) -> str:
        """What people must know of it, of models of these quantities."""
        low, high = (_percent(bound) for bound in self.interval)
        what = " and ".join(quantities)
        made, are = ("models were", "are") if len(quantities) > 1 else ("model was", "is")
        return (
            f"{self.device} runs everything {_faster_or_slower(self.ratio)} than when its {what}"
            f" {made} made [{low}, {high}], since {_moment(self.since)}: predicted {what} {are}"
            " multiplied by that"
        )


@dataclass(frozen=True)
class DriftReport:
    """What the sentinels of a device say of it; without references there is nothing to say."""

    device: str
    setting: Setting
    references: References | None
    rounds: tuple[Round, ...]
    drift: Drift | None

    @property
    def verdict(self) -> Verdict:
        """The newest state of the device."""
        return "too little to tell" if self.drift is None else self.drift.verdict

    @property
    def is_doubtful(self) -> bool:
        """Whether another round is needed to know."""
        return self.drift is not None and self.drift.is_doubtful

    @property
    def is_newly_doubtful(self) -> bool:
        """The same, where the round before was not odd already: one more round, not many."""
        if self.drift is None or not self.is_doubtful:
            return False
        return len(self.rounds) < 2 or not self.drift.is_doubtful_at(len(self.rounds) - 2)

    @property
    def since(self) -> datetime | None:
        """When the first round showed the newest state; None where that is the calibration's."""
        if self.drift is None or self.drift.since is None:
            return None
        return self.rounds[self.drift.since].at

    @property
    def ratio(self) -> float:
        """How many times as long everything takes as in the calibration."""
        return 1.0 if self.drift is None else math.exp(self.drift.common.state.level)

    @property
    def interval(self) -> tuple[float, float] | None:
        """That of the ratio at 90 %; None without rounds."""
        if self.drift is None or not any(self.drift.counted):
            return None
        state = self.drift.common.state
        return (
            math.exp(state.level - state.half_width),
            math.exp(state.level + state.half_width),
        )

    def log_level_at(self, moment: datetime) -> float:
        """The logarithm of the ratio in the state that held then.

        What lies between two rounds belongs to the earlier: before a device that came back
        measures anything, it measures its sentinels.
        """
        if self.drift is None:
            return 0.0
        before = sum(one.at <= moment for one in self.rounds)
        return self.drift.common.level_at(before - 1)

    def to_now(self, moment: datetime) -> float:
        """What a latency measured then is multiplied by to compare with what is measured now."""
        if self.drift is None:
            return 1.0
        return math.exp(self.drift.common.state.level - self.log_level_at(moment))

    def latency_now(self, measurement: Measurement) -> float:
        """The latency of a measurement as it would be measured now, in seconds."""
        return measurement.latency_seconds * self.to_now(measurement.measured_at)

    def sentence(self) -> str:
        """The state in one sentence."""
        if self.references is None:
            return f"{self.device} has no sentinels for {self.setting}"
        if self.drift is None or not any(self.drift.counted):
            return f"no round of sentinels on {self.device} counts yet"
        match self.verdict:
            case "steady":
                return f"{self.device} is as fast as when it was calibrated"
            case "shifted":
                low, high = (_percent(bound) for bound in self.interval or (1.0, 1.0))
                return (
                    f"{self.device} runs everything {_faster_or_slower(self.ratio)} than when it"
                    f" was calibrated [{low}, {high}], since {_moment(self.since)}"
                )
            case "reshaped":
                names = ", ".join(
                    f"{self.references.sentinels[i].name} {_percent(self._ratio_of(i))}"
                    for i in range(len(self.references.sentinels))
                )
                return (
                    f"{self.device} no longer has the shape that it was calibrated with: since"
                    f" {_moment(self.since)} its sentinels disagree ({names})"
                )
            case "too little to tell":
                return f"the newest round on {self.device} is odd: one more decides"

    def advice(self) -> str:
        """What to do about it; empty where nothing is to be done."""
        options = "" if self.setting.runtime == "onnx" else f" --runtime {self.setting.runtime}"
        if self.setting.threads != 1:
            options += f" --threads {self.setting.threads}"
        if self.references is None:
            return f"calibrate it: `genba device calibrate {self.device}{options}`"
        if self.verdict == "reshaped":
            return f"calibrate again: `genba device calibrate {self.device}{options} --again`"
        if self.verdict == "too little to tell":
            return f"measure a round: `genba device drift {self.device}{options}`"
        if self.verdict == "shifted":
            return (
                "predicted latency and energy are multiplied by that; where the change is meant to"
                f" stay, set the baseline of verdicts anew: `genba device probe {self.device}`"
            )
        return ""

    def _ratio_of(self, sentinel: int) -> float:
        """Of one sentinel in its newest state."""
        if self.drift is None:
            return 1.0
        return math.exp(self.drift.common.state.level + self.drift.shapes[sentinel].state.level)


def drift_of(store: Store, device: Device, setting: Setting) -> DriftReport:
    """What the rounds since the calibration say of the device in that setting."""
    references = References.of(store, device, setting)
    if references is None:
        return DriftReport(device.name, setting, None, (), None)
    rounds = rounds_of(store, device, setting, references)
    ratios = np.array([one.log_ratios for one in rounds], dtype=np.float64)
    noises = [one.noise for one in references.sentinels]
    drift = diagnose(ratios.reshape(len(rounds), len(noises)), noises)
    return DriftReport(device.name, setting, references, rounds, drift)


def scale_of(report: DriftReport, made_at: datetime) -> Scale | None:
    """By what predictions of a model that was made then are multiplied now.

    None where the device is as it was then, and where its shape changed: then there is no such
    number, and the report says so.
    """
    if report.drift is None or report.verdict == "reshaped":
        return None
    state = report.drift.common.state
    level = state.level - report.log_level_at(made_at)
    if level == 0:
        return None
    return Scale(
        report.device,
        math.exp(level),
        (math.exp(level - state.half_width), math.exp(level + state.half_width)),
        report.rounds[state.start].at,
    )


def due(store: Store, device: Device, setting: Setting, now: datetime) -> str | None:
    """Why a round of sentinels is to be measured before anything else is; None where it is not.

    A device that has not been calibrated in the setting has none.
    """
    report = drift_of(store, device, setting)
    return None if report.references is None else _due(store, device, report, now)


def _due(store: Store, device: Device, report: DriftReport, now: datetime) -> str | None:
    if report.references is None:
        return None
    rounds = report.rounds
    last = max([report.references.measured_at, *(one.at for one in rounds)])
    measured_in = rounds[-1].session if rounds else session_of(store, device, report.references)
    newest = store.measurements.list(device.id, limit=1)
    idle = now - max([last, *(one.measurement.measured_at for one in newest)])
    session = store.devices.session_of(device.id)
    if measured_in is not None and session is not None and session != measured_in:
        return "its agent was started again"
    if idle > IDLE_FOR:
        return f"nothing was measured for {_hours(idle)}"
    if now - last > ROUND_EVERY:
        return f"the last round is {_hours(now - last)} old"
    return "the newest round is odd" if report.is_newly_doubtful else None


@dataclass
class Watch:
    """Measures rounds of sentinels where they are due, and says each change of a device once.

    `wait` waits for the jobs of a round; `say` tells people.
    """

    store: Store
    wait: Wait
    say: Callable[[str], None]
    readiness: Readiness = field(default_factory=Readiness)

    def __post_init__(self) -> None:
        self._said: dict[tuple[str, Setting], tuple[Verdict, datetime | None]] = {}

    def look(self, device: Device, setting: Setting) -> DriftReport:
        """Measure what is due on a device and tell how it is; call it before a batch."""
        report = drift_of(self.store, device, setting)
        for attempt in range(2):
            why = _due(self.store, device, report, self.store.now())
            # The second time only for an odd round: a device that cannot measure is not pressed.
            if (
                why is None
                or report.references is None
                or (attempt and not report.is_newly_doubtful)
            ):
                break
            self.say(f"{device.name} measures its sentinels first: {why}")
            self.wait(submit_round(self.store, device, setting, report.references, self.readiness))
            report = drift_of(self.store, device, setting)
        self._tell(device, setting, report)
        return report

    def _tell(self, device: Device, setting: Setting, report: DriftReport) -> None:
        now = report.verdict, report.since
        before = self._said.get((device.id, setting), ("steady", None))
        if report.references is None or report.verdict == "too little to tell" or now == before:
            return
        self._said[device.id, setting] = now
        advice = report.advice()
        self.say(f"{report.sentence()}{f'; {advice}' if advice else ''}")


@dataclass
class CalibrationWatch:
    """Watches a device while it is calibrated: its sentinels are chosen as soon as there is a
    model, and what was measured before a change is brought to what is measured after it.

    `token` tells this calibration from others of the device.
    """

    store: Store
    device: Device
    setting: Setting
    wait: Wait
    say: Callable[[str], None]
    token: str
    readiness: Readiness = field(default_factory=Readiness)

    def __post_init__(self) -> None:
        self._watch = Watch(self.store, self.wait, self.say, self.readiness)
        self._report: DriftReport | None = None
        self._gave_up = False

    @property
    def references_left(self) -> int:
        """How many measurements of sentinels are still to come, if none of them is rejected."""
        if self._gave_up or self._has_references:
            return 0
        return len(KINDS) * (REFERENCE_ROUNDS - 1)

    @property
    def _has_references(self) -> bool:
        known = References.of(self.store, self.device, self.setting)
        return known is not None and known.token == self.token

    def after_batch(self, rows: Sequence[Row], model: LatencyModel) -> bool:
        """Measure what is due; returns whether latencies of `rows` are others now."""
        if not self._has_references:
            self._measure_references(rows, model)
            return False
        before = [self.latency_of(row.measurement) for row in rows]
        self._report = self._watch.look(self.device, self.setting)
        now = [self.latency_of(row.measurement) for row in rows]
        if now == before:
            return False
        count = sum(new != old for new, old in zip(now, before, strict=True))
        self.say(
            f"{count} latencies that {self.device.name} measured before are multiplied by the ratio"
            " of its sentinels, to be fitted with what it measures now"
        )
        return True

    def latency_of(self, measurement: Measurement) -> float:
        """As it would be measured now, in seconds."""
        if self._report is None:
            return measurement.latency_seconds
        return self._report.latency_now(measurement)

    def _measure_references(self, rows: Sequence[Row], model: LatencyModel) -> None:
        if self._gave_up:
            return
        chosen = choose(model, [row.name for row in rows], [row.measurement for row in rows])
        names = ", ".join(one.name for one in chosen)
        self.say(
            f"{self.device.name} measures its sentinels, to see by them how it drifts: {names}"
        )
        try:
            measure_references(
                self.store,
                self.device,
                self.setting,
                chosen,
                self.wait,
                token=self.token,
                readiness=self.readiness,
            )
        except NoReferencesError as error:
            self._gave_up = True
            self.say(str(error))


def _faster_or_slower(ratio: float) -> str:
    if ratio < 1:
        return f"{1 - ratio:.1%} quicker"
    return f"{ratio - 1:.1%} slower"


def _percent(ratio: float) -> str:
    return f"{ratio - 1:+.1%}"


def _moment(moment: datetime | None) -> str:
    return "–" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
