"""A user's model as an entry of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cost_models.base import Prediction
from host.calibration.catalogue import Quantity
from host.calibration.prediction import Forecast
from host.evaluation.entries import Entry, Quality
from host.evaluation.judging import Images, Judged
from host.measurement import Measured, Measurement
from host.study.front import OnDevice, Predicted


@dataclass(frozen=True)
class OwnModel:
    """A file, and all that is known of it: what devices made of it and what cost models say of it,
    by the name of the place, and how it was judged, or why not.
    """

    path: Path
    label: str
    size_bytes: int
    outcomes: Mapping[str, Measured]
    forecasts: Mapping[str, Mapping[Quantity, Forecast]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    judged: Judged | None = None
    not_judged_because: str = ""

    def entry(self, *, rate_hertz: float | None = None) -> Entry:
        """Its row of the comparison, with the mean power at the rate of a line."""
        on, absent, predicted = {}, dict(self.absent), {}
        for place, outcome in self.outcomes.items():
            if isinstance(outcome, Measurement):
                on[place] = OnDevice.of(
                    place,
                    outcome,
                    latency=self._prediction(place, "latency_seconds"),
                    peak_rss=self._prediction(place, "peak_rss_bytes"),
                    rate_hertz=rate_hertz,
                )
            else:
                kind = outcome.kind.replace("_", " ")
                absent[place] = f"{kind}: {outcome.message.rstrip('.')}"
        for place in self.forecasts:
            told = Predicted.of(self._prediction(place, "latency_seconds"))
            if told is not None:
                predicted[place] = told
        return Entry(
            kind="own model",
            label=self.label,
            name=str(self.path),
            size_bytes=self.size_bytes,
            on=on,
            absent=absent,
            predicted=predicted,
            accuracy=None if self.judged is None else self.judged.accuracy,
            quality=None if self.judged is None else _quality(self.judged),
            no_quality_because=self.not_judged_because,
        )

    def _prediction(self, place: str, quantity: Quantity) -> Prediction | None:
        found = self.forecasts.get(place, {}).get(quantity)
        return found if isinstance(found, Prediction) else None


def labels_of(paths: Sequence[Path]) -> dict[Path, str]:
    """What people call the files: their names, or where two have one name their paths."""
    names = [path.name for path in paths]
    return {path: path.name if names.count(path.name) == 1 else str(path) for path in paths}


def judging_notes(models: Sequence[OwnModel], images: Images | None) -> list[str]:
    """How the own models were judged, and what speaks against it."""
    lines = []
    for model in models:
        if model.judged is None:
            if model.not_judged_because:
                lines.append(f"{model.label} has no accuracy: {model.not_judged_because}")
            continue
        judged = model.judged
        majority = f"always answering the most frequent class: {judged.majority_accuracy:.3f}"
        lines.append(
            f"{model.label}: accuracy {judged.accuracy.value:.3f} on {judged.accuracy.n} images"
            f" ({majority}); mean and std from {judged.preprocessing_from}, classes in the order"
            f" of {judged.labels_from}"
        )
    if images is None or all(model.judged is None for model in models):
        return lines
    if images.excluded:
        first = images.excluded[0]
        lines.append(
            f"{len(images.excluded)} images are left out, such as {first.path}: {first.reason}"
        )
    if not images.separates_test:
        lines.append(
            "the test images were drawn from the folder: if a model of yours was trained on some of"
            " them, its accuracy is too high. Put images that it never saw into a folder test"
        )
    return lines


def _quality(judged: Judged) -> Quality:
    return Quality("accuracy" if judged.auroc is None else "AUROC", judged.quality, judged.origin)
