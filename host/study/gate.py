"""Which form of a finalist a device profile gets: the fastest that answers as it should."""

from collections.abc import Mapping, Sequence

from host.export.forms import Form, Precision, Runtime, form_of, precision_of, runtime_of
from host.study.answers import SAME_ANSWERS
from host.study.finalist import Choice, FormResult
from host.study.front import OnDevice, value_on
from host.study.limits import Limit


def choose_form(
    profile: str,
    runtime: Runtime,
    forms: Sequence[FormResult],
    limits: Sequence[Limit],
    *,
    max_drop: float,
) -> Choice:
    """The form of the profile's runtime to ship there."""
    own = {precision_of(form.form): form for form in forms if runtime_of(form.form) == runtime}
    figures = {
        precision: found
        for precision, form in own.items()
        for found in form.devices
        if found.device == profile
    }
    if "fp32" not in figures:
        because = "the device was offline for too long to measure it there"
        return Choice(
            device=profile, form=form_of(runtime, "fp32"), because=because, within_limits=False
        )
    within = {
        precision: all(_holds(limit, own[precision], found) for limit in limits)
        for precision, found in figures.items()
    }
    qualities = {precision: form.validation_quality for precision, form in own.items()}
    precision, because = gate(qualities, figures, within, max_drop)
    return Choice(
        device=profile,
        form=form_of(runtime, precision),
        because=because,
        within_limits=within[precision],
    )


def gate(
    qualities: Mapping[Precision, float],
    figures: Mapping[Precision, OnDevice],
    within: Mapping[Precision, bool],
    max_drop: float,
) -> tuple[Precision, str]:
    """The precision to ship to a profile, and the reason in words.

    int8 wins where its quality on the validation part is at most `max_drop` lower, the device
    gives the host's answers, and it alone is within the limits or it is faster there, by 95 %
    intervals that do not overlap.
    """
    if "int8" not in figures:
        return "fp32", "the only form" if "int8" not in qualities else "int8 does not run here"
    fp32, int8 = figures["fp32"], figures["int8"]
    drop = qualities["fp32"] - qualities["int8"]
    pace = _pace(fp32.latency_seconds / int8.latency_seconds)
    if drop > max_drop:
        return "fp32", f"{pace} and loses {drop:.3f} in quality, more than {max_drop:g}"
    if fp32.latency_kind != int8.latency_kind or "REJECT" in (fp32.verdict, int8.verdict):
        return "fp32", "the two cannot be compared here: a figure is derived or its verdict REJECT"
    if int8.agreement is None:
        return "fp32", f"{pace}, but its answers could not be checked on this device"
    if int8.agreement < SAME_ANSWERS:
        share = f"{int8.agreement:.0%}"
        return "fp32", f"{pace}, and answers as on the host on {share} of the samples only"
    if within["int8"] != within["fp32"]:
        only: Precision = "int8" if within["int8"] else "fp32"
        return only, f"{pace}, and only {only} is within the limits here"
    if int8.latency_high_seconds >= fp32.latency_low_seconds:
        return "fp32", f"{pace}: no gain beyond the intervals of the two"
    return "int8", f"{pace} and loses {max(drop, 0.0):.3f} in quality"


def shipped_form(choices: Sequence[Choice]) -> Form:
    """What runs unless another form is named: int8 where every profile of a class takes it."""
    forms = {choice.form for choice in choices}
    return min(forms, key=lambda form: (precision_of(form) != "fp32", form))


def _pace(ratio: float) -> str:
    if ratio >= 1:
        return f"int8 is {ratio:.2f} times as fast as fp32 here"
    return f"int8 takes {1 / ratio:.2f} times as long as fp32 here"


def _holds(limit: Limit, form: FormResult, found: OnDevice) -> bool:
    if limit.quantity == "model_bytes":
        return limit.excess(form.size_bytes) <= 0
    if limit.device != found.device:
        return True
    value = value_on(found, limit.quantity)
    return value is not None and limit.excess(value) <= 0
