"""Whether the predictions for a device hold: networks that no model saw, predicted and measured.

Every network is predicted first; measurements come after and change nothing of it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, zip_longest

import numpy as np

from cost_models.base import Prediction
from cost_models.evaluate import spearman, within
from host.calibration.calibration import LeftOut, Row
from host.calibration.catalogue import Quantity
from host.calibration.micrographs import micrographs
from host.calibration.prediction import Absent, Forecast, Predictor
from host.calibration.specimens import Form, Specimen, mobile_candidates
from host.measurement import Measurement

LEAST_TO_JUDGE = 5
"""Fewer intervals that could fail say nothing about how many hold."""

LONGEST_SECONDS = 0.5
"""Slower networks leave too few samples in a quick measurement."""
SEED_OFFSET = 1_000_003
"""So that equal seeds draw other candidates than a calibration does."""

_RANGE = 0.95  # how often the number of intervals that hold lies in the range that is expected


class TooFewFreshError(ValueError):
    """There are not so many networks that no model was fitted on."""


@dataclass(frozen=True)
class Foretold:
    """A network, and what was predicted of it before it was measured."""

    specimen: Specimen
    forecasts: Mapping[Quantity, Forecast]


@dataclass(frozen=True)
class Check:
    """One quantity of one network: what was predicted, and what was measured afterwards."""

    name: str
    prediction: Prediction
    measured: float

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return (self.prediction.value - self.measured) / self.measured

    @property
    def is_inside(self) -> bool | None:
        """Whether the interval holds; None where it is open above, so that it could not fail."""
        if math.isinf(self.prediction.high):
            return None
        return self.prediction.low <= self.measured <= self.prediction.high


@dataclass(frozen=True)
class Summary:
    """How good the predictions of one quantity were; shares lie in [0, 1].

    Of `judged` intervals that could fail, `inside` held, and `expected` would, between those two
    numbers in 95 of 100 validations. `rho` is None below three networks or on equal values.
    """

    n: int
    median_error: float
    within_10_percent: float
    within_25_percent: float
    rho: float | None
    judged: int
    inside: int
    expected: tuple[int, int]
    level: float

    @property
    def holds(self) -> bool | None:
        """Whether as many intervals hold as they promise; None where too few could be judged."""
        if self.judged < LEAST_TO_JUDGE:
            return None
        return self.inside >= self.expected[0]


def fresh_specimens(
    count: int,
    seed: int,
    known_sha256: AbstractSet[str],
    is_wanted: Callable[[Specimen], bool] = lambda _: True,
    form: Form = "onnx",
) -> list[Specimen]:
    """So many networks in that format, half of them synthetic and half of the space 'mobile' as
    far as there are enough, in an order drawn by `seed`; none of which has one of the hashes.

    Raises TooFewFreshError.
    """
    rng = np.random.default_rng(seed)
    synthetic = micrographs(form)
    order = (synthetic[index] for index in rng.permutation(len(synthetic)))
    candidates = mobile_candidates(max(1, 2 * count), seed + SEED_OFFSET, form)
    found: dict[str, Specimen] = {}
    for specimen in _alternating(order, iter(candidates)):
        if len(found) == count:
            break
        if not is_wanted(specimen):
            continue
        digest = sha256(specimen.model_bytes()).hexdigest()
        if digest not in known_sha256:
            found.setdefault(digest, specimen)
    if len(found) < count:
        raise TooFewFreshError(f"there are only {len(found)} networks that no model was fitted on")
    return list(found.values())


def known_models(predictor: Predictor) -> frozenset[str]:
    """The hashes of all networks that the models of a predictor were fitted on."""
    examples = chain.from_iterable(found.examples for found in predictor.models.values())
    return frozenset(example.model_sha256 for example in examples)


def is_quick_enough(predictor: Predictor, specimen: Specimen) -> bool:
    """Whether the device will run it often enough in a quick measurement, as far as is known."""
    (forecasts,) = predictor.predict([specimen.kernels])
    latency = forecasts["latency_seconds"]
    return isinstance(latency, Absent) or latency.value <= LONGEST_SECONDS


def foretell(predictor: Predictor, specimens: Sequence[Specimen]) -> list[Foretold]:
    """Predict each of them."""
    forecasts = predictor.predict([specimen.kernels for specimen in specimens])
    return [Foretold(s, found) for s, found in zip(specimens, forecasts, strict=True)]


def checks_of(
    predictor: Predictor,
    quantity: Quantity,
    foretold: Sequence[Foretold],
    outcomes: Mapping[str, Row | LeftOut],
) -> list[Check]:
    """What the predictor said of a quantity that it has a model of, beside what was measured;
    without those that have not both.

    What was measured in another state of the device is brought to the newest, as predictions are.
    """
    source = predictor.models[quantity].source
    found = []
    for one in foretold:
        forecast, outcome = one.forecasts[quantity], outcomes[one.specimen.name]
        if isinstance(forecast, Absent) or isinstance(outcome, LeftOut):
            continue
        measured = measured_value(outcome.measurement, quantity, source)
        if measured is not None:
            now = measured * predictor.drift_since(quantity, outcome.measurement)
            found.append(Check(one.specimen.name, forecast, now))
    return found


def measured_value(measurement: Measurement, quantity: Quantity, source: str) -> float | None:
    """The figure that a model of that quantity predicts: power and energy above idle, as that
    source says. None where the source has none.
    """
    if quantity == "latency_seconds":
        return measurement.latency_seconds
    if quantity == "peak_rss_bytes":
        return float(measurement.peak_rss_bytes)
    figure = next((energy for energy in measurement.energies if energy.source == source), None)
    if figure is None:
        return None
    if quantity == "energy_joules":
        return figure.net_joules if figure.net_joules > 0 else None
    above_idle = figure.power_watts - figure.idle_watts
    return above_idle if above_idle > 0 else None


def summary_of(checks: Sequence[Check]) -> Summary:
    """All figures of one quantity. Raises ValueError where there is nothing to summarise."""
    if not checks:
        raise ValueError("nothing was both predicted and measured")
    predicted = np.array([check.prediction.value for check in checks])
    measured = np.array([check.measured for check in checks])
    verdicts = [inside for check in checks if (inside := check.is_inside) is not None]
    level = checks[0].prediction.level
    return Summary(
        n=len(checks),
        median_error=float(np.median(np.abs(predicted - measured) / measured)),
        within_10_percent=within(predicted, measured, 0.1),
        within_25_percent=within(predicted, measured, 0.25),
        rho=spearman(predicted, measured) if len(checks) > 2 else None,
        judged=len(verdicts),
        inside=sum(verdicts),
        expected=binomial_range(len(verdicts), level),
        level=level,
    )


def binomial_range(n: int, probability: float, mass: float = _RANGE) -> tuple[int, int]:
    """The central range of a binomial number: below it, and above it, lie at most (1 - mass) / 2
    of its probability each.
    """
    tail = (1 - mass) / 2
    weights = [
        math.comb(n, k) * probability**k * (1 - probability) ** (n - k) for k in range(n + 1)
    ]
    return _quantile(weights, tail), n - _quantile(weights[::-1], tail)


def _quantile(weights: Sequence[float], tail: float) -> int:
    """The least number below which lies at most `tail`."""
    below = 0.0
    for number, weight in enumerate(weights):
        below += weight
        if below > tail:
            return number
    return len(weights) - 1


def _alternating(first: Iterator[Specimen], second: Iterator[Specimen]) -> Iterator[Specimen]:
    for pair in zip_longest(first, second):
        yield from (specimen for specimen in pair if specimen is not None)
