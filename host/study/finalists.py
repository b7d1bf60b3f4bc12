"""The chosen few: quantised, checked, measured once more on every device, and shipped."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from host.config import DataConfig, StudyConfig
from host.data.dataset import Dataset
from host.data.split import Labels, Samples, Split
from host.errors import GenbaError, UsageError
from host.export.forms import (
    ExportedForm,
    Form,
    Precision,
    Runtime,
    logits_of_form,
    precision_of,
    render_forms,
    runtime_of,
)
from host.export.metadata import onnx_metadata
from host.export.signing import SigningKey
from host.measurement import Measured, Measurement
from host.preprocessing import Floats
from host.store.store import Store
from host.store.studies import AccuracyRow, Study
from host.study.answers import MOST_IMAGES, SAME_ANSWERS, agreement_by_device
from host.study.attendance import LostDeviceError
from host.study.finalist import (
    Choice,
    FinalistResult,
    FormResult,
    Inspection,
    Score,
    finalist_memo,
)
from host.study.front import OnDevice
from host.study.gate import choose_form
from host.study.ledger import Manner, Models, StudyDevice
from host.study.loading import loaded_by_all
from host.study.proposal import Proposal
from host.study.search import Search
from host.study.shipping import keep_input, write_bundles
from host.study.trials import Trained
from host.training.inspection import Costs, inspect_defects, score_defects
from host.training.metrics import Evaluation, evaluate

Member = TypeVar("Member")

DOUBTFUL_RATIO = 1.25


class NotMeasuredError(GenbaError):
    """A device failed on the trained model that it had measured untrained."""


def choose(front: Sequence[Member], count: int) -> list[Member]:
    """Spread over a front that is ordered by score: its first, its last, and between them."""
    places = np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int)
    return [front[index] for index in dict.fromkeys(places.tolist())]


def defect_of(config: DataConfig, classes: Sequence[str]) -> int | None:
    """The class that inspection is to find, where there are two and one is named.

    Raises UsageError for a name that is none of the classes, and where there are more than two.
    """
    if config.defect_class is None:
        return None
    if config.defect_class not in classes or len(classes) != 2:
        raise UsageError(
            f"defect_class = {config.defect_class!r} in [data] needs two classes and must be one of"
            f" them: the data have {', '.join(classes)}"
        )
    return list(classes).index(config.defect_class)


@dataclass(frozen=True)
class Judged:
    """A form and what its answers are worth."""

    exported: ExportedForm
    test: Evaluation
    validation_quality: float
    inspection: Inspection | None


class Finishing:
    """Takes trained finalists to their bundles; `folder` keeps these."""

    def __init__(
        self,
        config: StudyConfig,
        study: Study,
        store: Store,
        folder: Path,
        *,
        data: Dataset,
        search: Search,
        key: SigningKey,
    ) -> None:
        self._config = config
        self._study = study
        self._store = store
        self._folder = folder
        self._data = data
        self._search = search
        self._key = key
        self._reporter = search.reporter

    def stored(self, proposal: Proposal) -> FinalistResult | None:
        """The result of a finalist that is finished, with its bundles where they were written."""
        known = self._store.studies.result(self._study.id, finalist_memo(proposal.key))
        if known is None:
            return None
        result = FinalistResult.model_validate_json(known)
        are_there = all(Path(bundle.path).is_file() for bundle in result.bundles)
        measured = {found.device for form in result.forms for found in form.devices}
        back = [d for d in self._devices if d.name not in measured and not self._is_lost(d)]
        return result if result.bundles and are_there and not back else None

    def finish(self, proposal: Proposal, trained: Trained) -> FinalistResult:
        """All steps of one finalist.

        Raises ExportDiffersError where a file does not answer as the network, NotMeasuredError.
        """
        split = self._data.split_at(proposal.network.input_shape)
        judged = self._forms(proposal, trained, split)
        measured = self._measure(proposal, judged)
        answers = {form: self._answers(judged[form].exported, split) for form in judged}
        forms = [
            _form_result(found, measured[form], answers[form], self._config.line.rate_hertz)
            for form, found in judged.items()
        ]
        choices = [self._choice(device.name, device.runtime, forms) for device in self._devices]
        result = self._result(proposal, trained, split, forms, choices)
        for found in judged.values():
            self._note_accuracy(proposal.key, found)
        return self._ship(result, split)

    @property
    def _devices(self) -> Sequence[StudyDevice]:
        return self._search.ledger.devices

    def _is_lost(self, device: StudyDevice) -> bool:
        return self._search.ledger.is_lost(device)

    def _forms(self, proposal: Proposal, trained: Trained, split: Split) -> dict[Form, Judged]:
        name = proposal.key[:8]
        runtimes = list(dict.fromkeys(device.runtime for device in self._devices))
        metadata = onnx_metadata(
            classes=split.classes,
            preprocessing=split.preprocessing,
            study=self._study.name,
            candidate=proposal.text,
            data_fingerprint=split.fingerprint,
        )
        exported = render_forms(
            proposal.network,
            trained.module,
            split,
            runtimes,
            metadata=metadata,
            quality=lambda labels, logits: _quality(_evaluated(split, labels, logits)),
            max_drop=self._config.finalists.max_int8_drop,
            on_note=lambda note: self._reporter.say(f"finalist {name} has {note}"),
        )
        loaded = loaded_by_all(exported, self._devices, self._reporter.say)
        return {form: self._judged(found, split) for form, found in loaded.items()}

    def _judged(self, exported: ExportedForm, split: Split) -> Judged:
        logits = {
            part: self._logits(exported, split, samples)
            for part, samples in (("validation", split.validation), ("test", split.test))
        }
        validation = _evaluated(split, split.validation.labels, logits["validation"])
        return Judged(
            exported,
            _evaluated(split, split.test.labels, logits["test"]),
            _quality(validation),
            self._inspection(split, logits["validation"], logits["test"]),
        )

    def _logits(self, exported: ExportedForm, split: Split, samples: Samples) -> Floats:
        inputs = split.preprocessing.normalise(samples.inputs)
        return logits_of_form(exported.form, exported.model, inputs)

    def _inspection(self, split: Split, validation: Floats, test: Floats) -> Inspection | None:
        config = self._config.data
        defect = defect_of(config, split.classes)
        if defect is None:
            return None
        found = inspect_defects(
            score_defects(split.validation.labels, validation, defect=defect),
            score_defects(split.test.labels, test, defect=defect),
            costs=Costs(config.cost_of_miss, config.cost_of_false_alarm),
            false_alarm_rate_limit=config.max_false_alarms,
        )
        if found is None:
            return None
        return Inspection(
            defect_class=split.classes[defect],
            threshold=found.threshold,
            confusion=[list(row) for row in found.confusion],
            cost_of_miss=config.cost_of_miss,
            cost_of_false_alarm=config.cost_of_false_alarm,
            cost_per_sample=found.cost_per_sample,
            recall=Score.of(found.recall),
            false_alarm_rate=Score.of(found.false_alarm_rate),
            false_alarm_rate_limit=config.max_false_alarms,
        )

    def _measure(
        self, proposal: Proposal, judged: Mapping[Form, Judged]
    ) -> dict[Form, dict[str, Measurement]]:
        models: dict[Precision, dict[Runtime, bytes]] = {}
        for form, found in judged.items():
            models.setdefault(precision_of(form), {})[runtime_of(form)] = found.exported.model
        by_name: Mapping[str, Models] = {str(name): files for name, files in models.items()}
        outcomes = self._search.ledger.measure_models(
            by_name,
            purpose=f"finalist of {self._study.name}",
            manner=Manner.of_finalists(self._config.measuring),
        )
        measured: dict[Form, dict[str, Measurement]] = {form: {} for form in judged}
        for form in judged:
            for device in self._devices:
                if device.runtime != runtime_of(form):
                    continue
                outcome = outcomes.get((precision_of(form), device.name))
                if outcome is None:  # the device was given up
                    continue
                self._take(proposal.key, form, device.name, outcome, measured[form])
        for form, found_on in measured.items():
            if precision_of(form) == "fp32":
                self._compare_with_untrained(proposal.key, found_on)
        return measured

    def _take(
        self, key: str, form: Form, device: str, outcome: Measured, into: dict[str, Measurement]
    ) -> None:
        if isinstance(outcome, Measurement):
            into[device] = outcome
            return
        failed = (
            f"{device} could not measure the {form} form of finalist {key[:8]}: {outcome.message}"
        )
        if precision_of(form) == "fp32":
            raise NotMeasuredError(failed)
        self._reporter.say(f"{failed}; fp32 is what runs there")

    def _answers(self, exported: ExportedForm, split: Split) -> Mapping[str, float | None]:
        """How far a form answers on each device as it does here, for real test samples: answers
        depend on the CPU, and a runtime may be wrong too.
        """
        inputs = split.preprocessing.normalise(split.test.inputs[:MOST_IMAGES])
        found = self._asked(exported, inputs)
        for device, agreement in found.items():
            if precision_of(exported.form) == "fp32" and (agreement or 0.0) < SAME_ANSWERS:
                share = "not at all" if agreement is None else f"on {agreement:.0%} of them only"
                self._reporter.say(
                    f"on {device} the {exported.form} form answers test samples as here {share}: do"
                    " not ship it there before you know why"
                )
        return found

    def _asked(self, exported: ExportedForm, inputs: Floats) -> Mapping[str, float | None]:
        ledger = self._search.ledger
        while True:
            try:
                return agreement_by_device(
                    self._store,
                    self._study.id,
                    [device for device in self._devices if not ledger.is_lost(device)],
                    exported.form,
                    exported.model,
                    inputs,
                    on_wait=ledger.say_waiting,
                )
            except LostDeviceError as error:
                ledger.attendance.give_up(error)

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

    def _choice(self, profile: str, runtime: Runtime, forms: Sequence[FormResult]) -> Choice:
        choice = choose_form(
            profile,
            runtime,
            forms,
            self._search.limits,
            max_drop=self._config.finalists.max_int8_drop,
        )
        form = next(found for found in forms if found.form == choice.form)
        found = next((found for found in form.devices if found.device == profile), None)
        if found is None:
            self._reporter.say(f"the finalist was not measured on {profile}: {choice.because}")
            return choice
        if found.verdict == "REJECT":
            self._reporter.say(
                f"the figures of the {choice.form} form on {profile} are not to be trusted"
                f" ({'; '.join(found.verdict_reasons)}): measure its bundle once more by"
                " `genba measure --again`"
            )
        if not choice.within_limits:
            self._reporter.say(f"on {profile} the {choice.form} form breaks a limit after training")
        return choice

    def _result(
        self,
        proposal: Proposal,
        trained: Trained,
        split: Split,
        forms: list[FormResult],
        choices: list[Choice],
    ) -> FinalistResult:
        best = trained.result.best
        majority = float(np.mean(split.test.labels == split.majority_class))
        return FinalistResult(
            key=proposal.key,
            text=proposal.text,
            score=self._search.combined_scores()[proposal.key],
            parameters=proposal.network.parameters,
            macs=proposal.network.macs,
            classes=list(split.classes),
            epochs=len(trained.result.history),
            best_epoch=trained.result.best_epoch,
            train_seconds=trained.result.seconds,
            taught_by=trained.taught_by,
            validation_auroc=best.validation_auroc,
            validation_balanced_accuracy=best.validation_balanced_accuracy,
            majority_accuracy=majority,
            forms=forms,
            choices=choices,
            bundles=[],
        )

    def _ship(self, result: FinalistResult, split: Split) -> FinalistResult:
        """Keep the result, write its bundles from what is kept, and keep where they are."""
        memo = finalist_memo(result.key)
        keep_input(self._store, self._study.id, result.key, split.preprocessing)
        self._store.studies.put_result(self._study.id, memo, result.model_dump_json())
        bundles = write_bundles(
            self._store, self._study.name, result.key, self._folder / "bundles", self._key
        )
        shipped = result.model_copy(update={"bundles": bundles})
        self._store.studies.put_result(self._study.id, memo, shipped.model_dump_json())
        return shipped

    def _note_accuracy(self, key: str, found: Judged) -> None:
        metrics = {
            "accuracy": found.test.accuracy.value,
            "balanced_accuracy": found.test.balanced_accuracy,
            "majority_accuracy": found.test.majority_accuracy,
        }
        if found.test.auroc is not None:
            metrics["auroc"] = found.test.auroc.value
        row = AccuracyRow(key, found.exported.form, metrics, found.test.accuracy.n)
        self._store.studies.add_accuracy(self._study.id, row)


def _evaluated(split: Split, labels: Labels, logits: Floats) -> Evaluation:
    return evaluate(labels, logits, majority_class=split.majority_class)


def _quality(evaluation: Evaluation) -> float:
    """AUROC with two classes, else accuracy."""
    return evaluation.accuracy.value if evaluation.auroc is None else evaluation.auroc.value


def _form_result(
    found: Judged,
    measured: Mapping[str, Measurement],
    answers: Mapping[str, float | None],
    rate_hertz: float | None,
) -> FormResult:
    exported, test = found.exported, found.test
    return FormResult(
        form=exported.form,
        sha256=hashlib.sha256(exported.model).hexdigest(),
        size_bytes=len(exported.model),
        accuracy=Score.of(test.accuracy),
        balanced_accuracy=test.balanced_accuracy,
        auroc=None if test.auroc is None else Score.of(test.auroc),
        inspection=found.inspection,
        confusion=[list(row) for row in test.confusion],
        validation_quality=found.validation_quality,
        largest_difference=exported.largest_difference,
        float_layers=list(exported.float_layers),
        devices=[
            OnDevice.of(name, one, agreement=answers.get(name), rate_hertz=rate_hertz)
            for name, one in measured.items()
        ],
    )
