"""Whether one measurement is really quicker than another, and what forbids to say so."""

from dataclasses import dataclass, replace

from host.measurement.judge import REFERENCE_DRIFT, UNSTABLE
from host.measurement.measurement import Measurement
from host.measurement.resampling import interval_around
from host.measurement.statistics import latency_draws

MIN_SPREAD = 0.01  # a handful of processes may agree better than the next handful will


@dataclass(frozen=True)
class Comparison:
    """The second measurement against the first: `difference_seconds` and `ratio` are its latency
    less and over the first one's, with their 95 % intervals.

    `real` where the interval of the difference leaves out zero and the difference is larger than
    `spread`, by which fresh processes of either differ (relative; 1 % at least, 3 % where there was
    one process only). `obstacles` say what forbids the comparison; then nothing is real.
    `normalised_ratio` is that of the latencies in units of the reference model's, None without
    references; where `references_moved` it must agree.
    """

    difference_seconds: float
    difference_interval_seconds: tuple[float, float]
    ratio: float
    ratio_interval: tuple[float, float]
    spread: float
    real: bool
    obstacles: tuple[str, ...]
    normalised_ratio: float | None
    references_moved: bool
    sentence: str


def compare(a: Measurement, b: Measurement) -> Comparison:
    """Compare the latency of b with that of a; raises NoSamplesError."""
    first, second = a.latency.seconds, b.latency.seconds
    draws_a = latency_draws(a.processes, a.threads, seed=1)
    draws_b = latency_draws(b.processes, b.threads, seed=2)  # another: they vary independently
    difference, ratio = second - first, second / first
    interval = interval_around(difference, draws_b - draws_a)
    spread = max(_spread(a), _spread(b))
    normalised = _normalised_ratio(a, b)
    moved = normalised is not None and abs(ratio / normalised - 1) > REFERENCE_DRIFT.warn
    obstacles = _obstacles(a, b)
    larger = _is_larger(ratio, spread) and not interval[0] <= 0 <= interval[1]
    confirmed = not moved or normalised is None or _confirms(normalised, ratio, spread)
    found = Comparison(
        difference_seconds=difference,
        difference_interval_seconds=interval,
        ratio=ratio,
        ratio_interval=interval_around(ratio, draws_b / draws_a),
        spread=spread,
        real=larger and confirmed and not obstacles,
        obstacles=obstacles,
        normalised_ratio=normalised,
        references_moved=moved,
        sentence="",
    )
    return replace(found, sentence=_sentence(found))


def _spread(measurement: Measurement) -> float:
    between = measurement.latency.between_processes
    return UNSTABLE.warn if between is None else max(between, MIN_SPREAD)


def _is_larger(ratio: float, spread: float) -> bool:
    return abs(ratio - 1) > spread


def _confirms(normalised: float, ratio: float, spread: float) -> bool:
    return (normalised > 1) == (ratio > 1) and _is_larger(normalised, spread)


def _normalised_ratio(a: Measurement, b: Measurement) -> float | None:
    if a.runtime_library != b.runtime_library:
        return None  # each runtime has a reference model of its own
    first, second = a.latency.relative_to_reference, b.latency.relative_to_reference
    return second / first if first and second else None


def _obstacles(a: Measurement, b: Measurement) -> tuple[str, ...]:
    pairs = (
        ("devices", a.device_id, b.device_id),
        ("protocols", a.protocol, b.protocol),
        ("runtimes", _runtime(a), _runtime(b)),
        ("numbers of threads", str(a.threads), str(b.threads)),
        ("kinds of figure", a.latency.kind, b.latency.kind),
    )
    found = [f"different {name} ({one} and {other})" for name, one, other in pairs if one != other]
    for name, measurement in (("first", a), ("second", b)):
        if measurement.verdict.level == "REJECT":
            codes = ", ".join(r.code for r in measurement.verdict.reasons if r.level == "REJECT")
            found.append(f"the {name} is rejected ({codes})")
    return tuple(found)


def _runtime(measurement: Measurement) -> str:
    return f"{measurement.runtime_library} {measurement.runtime_version}"


def _sentence(found: Comparison) -> str:
    low, high = found.ratio_interval
    change = f"{abs(found.ratio - 1):.1%} {'slower' if found.ratio > 1 else 'faster'}"
    figure = f"{change} (95 % interval of the ratio {low:.3f} to {high:.3f})"
    if found.obstacles:
        return (
            f"Not comparable: {'; '.join(found.obstacles)}. As they stand, the second is {change}."
        )
    if found.real and found.references_moved and found.normalised_ratio is not None:
        return (
            f"The second is really {figure}; in units of the reference model, which itself changed "
            f"its speed, the ratio is {found.normalised_ratio:.3f}."
        )
    if found.real:
        return f"The second is really {figure}."
    return f"No real difference: the second is {figure}, {_why_not_real(found)}."


def _why_not_real(found: Comparison) -> str:
    low, high = found.difference_interval_seconds
    if low <= 0 <= high:
        return "and the interval holds no difference at all"
    if not _is_larger(found.ratio, found.spread):
        return f"and fresh processes of one model differ by {found.spread:.1%}"
    return (
        "but the reference model changed its speed as well: in units of it the ratio is "
        f"{found.normalised_ratio:.3f}"
    )
