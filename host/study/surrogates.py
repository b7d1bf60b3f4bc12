"""The cost models of a study: for every device and target one, fitted on what it measured there."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cost_models.base import Prediction
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.nonnegative import NonNegativeModel
from host.errors import GenbaError
from host.study.ledger import Ledger
from host.study.limits import TARGETS, Limit, Target
from host.study.proposal import Proposal

MIN_MEASUREMENTS = 9
"""Fewer leave no 90 % interval (cost_models.intervals)."""

Matrix = npt.NDArray[np.float64]


class TooFewMeasurementsError(GenbaError):
    """A device measured too little to predict anything from it."""


class Surrogates:
    """Predicts what devices would measure; `fit` again whenever the ledger has grown."""

    def __init__(self, threads: Mapping[str, int]) -> None:
        """`threads` are those of the runtime on each device, by its name."""
        self.models: dict[tuple[str, Target], NonNegativeModel] = {}
        for name, count in threads.items():
            self.models[name, "latency_seconds"] = LatencyModel(threads=count)
            self.models[name, "peak_rss_bytes"] = PeakMemoryModel(threads=count)
        self.fitted_on: dict[str, tuple[str, ...]] = {}
        """The candidates behind the rows of a device's models, in their order, by key."""
        self._threads = dict(threads)
        self._rows: dict[tuple[str, Target, int], Matrix] = {}

    def fit(self, ledger: Ledger, proposals: Mapping[str, Proposal]) -> None:
        """Fit every model on what its device measured of these candidates.

        What a verdict rejects says nothing of the network and is left out. Raises
        TooFewMeasurementsError for a device with fewer than MIN_MEASUREMENTS.
        """
        for device, keys in self.usable(ledger, proposals).items():
            if len(keys) < MIN_MEASUREMENTS:
                raise TooFewMeasurementsError(
                    f"{device} measured only {len(keys)} candidates without a REJECT, "
                    f"{MIN_MEASUREMENTS} are needed to predict from: the messages above say why "
                    "the others failed"
                )
            self.fitted_on[device] = tuple(keys)
            for target in TARGETS:
                known = [ledger.value(key, device, target) for key in keys]
                values = np.array(known, dtype=np.float64)
                rows = [self.features(device, target, proposals[key]) for key in keys]
                self.models[device, target].fit_rows(np.stack(rows), values)

    def usable(self, ledger: Ledger, proposals: Mapping[str, Proposal]) -> dict[str, list[str]]:
        """The candidates whose measurement may be fitted, by device: it is there, not rejected."""
        return {
            device: [
                key
                for key in sorted(proposals)
                if (measurement := ledger.measurement(key, device)) is not None
                and measurement.verdict.level != "REJECT"
            ]
            for device in self._threads
        }

    def predict(
        self, device: str, target: Target, proposals: Sequence[Proposal]
    ) -> list[Prediction]:
        """One prediction for each proposal."""
        if not proposals:
            return []
        rows = np.stack([self.features(device, target, proposal) for proposal in proposals])
        return self.models[device, target].predict_rows(rows)

    def features(self, device: str, target: Target, proposal: Proposal) -> Matrix:
        """The row of features of a proposal; the same for devices with as many threads."""
        place = proposal.key, target, self._threads[device]
        known = self._rows.get(place)
        if known is None:
            known = self._rows[place] = self.models[device, target].features([proposal.graph])[0]
        return known

    def design_rows(self, proposals: Sequence[Proposal]) -> Matrix:
        """What D-optimal design compares: the latency features on the first device, scaled for
        relative errors.
        """
        device, threads = next(iter(self._threads.items()))
        rows = np.stack([self.features(device, "latency_seconds", p) for p in proposals])
        return LatencyModel(threads=threads).design_rows(rows)

    def upper_bounds(self, limits: Sequence[Limit], proposals: Sequence[Proposal]) -> Matrix:
        """For each proposal and limit, the excess of the upper bound over the limit."""
        excess = np.empty((len(proposals), len(limits)))
        for column, limit in enumerate(limits):
            values = self._upper_values(limit, proposals)
            excess[:, column] = [limit.excess(value) for value in values]
        return excess

    def latencies(self, proposals: Sequence[Proposal]) -> Matrix:
        """Predicted latency in seconds, one row a proposal, one column a device."""
        names = list(dict.fromkeys(name for name, _ in self.models))
        columns = [
            [p.value for p in self.predict(name, "latency_seconds", proposals)] for name in names
        ]
        return np.array(columns).reshape(len(names), len(proposals)).T

    def _upper_values(self, limit: Limit, proposals: Sequence[Proposal]) -> list[float]:
        if limit.quantity == "model_bytes" or limit.device is None:
            return [float(proposal.model_bytes) for proposal in proposals]
        return [p.high for p in self.predict(limit.device, limit.quantity, proposals)]


def all_targets(device_names: Sequence[str]) -> list[tuple[str, Target]]:
    """Every pair of device and target that a study predicts."""
    return [(name, target) for name in device_names for target in TARGETS]
