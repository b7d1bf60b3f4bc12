"""What goes into a bundle: plain data, each number with where it comes from."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from host.export.errors import ExportError
from host.export.forms import Form, Runtime, precision_of, runtime_of, suffix_of
from host.measurement import Measurement
from host.measurement.samples import NumberKind
from host.measurement.verdict import Level
from host.network.ncnn_file import is_ncnn_file
from host.preprocessing import AnyPreprocessing

_TFLITE_MARK = b"TFL3"
_FILE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")


@dataclass(frozen=True)
class BundleModel:
    """One model file. `float_layers` of an int8 form stayed float, because int8 hurt there."""

    form: Form
    content: bytes = field(repr=False)
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class BundleProfile:
    """A device profile that the bundle is for: a machine, how it runs models, on which threads."""

    name: str
    device: str
    cpu: str
    architecture: str
    runtime: Runtime
    runtime_version: str
    threads: int


@dataclass(frozen=True)
class BundleChoice:
    """The form to run on a profile, why, and whether it is within the study's limits there."""

    profile: str
    form: Form
    because: str
    within_limits: bool


@dataclass(frozen=True)
class BundleLimit:
    """A limit of the study: the largest value (SI units) of a quantity on one profile, or (None)
    of the file. `text` is how the study says it.
    """

    quantity: str
    profile: str | None
    maximum: float
    text: str


@dataclass(frozen=True)
class BundlePrediction:
    """A cost model's number with the interval that holds the truth with probability `level`.

    `quantity` ends in its unit, such as latency_seconds. `high` is None where the model gives no
    upper bound.
    """

    form: Form
    profile: str
    quantity: str
    value: float
    low: float
    high: float | None
    level: float
    cost_model: str


@dataclass(frozen=True)
class BundleMeasurement:
    """A profile's numbers: the median latency with its 95 % interval and MAD, over n samples.

    `model_sha256` is of the file that was measured; figures may have been written into the
    shipped file's properties since. Energy is gross: idle power is not taken off; its interval is
    95 % too. `agreement` is the share of real samples on which the profile gave the host's answer,
    None where it was not asked.
    """

    form: Form
    profile: str
    model_sha256: str
    protocol: str
    runtime: str
    runtime_version: str
    threads: int
    n: int
    latency_seconds: float
    latency_low_seconds: float
    latency_high_seconds: float
    latency_mad_seconds: float
    latency_p90_seconds: float | None
    latency_kind: NumberKind
    peak_rss_bytes: int
    energy_per_inference_joules: float | None
    energy_low_joules: float | None
    energy_high_joules: float | None
    power_watts: float | None
    energy_kind: NumberKind | None
    energy_source: str | None
    energy_absent_because: str
    verdict: Level
    verdict_reasons: tuple[str, ...]
    measured_at: str
    agreement: float | None = None

    @classmethod
    def of(
        cls, measurement: Measurement, *, form: Form, profile: str, agreement: float | None = None
    ) -> Self:
        """The figures of a measurement on the profile of that name."""
        latency, energy = measurement.latency, measurement.energy
        low, high = latency.interval_seconds
        energy_low, energy_high = energy.gross_interval_joules if energy else (None, None)
        return cls(
            form=form,
            profile=profile,
            model_sha256=measurement.model_sha256,
            protocol=measurement.protocol,
            runtime=measurement.runtime_library,
            runtime_version=measurement.runtime_version,
            threads=measurement.threads,
            n=latency.n,
            latency_seconds=latency.seconds,
            latency_low_seconds=low,
            latency_high_seconds=high,
            latency_mad_seconds=latency.mad_seconds,
            latency_p90_seconds=latency.quantile(0.90),
            latency_kind=latency.kind,
            peak_rss_bytes=measurement.peak_rss_bytes,
            energy_per_inference_joules=energy.gross_joules if energy else None,
            energy_low_joules=energy_low,
            energy_high_joules=energy_high,
            power_watts=energy.power_watts if energy else None,
            energy_kind=energy.kind if energy else None,
            energy_source=f"{energy.source} ({energy.scope})" if energy else None,
            energy_absent_because=measurement.energy_absent_because,
            verdict=measurement.verdict.level,
            verdict_reasons=tuple(reason.sentence for reason in measurement.verdict.reasons),
            measured_at=measurement.measured_at.isoformat(),
            agreement=agreement,
        )


@dataclass(frozen=True)
class BundleAccuracy:
    """A figure on one part of the data. `baseline` is that of the most frequent class."""

    form: Form
    subset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    baseline: float | None = None


