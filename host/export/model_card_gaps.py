"""What a bundle has no figure for, in sentences."""

from collections.abc import Iterator

from host.export.contents import BundleContents, BundleMeasurement
from host.export.forms import Form
from host.export.model_card_texts import Language
from host.export.model_card_words import Words, plain


def not_measured(contents: BundleContents, language: Language) -> list[str]:
    """One sentence for each figure that a reader may look for and that nobody measured."""
    words = Words.of(contents, language)
    return [*_of_devices(contents, words), *_of_accuracies(contents, words), words("gap.others")]


def _of_devices(contents: BundleContents, words: Words) -> Iterator[str]:
    found = {(m.form, m.profile): m for m in contents.measurements}
    for profile in contents.profiles:
        for form in contents.forms:
            measurement = found.get((form, profile.name))
            if measurement is None:
                yield words("gap.form", form=form, profile=plain(profile.name))
            else:
                yield from _of_measurement(measurement, words)


def _of_measurement(found: BundleMeasurement, words: Words) -> Iterator[str]:
    place = {"form": found.form, "profile": plain(found.profile)}
    if found.verdict == "REJECT":
        why = words.listed(map(plain, found.verdict_reasons)) or words("no_reason")
        yield words("gap.rejected", **place, why=why)
    if found.energy_per_inference_joules is None:
        why = plain(found.energy_absent_because) or words("no_reason")
        yield words("gap.energy", **place, why=why)
    if found.latency_p90_seconds is None:
        yield words("gap.p90", **place, n=found.n)
    if found.agreement is None:
        yield words("gap.agreement", **place)


def _of_accuracies(contents: BundleContents, words: Words) -> Iterator[str]:
    known: set[Form] = {accuracy.form for accuracy in contents.accuracies}
    for form in contents.forms:
        if form not in known:
            yield words("gap.accuracy", form=form)
    for accuracy in contents.accuracies:
        if accuracy.low is None or accuracy.high is None:
            yield words(
                "gap.interval",
                form=accuracy.form,
                metric=words.metric(accuracy.metric),
                subset=words.subset(accuracy.subset),
            )
