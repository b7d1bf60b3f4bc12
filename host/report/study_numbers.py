"""Numbers of a study's report as people read them: the unit stands beside or in the header."""

from collections.abc import Mapping

from host.report.units import MB, MJ, MS, milliseconds, significant
from host.study.finalist import FormResult, Score
from host.study.front import LimitLine, OnDevice, Predicted

Words = Mapping[str, str]
ABSENT = "–"
NO_BREAK = "\u00a0"
_KINDS = ("measured", "derived", "estimated")
_UNITS = (("_seconds", MS, "ms"), ("_bytes", MB, "MB"), ("_joules", MJ, "mJ"), ("_watts", 1.0, "W"))


def amount(value: float) -> str:
    """Three significant figures, thousands apart; what is not 0 never looks like it."""
    if value == 0 or abs(value) >= 0.001:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "< 0.001" if value > 0 else "> -0.001"


def interval(low: str, high: str) -> str:
    """Both ends in brackets that no line breaks."""
    return f"[{low},{NO_BREAK}{high}]"


def percent(share: float) -> str:
    """With one digit after the point, without the sign."""
    return f"{100 * share:.1f}"


def percent_score(score: Score) -> str:
    """Percent with the 95 % interval and n."""
    ends = interval(percent(score.low), percent(score.high))
    return f"{percent(score.value)} {ends} n={score.n}"


def missed(found: Score) -> Score:
    """The share that was not found, from the share that was."""
    return Score(value=1 - found.value, low=1 - found.high, high=1 - found.low, n=found.n)


def share_score(score: Score | None) -> str:
    """A share with its 95 % interval and n."""
    if score is None:
        return ABSENT
    return f"{score.value:.3f} {interval(f'{score.low:.3f}', f'{score.high:.3f}')} n={score.n}"


def quality_name(form: FormResult, words: Words) -> str:
    """AUROC with two classes, else accuracy."""
    return words["accuracy" if form.auroc is None else "auroc"]


def quality_score(form: FormResult) -> str:
    """AUROC as a share, accuracy in percent; each with interval and n."""
    if form.auroc is None:
        return percent_score(form.accuracy).replace(" [", f"{NO_BREAK}% [", 1)
    return share_score(form.auroc)


def measured_latency(row: OnDevice, words: Words) -> str:
    """Median in ms, the 95 % interval of it, n; and the kind where it was not simply measured."""
    ends = interval(milliseconds(row.latency_low_seconds), milliseconds(row.latency_high_seconds))
    figure = f"{milliseconds(row.latency_seconds)} {ends} n={row.samples}"
    kind = row.latency_kind
    return figure if kind == "measured" else f"{figure} ({words[f'kind.{kind}']})"


def predicted_interval(prediction: Predicted | None, factor: float, words: Words) -> str:
    """The prediction with its interval, in the unit that the factor makes; absent says why."""
    if prediction is None:
        return words["not_predicted"]
    high = words["no_bound"] if prediction.high is None else significant(prediction.high * factor)
    low = significant(prediction.low * factor)
    return f"{significant(prediction.value * factor)} {interval(low, high)}"


def verdict(row: OnDevice, words: Words) -> str:
    """The word of the verdict; one that was never given is not OK."""
    return words["no_verdict"] if row.verdict is None else row.verdict


def power_source(row: OnDevice, words: Words) -> str:
    """Where the figures of power come from: the kind of number, and the sensor."""
    source, _, kind = (row.power_source or "").rpartition(", ")
    if kind not in _KINDS:
        return row.power_source or ABSENT
    return f"{words[f'kind.{kind}']}: {source}"


def energy(row: OnDevice, words: Words) -> str:
    """Millijoules of one inference; "not measured" where there are none."""
    joules = row.energy_per_inference_joules
    return words["not_measured"] if joules is None else amount(joules * MJ)


def limit_text(limit: LimitLine, words: Words) -> str:
    """What is limited, and to how much; a limit by the line's rate is told as that rate."""
    if limit.text.startswith("rate_hertz") and limit.quantity == "latency_seconds":
        latency = limit_value(limit.quantity, limit.maximum)
        return words["limit.rate"].format(rate=significant(1 / limit.maximum), latency=latency)
    name, value = words.get(f"limit.{limit.quantity}"), limit_value(limit.quantity, limit.maximum)
    return limit.text if name is None or value is None else f"{name} ≤ {value}"


def limit_value(quantity: str, value: float) -> str | None:
    """A value of a quantity with the unit that people use; None where that is not known."""
    for suffix, factor, unit in _UNITS:
        if quantity.endswith(suffix):
            return f"{significant(value * factor)}{NO_BREAK}{unit}"
    return None


def duration(seconds: float, words: Words) -> str:
    """Seconds below two minutes, else minutes, else hours."""
    if seconds < 120:
        return words["seconds"].format(value=significant(seconds))
    if seconds < 7200:
        return words["minutes"].format(value=significant(seconds / 60))
    return words["hours"].format(value=significant(seconds / 3600))
