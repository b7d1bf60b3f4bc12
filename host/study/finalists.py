"""The chosen few: trained, quantised, checked, measured once more, and written as bundles."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np

from host.config import StudyConfig
from host.data.images import ImageLoader
from host.data.split import Samples, Split
from host.errors import GenbaError
from host.export.bundle import WrittenBundle, write_bundle
from host.export.check import compare_logits, logits_of_onnx
from host.export.contents import (
    BundleAccuracy,
    BundleContents,
    BundleMeasurement,
    BundleModel,
    BundlePrediction,
)
from host.export.errors import ExportError
from host.export.metadata import onnx_metadata, with_metadata
from host.export.quantize import quantize_int8
from host.measurement import Measured, Measurement
from host.network.onnx_model import onnx_bytes
from host.network.torch_module import NetworkModule, build_module
from host.network.weights import folded_weights
from host.store.store import Store
from host.store.studies import AccuracyRow, Study
from host.study.answers import MOST_IMAGES, SAME_ANSWERS, agreement_by_device
from host.study.finalist import Choice, FinalistResult, Form, FormResult, Score
from host.study.front import OnDevice
from host.study.ledger import Manner
from host.study.limits import Limit
from host.study.proposal import Proposal
from host.study.search import Search
from host.training.metrics import Estimate, Evaluation, evaluate
from host.training.train import EpochRecord, TrainConfig, TrainResult, logits_of_module, train

Member = TypeVar("Member")

CALIBRATION_IMAGES = 128
DOUBTFUL_RATIO = 1.25
LARGEST_RELATIVE_DIFFERENCE = 1e-3
"""Between the logits of torch and of the exported float32 file, relative to the largest logit."""


class ExportDiffersError(GenbaError):
    """An exported file does not answer as the trained network does."""


class NotMeasuredError(GenbaError):
    """A device failed on the trained model that it had measured untrained."""


def choose(front: Sequence[Member], count: int) -> list[Member]:
    """Spread over a front that is ordered by score: its first, its last, and between them."""
    places = np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int)
    return [front[index] for index in dict.fromkeys(places.tolist())]


def finalist_memo(key: str) -> str:
    """The name under which the store keeps the result of a finalist."""
    return f"finalist:{key}"


@dataclass(frozen=True)
class Trained:
    """A trained network with its files and their answers."""

    proposal: Proposal
    training: TrainResult
    split: Split
    models: Mapping[Form, bytes]
    evaluations: Mapping[Form, Evaluation]
    """On the test images."""
    validation_quality: Mapping[Form, float]


class Finishing:
    """Takes finalists from genotype to bundle; `folder` keeps checkpoints and bundles."""

    def __init__(
        self, *, config: StudyConfig, study: Study, store: Store, folder: Path, search: Search
    ) -> None:
        self._config = config
        self._study = study
        self._store = store
        self._folder = folder
        self._search = search
        self._reporter = search.reporter

    def finish(self, proposal: Proposal, loader: ImageLoader) -> FinalistResult:
        """All steps of one finalist; one that is finished already is read from the store.

        Raises ExportDiffersError and NotMeasuredError.
        """
        memo = finalist_memo(proposal.key)
        stored = self._store.studies.result(self._study.id, memo)
        if stored is not None:
            result = FinalistResult.model_validate_json(stored)
            if Path(result.bundle).is_file():
                return result
        trained = self._train(proposal, loader)
        measured = self._measure(trained)
        answers = self._answers(trained)
        forms = [
            self._form(trained, form, measured[form], answers.get(form, {}))
            for form in trained.models
        ]
        choices = [self._choose_form(forms, d.name) for d in self._search.ledger.devices]
        bundle = self._write(trained, measured, choices)
        result = _result(trained, forms, choices, bundle, self._search.combined_scores())
        for form in trained.models:
            self._note_accuracy(proposal.key, form, trained.evaluations[form])
        self._store.bundles.add(self._study.id, bundle.path, bundle.manifest_sha256)
        self._store.studies.put_result(self._study.id, memo, result.model_dump_json())
        return result

    def _train(self, proposal: Proposal, loader: ImageLoader) -> Trained:
        channels, height, width = proposal.network.input_shape
        split = loader.split(height, width, 1 if channels == 1 else 3)
        settings = self._config.finalists
        config = TrainConfig(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            patience=settings.patience,
            seed=self._config.seed,
        )

        def on_epoch(record: EpochRecord) -> None:
            self._reporter.progress(f"epochs of {proposal.key[:8]}", record.epoch, config.epochs)

        module = build_module(proposal.network, seed=self._config.seed)
        checkpoint = self._folder / "checkpoints" / f"{proposal.key}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        training = train(module, split, config, checkpoint=checkpoint, on_epoch=on_epoch)
        models: dict[Form, bytes] = {}
        evaluations: dict[Form, Evaluation] = {}
        validation: dict[Form, float] = {}
        for form, model in self._export(proposal, module, split).items():
            try:
                tested = evaluate_onnx(model, split, split.test)
                validated = evaluate_onnx(model, split, split.validation)
            except ExportError as error:
                if form == "fp32":
                    raise
                self._reporter.say(f"finalist {proposal.key[:8]} has no {form} form: {error}")
                continue
            models[form], evaluations[form] = model, tested
            area = validated.auroc
            validation[form] = validated.accuracy.value if area is None else area.value
        return Trained(proposal, training, split, models, evaluations, validation)

    def _export(self, proposal: Proposal, module: NetworkModule, split: Split) -> dict[Form, bytes]:
        calibration = split.train.inputs[:: max(1, len(split.train) // CALIBRATION_IMAGES)]
        metadata = onnx_metadata(
            classes=split.classes,
            preprocessing=split.preprocessing,
            study=self._study.name,
            candidate=proposal.text,
            data_fingerprint=split.fingerprint,
            calibration_sha256=hashlib.sha256(calibration.tobytes()).hexdigest(),
        )
        fp32 = onnx_bytes(proposal.network, folded_weights(module), metadata)
        check_export(fp32, module, split)
        models: dict[Form, bytes] = {"fp32": fp32}
        try:
            models["int8"] = quantize_int8(fp32, split.preprocessing.normalise(calibration))
        except ExportError as error:
            self._reporter.say(f"finalist {proposal.key[:8]} has no int8 form: {error}")
        return models

    def _measure(self, trained: Trained) -> dict[Form, dict[str, Measurement]]:
        key = trained.proposal.key
        outcomes = self._search.ledger.measure_models(
            {form: model for form, model in trained.models.items()},  # noqa: C416 - str keys
            purpose=f"finalist of {self._study.name}",
            manner=Manner.of_finalists(self._config.measuring),
        )
        measured: dict[Form, dict[str, Measurement]] = {form: {} for form in trained.models}
        for (form, device), outcome in self._outcomes_in_order(trained, outcomes):
            if isinstance(outcome, Measurement):
                measured[form][device] = outcome
                continue
            failed = (
                f"{device} could not measure the {form} form of finalist {key[:8]}: "
                f"{outcome.message}"
            )
            if form == "fp32":
                raise NotMeasuredError(failed)
            self._reporter.say(f"{failed}; fp32 is what runs there")
        self._compare_with_untrained(key, measured["fp32"])
        return measured

    def _answers(self, trained: Trained) -> dict[Form, Mapping[str, float | None]]:
        """How far int8 answers on each device as it does here; float32 needs no such look."""
        if "int8" not in trained.models:
            return {}
        split = trained.split
        images = split.preprocessing.normalise(split.validation.inputs[:MOST_IMAGES])
        found = agreement_by_device(
            self._store,
            self._study.id,
            self._search.ledger.devices,
            trained.models["int8"],
            images,
            on_wait=self._search.ledger.say_waiting,
        )
        return {"int8": found}

    def _outcomes_in_order(
        self, trained: Trained, outcomes: Mapping[tuple[str, str], Measured]
    ) -> list[tuple[tuple[Form, str], Measured]]:
        return [
            ((form, device.name), outcomes[form, device.name])
            for form in trained.models
            for device in self._search.ledger.devices
        ]

    def _compare_with_untrained(self, key: str, trained: Mapping[str, Measurement]) -> None:
        """Training does not change what is executed: a different latency means a disturbance."""
        for device, measurement in trained.items():
            untrained = self._search.ledger.measurement(key, device)
            if untrained is None:
                continue
            ratio = measurement.latency_seconds / untrained.latency_seconds
            if not 1 / DOUBTFUL_RATIO <= ratio <= DOUBTFUL_RATIO:
                self._reporter.say(
                    f"finalist {key[:8]} took {ratio:.2f} times as long on {device} as when it was "
                    "measured untrained: other work disturbed one of the two measurements, so "
                    "measure its bundle once more by `genba measure --again`"
                )

    def _form(
        self,
        trained: Trained,
        form: Form,
        measured: Mapping[str, Measurement],
        agreement: Mapping[str, float | None],
    ) -> FormResult:
        evaluation = trained.evaluations[form]
        model = trained.models[form]
        return FormResult(
            form=form,
            sha256=hashlib.sha256(model).hexdigest(),
            size_bytes=len(model),
            accuracy=_score(evaluation.accuracy),
            balanced_accuracy=evaluation.balanced_accuracy,
            auroc=None if evaluation.auroc is None else _score(evaluation.auroc),
            validation_quality=trained.validation_quality[form],
            devices=[
                OnDevice.of(name, m, agreement=agreement.get(name)) for name, m in measured.items()
            ],
        )

    def _choose_form(self, forms: Sequence[FormResult], device: str) -> Choice:
        """int8 where it is faster on this device and loses no more than allowed."""
        figures = {f.form: d for f in forms for d in f.devices if d.device == device}
        within = {
            f.form: all(_holds(limit, f, figures[f.form]) for limit in self._search.limits)
            for f in forms
            if f.form in figures
        }
        form, because = gate(forms, figures, within, self._config.finalists.max_int8_drop)
        if figures[form].verdict == "REJECT":
            self._reporter.say(
                f"the figures of the {form} form on {device} are not to be trusted"
                f" ({'; '.join(figures[form].verdict_reasons)}): measure its bundle once more by"
                " `genba measure --again`"
            )
        if not within[form]:
            self._reporter.say(f"on {device} the {form} form breaks a limit after training")
        return Choice(device=device, form=form, because=because, within_limits=within[form])

    def _write(
        self,
        trained: Trained,
        measured: Mapping[Form, Mapping[str, Measurement]],
        choices: Sequence[Choice],
    ) -> WrittenBundle:
        proposal = trained.proposal
        measurements = tuple(
            BundleMeasurement.of(measurement, precision=form, device=device)
            for form, by_device in measured.items()
            for device, measurement in by_device.items()
        )
        contents = BundleContents(
            name=f"{self._study.name}-{proposal.key[:8]}",
            genba_version=version("genba"),
            created_at=max(m.measured_at for m in measurements),
            study=self._study.name,
            space=self._config.space.name,
            candidate=proposal.text,
            seed=self._config.seed,
            classes=trained.split.classes,
            preprocessing=trained.split.preprocessing,
            data_fingerprint=trained.split.fingerprint,
            data_counts={
                "train": len(trained.split.train),
                "validation": len(trained.split.validation),
                "test": len(trained.split.test),
            },
            data_licence=self._config.data.licence,
            models=tuple(
                BundleModel(form, _with_figures(model, form, measurements))
                for form, model in trained.models.items()
            ),
            shipped="int8" if all(choice.form == "int8" for choice in choices) else "fp32",
            scores=self._search.scorer.scores[proposal.key],
            predictions=self._predictions(proposal),
            measurements=measurements,
            accuracies=tuple(
                accuracy
                for form, evaluation in trained.evaluations.items()
                for accuracy in _accuracies(form, evaluation)
            ),
        )
        return write_bundle(self._folder / "bundles", contents)

    def _predictions(self, proposal: Proposal) -> tuple[BundlePrediction, ...]:
        return tuple(
            BundlePrediction(
                precision="fp32",
                device=device,
                quantity=target,
                value=prediction.value,
                low=prediction.low,
                high=prediction.high,
                level=prediction.level,
                cost_model=f"{type(self._search.surrogates.models[device, target]).__name__}, "
                f"{prediction.n} measurements",
            )
            for (key, device, target), prediction in self._search.foretold.items()
            if key == proposal.key
        )

    def _note_accuracy(self, key: str, form: Form, evaluation: Evaluation) -> None:
        metrics = {
            "accuracy": evaluation.accuracy.value,
            "balanced_accuracy": evaluation.balanced_accuracy,
            "majority_accuracy": evaluation.majority_accuracy,
        }
        if evaluation.auroc is not None:
            metrics["auroc"] = evaluation.auroc.value
        row = AccuracyRow(key, form, metrics, evaluation.accuracy.n)
        self._store.studies.add_accuracy(self._study.id, row)


def gate(
    forms: Sequence[FormResult],
    figures: Mapping[Form, OnDevice],
    within: Mapping[Form, bool],
    max_drop: float,
) -> tuple[Form, str]:
    """The form to ship to a device, and the reason in words.

    int8 wins where its quality on the validation images is at most `max_drop` lower, the device
    gives the host's answers, and it alone is within the limits or it is faster there, by 95 %
    intervals that do not overlap.
    """
    quality = {form.form: form.validation_quality for form in forms}
    if "int8" not in figures:
        return "fp32", "the only form" if "int8" not in quality else "int8 does not run here"
    drop = quality["fp32"] - quality["int8"]
    ratio = figures["fp32"].latency_seconds / figures["int8"].latency_seconds
    pace = (
        f"int8 is {ratio:.2f} times as fast as fp32 here"
        if ratio >= 1
        else f"int8 takes {1 / ratio:.2f} times as long as fp32 here"
    )
    if drop > max_drop:
        return "fp32", f"{pace} and loses {drop:.3f} in quality, more than {max_drop:g}"
    if figures["fp32"].latency_kind != figures["int8"].latency_kind or "REJECT" in (
        figures["fp32"].verdict,
        figures["int8"].verdict,
    ):
        return "fp32", "the two cannot be compared here: a figure is derived or its verdict REJECT"
    agreement = figures["int8"].agreement
    if agreement is None:
        return "fp32", f"{pace}, but its answers could not be checked on this device"
    if agreement < SAME_ANSWERS:
        return "fp32", f"{pace}, and answers as on the host on {agreement:.0%} of the images only"
    if within["int8"] != within["fp32"]:
        only: Form = "int8" if within["int8"] else "fp32"
        return only, f"{pace}, and only {only} is within the limits here"
    if figures["int8"].latency_high_seconds >= figures["fp32"].latency_low_seconds:
        return "fp32", f"{pace}: no gain beyond the intervals of the two"
    return "int8", f"{pace} and loses {max(drop, 0.0):.3f} in quality"


def evaluate_onnx(model: bytes, split: Split, images: Samples) -> Evaluation:
    """The answers of an exported file on one part of the images. Raises ExportError."""
    logits = logits_of_onnx(model, split.preprocessing.normalise(images.inputs))
    return evaluate(images.labels, logits, majority_class=split.majority_class)


def check_export(fp32: bytes, module: NetworkModule, split: Split) -> None:
    """See that the exported file answers as the module does.

    Raises ExportDiffersError where they differ by more than LARGEST_RELATIVE_DIFFERENCE.
    """
    pixels = split.validation.inputs[:32]
    expected = logits_of_module(module, pixels, split.preprocessing)
    exported = logits_of_onnx(fp32, split.preprocessing.normalise(pixels))
    difference = compare_logits(exported, expected).max_abs_difference
    scale = max(1.0, float(np.abs(expected).max()))
    if difference > LARGEST_RELATIVE_DIFFERENCE * scale:
        raise ExportDiffersError(
            f"the exported ONNX file differs from the trained network by {difference:.2g}, where "
            f"{LARGEST_RELATIVE_DIFFERENCE * scale:.2g} is allowed: please report this"
        )


def _holds(limit: Limit, form: FormResult, figures: OnDevice) -> bool:
    if limit.quantity == "model_bytes":
        return limit.excess(form.size_bytes) <= 0
    if limit.device != figures.device:
        return True
    value = figures.latency_seconds
    if limit.quantity == "peak_rss_bytes":
        value = figures.peak_rss_bytes
    return limit.excess(value) <= 0


def _with_figures(model: bytes, form: Form, measurements: Sequence[BundleMeasurement]) -> bytes:
    own = [measurement for measurement in measurements if measurement.precision == form]
    summary = "\n".join(
        f"{m.device}: latency {m.latency_seconds:.6g} s "
        f"[{m.latency_low_seconds:.6g}, {m.latency_high_seconds:.6g}] n={m.n}, "
        f"peak RSS {m.peak_rss_bytes} bytes, {m.runtime} {m.runtime_version}"
        for m in own
    )
    return with_metadata(model, {"measured": summary})


def _accuracies(form: Form, evaluation: Evaluation) -> list[BundleAccuracy]:
    n = evaluation.accuracy.n
    rows = [
        _accuracy(form, "accuracy", evaluation.accuracy, evaluation.majority_accuracy),
        BundleAccuracy(
            form, "test", "balanced_accuracy", evaluation.balanced_accuracy, None, None, n
        ),
    ]
    if evaluation.auroc is not None:
        rows.append(_accuracy(form, "auroc", evaluation.auroc, 0.5))
    return rows


def _accuracy(form: Form, metric: str, estimate: Estimate, baseline: float) -> BundleAccuracy:
    return BundleAccuracy(
        precision=form,
        subset="test",
        metric=metric,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        baseline=baseline,
    )


def _result(
    trained: Trained,
    forms: list[FormResult],
    choices: list[Choice],
    bundle: WrittenBundle,
    scores: Mapping[str, float],
) -> FinalistResult:
    network = trained.proposal.network
    best = trained.training.best
    return FinalistResult(
        key=trained.proposal.key,
        text=trained.proposal.text,
        score=scores[trained.proposal.key],
        parameters=network.parameters,
        macs=network.macs,
        classes=list(trained.split.classes),
        epochs=len(trained.training.history),
        best_epoch=trained.training.best_epoch,
        train_seconds=trained.training.seconds,
        validation_auroc=best.validation_auroc,
        validation_balanced_accuracy=best.validation_balanced_accuracy,
        majority_accuracy=trained.evaluations["fp32"].majority_accuracy,
        forms=forms,
        choices=choices,
        bundle=str(bundle.path),
        manifest_sha256=bundle.manifest_sha256,
    )


def _score(estimate: Estimate) -> Score:
    return Score(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)
