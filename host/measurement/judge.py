"""The verdict on a measurement: everything that speaks against trusting it.

| code            | warning                           | rejected                                   |
|-----------------|-----------------------------------|--------------------------------------------|
| BUSY            | other programs used the CPU       |                                            |
| SWAPPING        |                                   | pages came in from swap at the start       |
| THROTTLED       |                                   | the clock was capped, before or meanwhile  |
| HOT             | above the start limit, or 80 °C   |                                            |
|                 | where nothing counts throttling   |                                            |
| LOW_MEMORY      | less free RAM than the limit      |                                            |
| NO_STEADY_STATE | a warm-up did not converge        |                                            |
| CONTENDED       | > 10 % of the samples disturbed,  | < 30 clean and no derived figure           |
|                 | or the figure is derived          |                                            |
| FEW_SAMPLES     | < 30                              | < 5                                        |
| IMPRECISE       | half width > the plan's           | > 10 %                                     |
| UNSTABLE        | processes differ by > 3 %         | > 9 %                                      |
| DRIFT           | > 2 %                             | > 10 %                                     |
| REFERENCE_DRIFT | > 2 %                             |                                            |
| DEVICE_CHANGED  | reference > 5 % off its baseline; | > 10 %; derived figures: > 20 %            |
|                 | derived figures: > 10 %           |                                            |
| CLOCK_CHANGED   | canary > 3 % off its baseline     | > 10 %, and the reference is off as well   |
| EMULATED        |                                   | a program plays the device's CPU           |

A warning is a figure that may be used with what it says in mind; a rejected one may be far off.
The reference alone rejects by its baseline only: its drift within a measurement is of few samples,
and samples beside a slow reference are left out. Where the device is contended the wall clock of
the reference tells of the neighbours, so its CPU time is compared, with twice the limits (a CPU hog
on the same core makes it 6 to 12 % longer, as caches are refilled at each switch), and the canary
not at all. The limits of the first column are those of §2.2 and §3 of the measuring protocol.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from host.measurement.measurement import Measurement
from host.measurement.samples import Preflight
from host.measurement.statistics import MIN_CLEAN, Latency
from host.measurement.verdict import Reason, Verdict

MAX_DISTURBED_SHARE = 0.10
MIN_SAMPLES = 5
HOT_CELSIUS = 80.0  # where a Raspberry Pi begins to slow down
_NEVER = float("inf")


@dataclass(frozen=True)
class Limit:
    """Above `warn` a reason to warn, above `reject` one to reject; both relative."""

    warn: float
    reject: float = _NEVER

    def level(self, value: float) -> Literal["WARN", "REJECT"] | None:
        if value > self.reject:
            return "REJECT"
        return "WARN" if value > self.warn else None


UNSTABLE = Limit(0.03, 0.09)
DRIFT = Limit(0.02, 0.10)
REFERENCE_DRIFT = Limit(0.02)
DEVICE_CHANGED = Limit(0.05, 0.10)
DEVICE_CHANGED_CONTENDED = Limit(0.10, 0.20)
CLOCK_CHANGED = Limit(0.03, 0.10)
MAX_HALF_WIDTH = 0.10
_EMULATED = Reason(
    "EMULATED",
    "REJECT",
    "A program plays the CPU of this device, many times slower and not evenly so: it shows that the"
    " model runs, and the figures are no machine's.",
)


@dataclass(frozen=True)
class Baseline:
    """How fast the reference model and the canary loop ran when the device was last set up."""

    reference_seconds: float
    reference_cpu_seconds: float
    canary_seconds: float | None
    since: datetime


def judge(
    measurement: Measurement, baseline: Baseline | None, *, emulated: bool = False
) -> Verdict:
    """Look at everything but `measurement.verdict` and say what speaks against trusting it.
    Without a baseline the device is not compared with its past. Raises NoSamplesError.
    """
    latency = measurement.latency
    found = [
        _EMULATED if emulated else None,
        *_preflight(measurement.preflight),
        *(check(measurement) for check in _CHECKS),
    ]
    if baseline is not None:
        found += [_device_changed(latency, baseline), _clock_changed(latency, baseline)]
    reasons = _one_of_each([reason for reason in found if reason is not None])
    if any(reason.level == "REJECT" for reason in reasons):
        return Verdict("REJECT", reasons)
    return Verdict("WARN" if reasons else "OK", reasons)


def _one_of_each(reasons: list[Reason]) -> tuple[Reason, ...]:
    """Rejections first; of one code the first reason, which came before the measurement."""
    ranked = sorted(reasons, key=lambda reason: reason.level != "REJECT")
    first: dict[str, Reason] = {}
    for reason in ranked:
        first.setdefault(reason.code, reason)
    return tuple(first.values())


def _preflight(preflight: Preflight | None) -> list[Reason | None]:
    if preflight is None:
        return []
    return [
        *(_problem(text) for text in preflight.problems),
        _throttled(preflight.throttled, "already at the start"),
    ]


def _problem(text: str) -> Reason:
    """A problem that the device found before it measured, as "code: sentence"."""
    code, _, sentence = text.partition(":")
    name = code.strip().upper().replace(" ", "_").replace("-", "_")
    rejected = name in ("SWAPPING", "THROTTLED")
    return Reason(name, "REJECT" if rejected else "WARN", sentence.strip() or text)


def _throttled(limits: tuple[str, ...], when: str) -> Reason | None:
    if not limits:
        return None
    remedy = "let it cool down or cool it better"
    if any("volt" in limit for limit in limits):
        remedy = "use a stronger power supply and a shorter cable"
    names = ", ".join(limits)
    sentence = f"The CPU was slowed down {when} ({names}): {remedy}, then measure again."
    return Reason("THROTTLED", "REJECT", sentence)


def _thermal(measurement: Measurement) -> Reason | None:
    thermal = measurement.thermal
    if thermal.throttled:
        return _throttled(thermal.throttled, "while it was measured")
    if thermal.throttle_events:
        times = f"{thermal.throttle_events} times while it was measured"
        return _throttled(("throttle counter",), times)
    hottest = thermal.max_celsius
    if thermal.throttle_events is None and hottest is not None and hottest >= HOT_CELSIUS:
        sentence = (
            f"The CPU reached {hottest:.0f} °C and nothing here counts throttling; at "
            f"{HOT_CELSIUS:.0f} °C and above boards slow down: cool it better."
        )
        return Reason("HOT", "WARN", sentence)
    return None


def _steady(measurement: Measurement) -> Reason | None:
    restless = sum(not process.steady for process in measurement.processes)
    if not restless:
        return None
    sentence = (
        f"The warm-up of {restless} of {len(measurement.processes)} processes ended before the "
        "latency was steady: use a preset with a longer warm-up, or quieten the device."
    )
    return Reason("NO_STEADY_STATE", "WARN", sentence)


def _contended(measurement: Measurement) -> Reason | None:
    latency = measurement.latency
    counts = f"{latency.clean} of {latency.n} samples were clean"
    remedy = "stop what runs beside it"
    if latency.contended and latency.kind == "derived":
        sentence = (
            f"Only {counts} and {MIN_CLEAN} are needed, so the figure is derived from the CPU time "
            "of one thread, by experience 3 to 5 % above the latency of a quiet device and more "
            f"beside programs that use much memory bandwidth: {remedy} for a measured one."
        )
        return Reason("CONTENDED", "WARN", sentence)
    if latency.contended:
        sentence = (
            f"Only {counts} and {MIN_CLEAN} are needed: {remedy}, or measure on one thread, whose "
            "CPU time gives a derived figure."
        )
        return Reason("CONTENDED", "REJECT", sentence)
    disturbed = max(1 - latency.clean / latency.n, latency.unsettled / latency.n)
    if disturbed > MAX_DISTURBED_SHARE:
        sentence = (
            f"Other work disturbed {disturbed:.0%} of the samples (limit "
            f"{MAX_DISTURBED_SHARE:.0%}: {latency.delayed} waited for a CPU, {latency.unsettled} "
            f"were taken beside a slow reference); the figure is of the clean ones, the raw median "
            f"of all is not to be used: {remedy}."
        )
        return Reason("CONTENDED", "WARN", sentence)
    return None


def _few_samples(measurement: Measurement) -> Reason | None:
    latency = measurement.latency
    used = latency.n if latency.contended else latency.clean
    if used >= MIN_CLEAN:
        return None
    sentence = (
        f"The figure comes from {used} samples, {MIN_CLEAN} are wanted: use a preset with a larger "
        "time budget."
    )
    return Reason("FEW_SAMPLES", "WARN" if used >= MIN_SAMPLES else "REJECT", sentence)


def _imprecise(measurement: Measurement) -> Reason | None:
    width = measurement.latency.sampling_half_width
    aim = measurement.plan.half_width if measurement.plan else MAX_HALF_WIDTH
    level = Limit(aim, max(aim, MAX_HALF_WIDTH)).level(width)
    if level is None:
        return None
    sentence = (
        f"The samples leave ±{width:.1%} of doubt, ±{aim:.1%} was the aim: give it more time or "
        "quieten the device."
    )
    return Reason("IMPRECISE", level, sentence)


def _unstable(measurement: Measurement) -> Reason | None:
    def sentence(spread: float) -> str:
        return (
            f"Fresh processes differ by {spread:.1%} (limit {UNSTABLE.warn:.0%}): measure again "
            "with more processes (preset thorough), on a quieter device."
        )

    return _beyond(UNSTABLE, "UNSTABLE", measurement.latency.between_processes, sentence)


def _drift(measurement: Measurement) -> Reason | None:
    def sentence(drift: float) -> str:
        return (
            f"The latency moved by {drift:+.1%} while it was measured (limit {DRIFT.warn:.0%}): "
            "wait until the device's temperature and load are steady."
        )

    return _beyond(DRIFT, "DRIFT", measurement.latency.drift, sentence)


def _reference_drift(measurement: Measurement) -> Reason | None:
    def sentence(drift: float) -> str:
        return (
            f"The reference model ran {_changed(drift)} at the end than at the start (limit "
            f"{REFERENCE_DRIFT.warn:.0%}): the device itself changed its speed; wait until its "
            "temperature and load are steady."
        )

    return _beyond(
        REFERENCE_DRIFT, "REFERENCE_DRIFT", measurement.latency.reference_drift, sentence
    )


def _beyond(
    limit: Limit, code: str, value: float | None, sentence: Callable[[float], str]
) -> Reason | None:
    """The reason where a relative change, up or down, is known and beyond its limit."""
    level = None if value is None else limit.level(abs(value))
    if value is None or level is None:
        return None
    return Reason(code, level, sentence(value))


_CHECKS: tuple[Callable[[Measurement], Reason | None], ...] = (
    _thermal,
    _contended,
    _few_samples,
    _steady,
    _unstable,
    _drift,
    _reference_drift,
    _imprecise,
)


def _device_changed(latency: Latency, baseline: Baseline) -> Reason | None:
    limit = _reference_limit(latency)
    off = _reference_change(latency, baseline)
    level = limit.level(abs(off or 0.0))
    if off is None or level is None:
        return None
    sentence = (
        f"The reference model runs {_changed(off)} than on {baseline.since:%Y-%m-%d} (limit "
        f"{limit.warn:.0%}), so this is not comparable with older results: find what changed "
        "(governor, cooling, supply, load), or probe the device to set a new baseline."
    )
    return Reason("DEVICE_CHANGED", level, sentence)


def _reference_limit(latency: Latency) -> Limit:
    return DEVICE_CHANGED_CONTENDED if latency.contended else DEVICE_CHANGED


def _reference_change(latency: Latency, baseline: Baseline) -> float | None:
    if latency.contended:
        return _change(latency.reference_cpu_seconds, baseline.reference_cpu_seconds)
    return _change(latency.reference_seconds, baseline.reference_seconds)


def _clock_changed(latency: Latency, baseline: Baseline) -> Reason | None:
    off = _change(latency.canary_seconds, baseline.canary_seconds)
    if off is None or latency.contended:
        return None
    level = CLOCK_CHANGED.level(abs(off))
    reference = _reference_change(latency, baseline)
    if level == "REJECT" and reference is not None:
        # Few loops of a few milliseconds: alone they prove less than the reference model.
        level = "REJECT" if _reference_limit(latency).level(abs(reference)) else "WARN"
    if level is None:
        return None
    sentence = (
        f"A fixed loop runs {_changed(off)} than on {baseline.since:%Y-%m-%d} (limit "
        f"{CLOCK_CHANGED.warn:.0%}), so the CPU's clock is another: look at governor, temperature "
        "and supply."
    )
    return Reason("CLOCK_CHANGED", level, sentence)


def _change(now: float | None, then: float | None) -> float | None:
    return now / then - 1 if now and then else None


def _changed(relative: float) -> str:
    return f"{abs(relative):.1%} {'slower' if relative > 0 else 'faster'}"
