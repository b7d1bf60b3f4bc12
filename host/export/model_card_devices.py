"""The part of a model card that is about devices: measured, predicted, and what was asked."""

from collections.abc import Iterator

from host.export.contents import (
    BundleContents,
    BundleLimit,
    BundleMeasurement,
    BundlePrediction,
    BundleProfile,
)
from host.export.model_card_words import (
    Words,
    measured_value,
    number,
    percent,
    plain,
    scaled,
    table,
)
from host.measurement.samples import NumberKind


def devices_section(contents: BundleContents, words: Words) -> Iterator[str]:
    """A section for each device profile."""
    yield f"## {words('devices')}"
    for profile in contents.profiles:
        yield f"### {plain(profile.name)}"
        yield words(
            "device",
            device=plain(profile.device),
            cpu=plain(profile.cpu) or words("unknown"),
            architecture=plain(profile.architecture),
            runtime=profile.runtime,
            version=plain(profile.runtime_version) or words("unknown"),
            threads=profile.threads,
        )
        yield from _choice(contents, profile, words)
        yield f"**{words('measured')}**"
        yield _measured(contents, profile, words)
        yield f"**{words('predicted')}**"
        yield _predicted(contents, profile, words)


def limits_section(contents: BundleContents, words: Words) -> Iterator[str]:
    """What the study allowed, beside what the chosen form was measured to take."""
    yield f"## {words('limits')}"
    rows = [row for limit in contents.limits for row in _limit_rows(contents, limit, words)]
    if not rows:
        yield words("none")
        return
    heads = ("limit", "profile", "quantity", "most", "form", "then_measured")
    yield table([words(head) for head in heads], rows)


def _choice(contents: BundleContents, profile: BundleProfile, words: Words) -> Iterator[str]:
    for choice in contents.choices:
        if choice.profile == profile.name:
            yield words(
                "choice",
                form=choice.form,
                because=plain(choice.because),
                within=words("yes" if choice.within_limits else "no"),
            )


def _measured(contents: BundleContents, profile: BundleProfile, words: Words) -> str:
    found = [m for m in contents.measurements if m.profile == profile.name]
    if not found:
        return words("none")
    head = [
        words("form"),
        words("p50"),
        f"p50: {words('interval')}",
        words("p90"),
        words("spread"),
        "n",
        words("memory"),
        words("energy"),
        words("power"),
        words("energy_source"),
        words("same"),
        words("verdict"),
        words("runtime"),
        words("measured_at"),
    ]
    return table(head, [_measured_row(measurement, words) for measurement in found])


def _measured_row(found: BundleMeasurement, words: Words) -> list[str]:
    p90 = found.latency_p90_seconds
    reasons = words.listed(map(plain, found.verdict_reasons))
    return [
        found.form,
        words.marked(number(found.latency_seconds * 1e3), found.latency_kind),
        words.between(found.latency_low_seconds * 1e3, found.latency_high_seconds * 1e3),
        words("no_interval") if p90 is None else number(p90 * 1e3),
        number(found.latency_mad_seconds * 1e3),
        str(found.n),
        number(found.peak_rss_bytes / 1e6),
        *_energy(found, words),
        words("uncompared") if found.agreement is None else percent(found.agreement),
        f"{found.verdict}: {reasons}" if reasons else found.verdict,
        plain(f"{found.runtime} {found.runtime_version}"),
        plain(found.measured_at),
    ]


def _energy(found: BundleMeasurement, words: Words) -> tuple[str, str, str]:
    joules = found.energy_per_inference_joules
    if joules is None:
        why = plain(found.energy_absent_because) or words("no_reason")
        return words("absent", why=why), "–", "–"
    text = words.marked(number(joules * 1e3), found.energy_kind)
    low, high = found.energy_low_joules, found.energy_high_joules
    if low is not None and high is not None:
        text = f"{text} [{words.between(low * 1e3, high * 1e3)}]"
    watts = "–" if found.power_watts is None else number(found.power_watts)
    return text, watts, plain(found.energy_source or "") or words("unknown")


def _predicted(contents: BundleContents, profile: BundleProfile, words: Words) -> str:
    found = [p for p in contents.predictions if p.profile == profile.name]
    if not found:
        return words("none")
    heads = (
        "form",
        "quantity",
        "prediction",
        "prediction_interval",
        "then_measured",
        "inside",
        "cost_model",
    )
    rows = [_predicted_row(contents, prediction, words) for prediction in found]
    return table([words(head) for head in heads], rows)


def _predicted_row(
    contents: BundleContents, prediction: BundlePrediction, words: Words
) -> list[str]:
    quantity = prediction.quantity
    low = scaled(quantity, prediction.low)
    high = None if prediction.high is None else scaled(quantity, prediction.high)
    measured = measured_value(contents, prediction.form, prediction.profile, quantity)
    inside = "–"
    if measured is not None:
        upper = float("inf") if prediction.high is None else prediction.high
        inside = words("yes" if prediction.low <= measured[0] <= upper else "no")
    interval = words.between(low, high)
    return [
        prediction.form,
        words.quantity(quantity),
        number(scaled(quantity, prediction.value)),
        words("level", interval=interval, level=percent(prediction.level)),
        "–"
        if measured is None
        else words.marked(number(scaled(quantity, measured[0])), measured[1]),
        inside,
        plain(prediction.cost_model),
    ]


def _limit_rows(contents: BundleContents, limit: BundleLimit, words: Words) -> Iterator[list[str]]:
    """A limit of the file holds for the form of every profile."""
    chosen = {choice.profile: choice.form for choice in contents.choices}
    for profile in contents.profiles:
        if limit.profile not in (None, profile.name):
            continue
        form = chosen.get(profile.name, contents.shipped)
        measured = measured_value(contents, form, profile.name, limit.quantity)
        yield [
            plain(limit.text),
            plain(profile.name),
            words.quantity(limit.quantity),
            f"{scaled(limit.quantity, limit.maximum):g}",
            form,
            words("unmeasured")
            if measured is None
            else _as_measured(limit.quantity, measured, words),
        ]


def _as_measured(quantity: str, measured: tuple[float, NumberKind], words: Words) -> str:
    value, kind = measured
    return words.marked(number(scaled(quantity, value)), kind)
