"""The cost models of a study: for every device profile and target one, fitted on what it measured
there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cost_models.base import Prediction
from cost_models.energy import EnergyModel
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.nonnegative import NonNegativeModel
from host.errors import GenbaError
from host.export.forms import Runtime
from host.study.ledger import Ledger, StudyDevice
from host.study.limits import ENERGY_TARGETS, Limit, LimitedQuantity, Target
from host.study.proposal import Proposal

MIN_MEASUREMENTS = 9
"""Fewer leave no 90 % interval (cost_models.intervals)."""

Matrix = npt.NDArray[np.float64]
Models = dict[Target, NonNegativeModel]


class TooFewMeasurementsError(GenbaError):
    """A device measured too little to predict anything from it."""


@dataclass(frozen=True)
class ProfileSetting:
    """How a profile runs models, and what has to be predicted there.

    `rate_hertz` is how often the line asks, for the power.
    """

    runtime: Runtime
    threads: int
    targets: tuple[Target, ...] = ("latency_seconds", "peak_rss_bytes")
    rate_hertz: float | None = None

    @property
    def needs_energy(self) -> bool:
        """Whether energy has to be measured for what is asked."""
        return any(target in ENERGY_TARGETS for target in self.targets)


def targets_of(profile: str, limits: Sequence[Limit]) -> tuple[Target, ...]:
    """What has to be predicted on a profile: latency and memory always, the rest where limited."""
    asked: list[Target] = ["latency_seconds", "peak_rss_bytes"]
    for limit in limits:
        quantity: LimitedQuantity = limit.quantity
        if limit.device == profile and quantity != "model_bytes" and quantity not in asked:
            asked.append(quantity)
    return tuple(asked)


def profile_settings(
    devices: Iterable[StudyDevice], limits: Sequence[Limit], rate_hertz: float | None
) -> dict[str, ProfileSetting]:
    """Of each profile of a study, by its name."""
    return {
        device.name: ProfileSetting(
            device.runtime, device.config.threads, targets_of(device.name, limits), rate_hertz
        )
        for device in devices
    }


class Surrogates:
    """Predicts what devices would measure; `fit` again whenever the ledger has grown."""

    def __init__(self, profiles: Mapping[str, ProfileSetting]) -> None:
        self.profiles = dict(profiles)
        self.models: dict[str, Models] = {n: _models(p) for n, p in profiles.items()}
        self.fitted_on: dict[str, tuple[str, ...]] = {}
        """The candidates behind the rows of a profile's models, in their order, by key."""
        self._idle_watts: dict[str, float] = {}
        self._rows: dict[tuple[str, str, Runtime, int], Matrix] = {}

    def fit(self, ledger: Ledger, proposals: Mapping[str, Proposal]) -> None:
        """Fit every model on what its profile measured of these candidates.

        What a verdict rejects says nothing of the network and is left out. Raises
        TooFewMeasurementsError for a profile with fewer than MIN_MEASUREMENTS.
        """
        for profile in self.profiles:
            keys = [key for key in ledger.usable(profile) if key in proposals]
            if len(keys) < MIN_MEASUREMENTS:
                raise TooFewMeasurementsError(
                    f"{profile} measured only {len(keys)} candidates without a REJECT, "
                    f"{MIN_MEASUREMENTS} are needed to predict from: the messages above say why "
                    "the others failed"
                )
            self.fitted_on[profile] = tuple(keys)
            for target in self._direct(profile):
                self._fit_values(ledger, proposals, profile, target, keys)
            if self.profiles[profile].needs_energy:
                self._fit_energy(ledger, proposals, profile, keys)

    def predict(
        self, profile: str, target: Target, proposals: Sequence[Proposal]
    ) -> list[Prediction]:
        """One prediction for each proposal."""
        if not proposals:
            return []
        if target in ENERGY_TARGETS:
            return self._predict_energy(profile, target, proposals)
        return self.models[profile][target].predict_rows(self._stack(profile, target, proposals))

    def design_rows(self, proposals: Sequence[Proposal]) -> Matrix:
        """What D-optimal design compares: the latency features of every way to run models, scaled
        for relative errors.
        """
        ways = {(p.runtime, p.threads): name for name, p in reversed(self.profiles.items())}
        blocks = []
        for (_, threads), name in sorted(ways.items()):
            rows = self._stack(name, "latency_seconds", proposals)
            blocks.append(LatencyModel(threads=threads).design_rows(rows))
        return np.hstack(blocks)

    def upper_bounds(self, limits: Sequence[Limit], proposals: Sequence[Proposal]) -> Matrix:
        """For each proposal and limit, the excess of the upper bound over the limit."""
        excess = np.empty((len(proposals), len(limits)))
        for column, limit in enumerate(limits):
            values = self._upper_values(limit, proposals)
            excess[:, column] = [limit.excess(value) for value in values]
        return excess

    def latencies(self, proposals: Sequence[Proposal]) -> Matrix:
        """Predicted latency in seconds, one row a proposal, one column a profile."""
        columns = [
            [p.value for p in self.predict(name, "latency_seconds", proposals)]
            for name in self.profiles
        ]
        return np.array(columns).reshape(len(self.profiles), len(proposals)).T

    def _direct(self, profile: str) -> list[Target]:
        return [t for t in self.profiles[profile].targets if t not in ENERGY_TARGETS]

    def _fit_values(
        self,
        ledger: Ledger,
        proposals: Mapping[str, Proposal],
        profile: str,
        target: Target,
        keys: Sequence[str],
    ) -> None:
        known = [(k, v) for k in keys if (v := ledger.value(k, profile, target)) is not None]
        if len(known) < MIN_MEASUREMENTS:
            raise TooFewMeasurementsError(
                f"{profile} gave {target} of only {len(known)} candidates, {MIN_MEASUREMENTS} are "
                'needed to predict it: measure with more samples (search = "standard" in '
                "[measuring]), or remove its limit"
            )
        rows = self._stack(profile, target, [proposals[key] for key, _ in known])
        values = np.array([value for _, value in known], dtype=np.float64)
        self.models[profile][target].fit_rows(rows, values)

    def _fit_energy(
        self,
        ledger: Ledger,
        proposals: Mapping[str, Proposal],
        profile: str,
        keys: Sequence[str],
    ) -> None:
        found = {key: power for key in keys if (power := ledger.power(key, profile)) is not None}
        usable = {key: power for key, power in found.items() if power[0] > 0}
        if len(usable) < MIN_MEASUREMENTS:
            raise TooFewMeasurementsError(
                f"{profile} has a limit on energy or power and measured the energy of only "
                f"{len(usable)} candidates, {MIN_MEASUREMENTS} are needed: "
                f"{ledger.why_no_energy(profile)}"
            )
        rows = self._stack(profile, "latency_seconds", [proposals[key] for key in usable])
        net = np.array([joules for joules, _ in usable.values()], dtype=np.float64)
        model = EnergyModel(self.models[profile]["latency_seconds"])
        model.fit_latency_rows(rows, net)
        self.models[profile]["energy_per_inference_joules"] = model
        self._idle_watts[profile] = float(np.median([watts for _, watts in usable.values()]))

    def _predict_energy(
        self, profile: str, target: Target, proposals: Sequence[Proposal]
    ) -> list[Prediction]:
        """What is drawn above idle comes from the energy model, the rest from the idle power: for
        the time of one inference, or for all of it.
        """
        model = self.models[profile]["energy_per_inference_joules"]
        if not isinstance(model, EnergyModel):
            raise TypeError(f"{type(model)} predicts no energy")
        idle, rate = self._idle_watts[profile], self.profiles[profile].rate_hertz
        latencies = self.predict(profile, "latency_seconds", proposals)
        rows = self._stack(profile, "latency_seconds", proposals)
        nets = model.predict_rows(model.features_of(rows))
        if target == "power_watts" and rate is not None:
            return [_shifted(net, rate, (idle, idle, idle)) for net in nets]
        return [
            _shifted(net, 1.0, (idle * one.value, idle * one.low, idle * one.high))
            for net, one in zip(nets, latencies, strict=True)
        ]

    def _stack(self, profile: str, target: Target, proposals: Sequence[Proposal]) -> Matrix:
        return np.stack([self._features(profile, target, proposal) for proposal in proposals])

    def _features(self, profile: str, target: Target, proposal: Proposal) -> Matrix:
        """The row of features of a proposal; the same for profiles that run models alike."""
        setting, model = self.profiles[profile], self.models[profile][target]
        place = proposal.key, model.quantity, setting.runtime, setting.threads
        known = self._rows.get(place)
        if known is None:
            graph = proposal.graph_for(setting.runtime)
            known = self._rows[place] = model.features([graph])[0]
        return known

    def _upper_values(self, limit: Limit, proposals: Sequence[Proposal]) -> list[float]:
        if limit.quantity == "model_bytes" or limit.device is None:
            return [float(proposal.model_bytes) for proposal in proposals]
        return [p.high for p in self.predict(limit.device, limit.quantity, proposals)]


def _models(profile: ProfileSetting) -> Models:
    """Those of energy are made when they are fitted: they stand on a fitted latency model."""
    found: Models = {}
    for target in profile.targets:
        if target == "peak_rss_bytes":
            found[target] = PeakMemoryModel(threads=profile.threads)
        elif target not in ENERGY_TARGETS:
            found[target] = LatencyModel(threads=profile.threads)
    return found


def _shifted(prediction: Prediction, scale: float, added: tuple[float, float, float]) -> Prediction:
    value, low, high = added
    return Prediction(
        value=scale * prediction.value + value,
        low=scale * prediction.low + low,
        high=scale * prediction.high + high,
        level=prediction.level,
        n=prediction.n,
        flagged=prediction.flagged,
    )
