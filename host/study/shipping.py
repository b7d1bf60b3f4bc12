"""Bundles of finalists, made from what the store holds of a study."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from host.config import stored_study
from host.errors import UsageError
from host.export.bundle import write_bundle
from host.export.contents import (
    BundleAccuracy,
    BundleChoice,
    BundleConfusion,
    BundleContents,
    BundleInspection,
    BundleLimit,
    BundleMeasurement,
    BundleModel,
    BundlePrediction,
    BundleProfile,
    BundleShare,
)
from host.export.forms import Form, form_of, runtime_of
from host.export.metadata import with_metadata
from host.export.signing import SigningKey
from host.measurement import Measurement
from host.preprocessing import AnyPreprocessing, Preprocessing, SignalPreprocessing
from host.store.store import Store
from host.store.studies import Study
from host.study.finalist import (
    BundleFile,
    FinalistResult,
    FormResult,
    Inspection,
    Score,
    finalist_memo,
)
from host.study.front import FRONT, FrontReport, OnDevice, Predicted, Profile
from host.study.gate import shipped_form
from host.study.stored import DATA, DataFacts

_INPUT: TypeAdapter[AnyPreprocessing] = TypeAdapter(Preprocessing | SignalPreprocessing)


class NothingToShipError(UsageError):
    """A study has no finalist of that key, or none for that class of devices."""


def keep_input(store: Store, study_id: int, key: str, preprocessing: AnyPreprocessing) -> None:
    """Keep what is done to what a finalist reads."""
    store.studies.put_result(study_id, _input_memo(key), _INPUT.dump_json(preprocessing).decode())


def shippable(store: Store, study_name: str) -> list[tuple[str, str]]:
    """The finalists of a study, by key, with each class of devices that they are for.

    Raises UnknownStudyError.
    """
    study = store.studies.by_name(study_name)
    front = _front(store, study)
    if front is None:
        return []
    found = []
    for row in front.rows:
        finalist = _finalist(store, study, row.key)
        if finalist is not None:
            measured = {on.device for form in finalist.forms for on in form.devices}
            own = [profile for profile in front.profiles if profile.name in measured]
            classes = dict.fromkeys(profile.device_class for profile in own)
            found += [(row.key, device_class) for device_class in classes]
    return found


def bundle_contents(store: Store, study_name: str, key: str, device_class: str) -> BundleContents:
    """All that a bundle of a finalist says, for the profiles of a class.

    Raises UnknownStudyError, and NothingToShipError where there is no such finalist or class.
    """
    study = store.studies.by_name(study_name)
    front, finalist = _front(store, study), _finalist(store, study, key)
    facts, read = store.studies.result(study.id, DATA), _input(store, study, key)
    if front is None or finalist is None or facts is None or read is None:
        raise NothingToShipError(
            f"the study {study_name} has no finalist {key[:8]} that is trained"
        )
    measured = {found.device for form in finalist.forms for found in form.devices}
    profiles = [p for p in front.profiles if p.device_class == device_class and p.name in measured]
    if not profiles:
        known = ", ".join(sorted({p.device_class for p in front.profiles}))
        raise NothingToShipError(
            f"the study {study_name} has no device of the class {device_class}: it has {known}"
        )
    return _contents(
        store, study, front, finalist, DataFacts.model_validate_json(facts), read, profiles
    )


def write_bundles(
    store: Store, study_name: str, key: str, folder: Path, signer: SigningKey
) -> list[BundleFile]:
    """Write a bundle of a finalist for every class of devices, and note them."""
    study = store.studies.by_name(study_name)
    written = []
    for found, device_class in shippable(store, study_name):
        if found != key:
            continue
        contents = bundle_contents(store, study_name, key, device_class)
        bundle = write_bundle(folder, contents, signer)
        store.bundles.add(study.id, bundle.path, bundle.manifest_sha256)
        written.append(
            BundleFile(
                device_class=device_class,
                devices=[profile.name for profile in contents.profiles],
                path=str(bundle.path),
                manifest_sha256=bundle.manifest_sha256,
            )
        )
    return written


def _contents(
    store: Store,
    study: Study,
    front: FrontReport,
    finalist: FinalistResult,
    facts: DataFacts,
    read: AnyPreprocessing,
    profiles: Sequence[Profile],
) -> BundleContents:
    config = stored_study(study.config_json)
    names = {profile.name for profile in profiles}
    forms = [f for f in finalist.forms if runtime_of(f.form) == profiles[0].runtime]
    choices = [choice for choice in finalist.choices if choice.device in names]
    row = next(row for row in front.rows if row.key == finalist.key)
    measurements = tuple(
        BundleMeasurement.of(
            _measurement(store, profile, form, found),
            form=form.form,
            profile=profile.name,
            agreement=found.agreement,
        )
        for form in forms
        for profile in profiles
        for found in form.devices
        if found.device == profile.name
    )
    return BundleContents(
        name=f"{study.name}-{finalist.key[:8]}",
        device_class=profiles[0].device_class,
        genba_version=version("genba"),
        created_at=max(measurement.measured_at for measurement in measurements),
        study=study.name,
        space=front.space,
        candidate=finalist.text,
        seed=study.seed,
        classes=tuple(finalist.classes),
        preprocessing=read,
        data_fingerprint=facts.fingerprint,
        data_counts={part: sum(counts) for part, counts in facts.counts.items()},
        data_licence=config.data.licence,
        models=tuple(_model(store, form, measurements) for form in forms),
        shipped=shipped_form(choices),
        profiles=tuple(_profile(profile) for profile in profiles),
        choices=tuple(BundleChoice(c.device, c.form, c.because, c.within_limits) for c in choices),
        limits=tuple(
            BundleLimit(limit.quantity, limit.device, limit.maximum, limit.text)
            for limit in front.limits
            if limit.device is None or limit.device in names
        ),
        scores=row.scores,
        predictions=tuple(
            prediction
            for found in row.devices
            if found.device in names
            for prediction in _predictions(study, profiles[0], found)
        ),
        measurements=measurements,
        accuracies=tuple(a for form in forms for a in _accuracies(finalist, form)),
        confusions=tuple(
            BundleConfusion(form.form, "test", tuple(tuple(row) for row in form.confusion))
            for form in forms
        ),
        inspections=tuple(
            _inspection(form.form, form.inspection) for form in forms if form.inspection is not None
        ),
    )


def _front(store: Store, study: Study) -> FrontReport | None:
    text = store.studies.result(study.id, FRONT)
    return None if text is None else FrontReport.model_validate_json(text)


def _finalist(store: Store, study: Study, key: str) -> FinalistResult | None:
    text = store.studies.result(study.id, finalist_memo(key))
    return None if text is None else FinalistResult.model_validate_json(text)


def _input_memo(key: str) -> str:
    return f"input:{key}"


def _input(store: Store, study: Study, key: str) -> AnyPreprocessing | None:
    text = store.studies.result(study.id, _input_memo(key))
    return None if text is None else _INPUT.validate_json(text)


def _measurement(store: Store, profile: Profile, form: FormResult, found: OnDevice) -> Measurement:
    """The stored measurement that a figure of a finalist is from."""
    device = store.devices.by_name(profile.device)
    known = [one.measurement for one in store.measurements.list(device.id, form.sha256)]
    return next(
        one
        for one in known
        if one.threads == profile.threads
        and one.runtime == profile.runtime
        and one.latency_seconds == found.latency_seconds
    )


def _model(
    store: Store, form: FormResult, measurements: Iterable[BundleMeasurement]
) -> BundleModel:
    """The file that was measured, with its figures written into it."""
    said = "\n".join(
        f"{m.profile}: latency {m.latency_seconds:.6g} s "
        f"[{m.latency_low_seconds:.6g}, {m.latency_high_seconds:.6g}] n={m.n}, "
        f"peak RSS {m.peak_rss_bytes} bytes, {m.runtime} {m.runtime_version}, {m.threads} threads"
        for m in measurements
        if m.form == form.form
    )
    model = with_metadata(store.blobs.get(form.sha256), {"measured": said})
    return BundleModel(form.form, model, tuple(form.float_layers))


def _profile(profile: Profile) -> BundleProfile:
    return BundleProfile(
        name=profile.name,
        device=profile.device,
        cpu=profile.cpu,
        architecture=profile.architecture,
        runtime=profile.runtime,
        runtime_version=profile.runtime_version,
        threads=profile.threads,
    )


def _predictions(study: Study, profile: Profile, found: OnDevice) -> Iterable[BundlePrediction]:
    """Of the untrained float32 network, made before it was measured."""
    predicted: dict[str, Predicted | None] = {
        "latency_seconds": found.predicted_latency_seconds,
        "peak_rss_bytes": found.predicted_peak_rss_bytes,
    }
    for quantity, prediction in predicted.items():
        if prediction is not None:
            yield BundlePrediction(
                form=form_of(profile.runtime, "fp32"),
                profile=found.device,
                quantity=quantity,
                value=prediction.value,
                low=prediction.low,
                high=prediction.high,
                level=prediction.level,
                cost_model=f"of the study {study.name}",
            )


def _accuracies(finalist: FinalistResult, form: FormResult) -> Iterable[BundleAccuracy]:
    n = form.accuracy.n
    yield _accuracy(form.form, "accuracy", form.accuracy, finalist.majority_accuracy)
    yield BundleAccuracy(
        form.form, "test", "balanced_accuracy", form.balanced_accuracy, None, None, n
    )
    if form.auroc is not None:
        yield _accuracy(form.form, "auroc", form.auroc, 0.5)


def _accuracy(form: Form, metric: str, score: Score, baseline: float) -> BundleAccuracy:
    return BundleAccuracy(
        form=form,
        subset="test",
        metric=metric,
        value=score.value,
        low=score.low,
        high=score.high,
        n=score.n,
        baseline=baseline,
    )


def _inspection(form: Form, found: Inspection) -> BundleInspection:
    (good, alarm), (miss, right) = found.confusion
    return BundleInspection(
        form=form,
        defect_class=found.defect_class,
        threshold=found.threshold,
        confusion=((good, alarm), (miss, right)),
        cost_of_miss=found.cost_of_miss,
        cost_of_false_alarm=found.cost_of_false_alarm,
        cost_per_sample=found.cost_per_sample,
        recall=_share(found.recall),
        false_alarm_rate=_share(found.false_alarm_rate),
        false_alarm_rate_limit=found.false_alarm_rate_limit,
    )


def _share(score: Score) -> BundleShare:
    return BundleShare(score.value, score.low, score.high, score.n)