@dataclass(frozen=True)
class BundleConfusion:
    """How often samples of class t (row) were answered as class p (column) on one part."""

    form: Form
    subset: str
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class BundleShare:
    """A share between 0 and 1 of n samples, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class BundleInspection:
    """How two-class inspection does on the test part.

    A sample is rejected where the logit of `defect_class` less that of the other class is at least
    `threshold`, which was chosen on the validation part. `confusion` is ((true good, false alarm),
    (miss, found)) there; costs are per sample, in the currency of the study. `recall` and
    `false_alarm_rate` are at another threshold: the one that keeps to `false_alarm_rate_limit` on
    the validation part.
    """

    form: Form
    defect_class: str
    threshold: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    cost_of_miss: float
    cost_of_false_alarm: float
    cost_per_sample: float
    recall: BundleShare
    false_alarm_rate: BundleShare
    false_alarm_rate_limit: float

    @property
    def threshold_probability(self) -> float:
        """The probability of the defect class at the threshold."""
        return 0.5 * (1.0 + math.tanh(self.threshold / 2))


@dataclass(frozen=True)
class BundleContents:
    """Everything that a bundle says. `shipped` is the form that runs unless another is named;
    `choices` are profile by profile.

    All models are of one runtime and all profiles of one class, such as "x86_64-onnx". `name`
    becomes part of file names: letters, digits, dot, dash and underscore. `created_at` is an
    ISO 8601 time; contents that are equal give bundles that are equal, byte for byte.

    Raises ExportError for contents that no bundle can hold.
    """

    name: str
    device_class: str
    genba_version: str
    created_at: str
    study: str
    space: str
    candidate: str
    seed: int
    classes: tuple[str, ...]
    preprocessing: AnyPreprocessing
    data_fingerprint: str
    data_counts: Mapping[str, int]
    data_licence: str
    models: tuple[BundleModel, ...]
    shipped: Form
    profiles: tuple[BundleProfile, ...]
    choices: tuple[BundleChoice, ...] = ()
    limits: tuple[BundleLimit, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    predictions: tuple[BundlePrediction, ...] = ()
    measurements: tuple[BundleMeasurement, ...] = ()
    accuracies: tuple[BundleAccuracy, ...] = ()
    confusions: tuple[BundleConfusion, ...] = ()
    inspections: tuple[BundleInspection, ...] = ()

    def __post_init__(self) -> None:
        for text in (self.name, self.device_class):
            if not _FILE_NAME.fullmatch(text):
                raise ExportError(
                    f'a bundle cannot be named "{text}": use letters, digits, ".", "-" and "_"'
                )
        self._check_models()
        self._check_profiles()
        self._check_classes()
        self._check_mentions()

    @property
    def runtime(self) -> Runtime:
        """What runs the models of this bundle."""
        return runtime_of(self.shipped)

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that it holds."""
        return tuple(model.form for model in self.models)

    def model_path(self, form: Form) -> str:
        """Where a model stands in the bundle."""
        return f"models/{self.name}.{precision_of(form)}{suffix_of(form)}"

    def inspection(self, form: Form) -> BundleInspection | None:
        """How inspection does with that form, where it was looked at."""
        return next((found for found in self.inspections if found.form == form), None)

    def _check_models(self) -> None:
        forms = self.forms
        if self.shipped not in forms or len(set(forms)) != len(forms):
            raise ExportError(
                f"a bundle needs each form once and the shipped one among them: it has "
                f"{', '.join(forms) or 'none'} and ships {self.shipped}"
            )
        if any(runtime_of(form) != self.runtime for form in forms):
            raise ExportError(
                f"a bundle holds models of one runtime, not {' and '.join(forms)}: write two"
            )
        for model in self.models:
            if _runtime_of_content(model.content) != self.runtime:
                raise ExportError(f"what is called {model.form} is no {self.runtime} file")

    def _check_profiles(self) -> None:
        names = [profile.name for profile in self.profiles]
        if not names or len(set(names)) != len(names):
            raise ExportError(
                f"a bundle needs a device profile, and each once: it has {', '.join(names)}"
            )
        for profile in self.profiles:
            if f"{profile.architecture}-{profile.runtime}" != self.device_class:
                raise ExportError(
                    f"the profile {profile.name} is of the class "
                    f"{profile.architecture}-{profile.runtime}, the bundle for {self.device_class}"
                )

    def _check_classes(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ExportError("a bundle needs class names, each once")
        if any(len(name.splitlines()) != 1 for name in self.classes):
            raise ExportError("a class name is empty or has a line break in it: rename its folder")
        for found in self.inspections:
            if found.defect_class not in self.classes or len(self.classes) != 2:
                raise ExportError(
                    f'inspection for "{found.defect_class}" needs it and one other class, not '
                    f"{len(self.classes)} classes"
                )

    def _check_mentions(self) -> None:
        """Every figure is of a form and a profile that the bundle has."""
        by_profile = [
            (said.form, said.profile)
            for group in (self.choices, self.predictions, self.measurements)
            for said in group
        ]
        of_form = [
            said.form
            for group in (self.accuracies, self.confusions, self.inspections)
            for said in group
        ]
        _require(self.forms, [*of_form, *(form for form, _ in by_profile)])
        _require([p.name for p in self.profiles], [profile for _, profile in by_profile])


def _runtime_of_content(content: bytes) -> Runtime:
    """By how it begins; an ONNX file has no mark."""
    if is_ncnn_file(content):
        return "ncnn"
    return "tflite" if content[4:8] == _TFLITE_MARK else "onnx"


def _require(known: Iterable[str], said: Iterable[str]) -> None:
    strangers = sorted(set(said) - set(known))
    if strangers:
        raise ExportError(f"a figure is of {strangers[0]}, which is not in the bundle")
