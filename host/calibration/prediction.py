"""What a device will measure of a network, by its stored cost models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from cost_models.base import ModelFormatError, Prediction
from cost_models.drift import rescaled
from cost_models.energy import EnergyModel, PowerModel
from cost_models.kernels import KernelGraph
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from host.calibration.catalogue import (
    Quantity,
    calibrate_command,
    is_current,
    settings_of,
)
from host.calibration.drift import DriftReport, Scale, drift_of, scale_of
from host.calibration.explanation import flagged_operators
from host.calibration.setting import Setting
from host.calibration.stored import Calibrated, load
from host.device import Device
from host.errors import UsageError
from host.measurement import Measurement
from host.store.store import Store

KINDS: Mapping[Quantity, type[Any]] = {
    "latency_seconds": LatencyModel,
    "peak_rss_bytes": PeakMemoryModel,
    "energy_joules": EnergyModel,
    "power_watts": PowerModel,
}
"""The class of the model of each quantity."""

_OF_TIME: Mapping[Quantity, str] = {"latency_seconds": "latency", "energy_joules": "energy"}
"""What grows with the time that a device takes, and what people call it."""

_NOT_CALIBRATED = "not calibrated"
_NO_ENERGY = "no measured energy: calibrate with --energy"
_UNUSABLE = "its stored model cannot be read by this version of genba: calibrate again"


class NotCalibratedError(UsageError):
    """A device has no cost model for the setting that was asked for."""


@dataclass(frozen=True)
class Absent:
    """Why there is no prediction."""

    because: str


Forecast = Prediction | Absent


@dataclass(frozen=True)
class Predictor:
    """The cost models of a device in a setting, and why a quantity has none.

    Where the device has become slower or quicker since a model was made, as `drift` says, what
    grows with time is multiplied by that.
    """

    device: Device
    setting: Setting
    models: Mapping[Quantity, Calibrated[Any]]
    absent: Mapping[Quantity, Absent]
    drift: DriftReport

    @classmethod
    def of(cls, store: Store, device: Device, setting: Setting) -> Self:
        """Those that the store has. Raises NotCalibratedError where it has none."""
        models: dict[Quantity, Calibrated[Any]] = {}
        absent: dict[Quantity, Absent] = {}
        for quantity, kind in KINDS.items():
            try:
                found = load(store, device.id, setting, kind)
            except ModelFormatError:
                absent[quantity] = Absent(_UNUSABLE)
                continue
            if found is None:
                energy = quantity in {"energy_joules", "power_watts"}
                absent[quantity] = Absent(_NO_ENERGY if energy else _NOT_CALIBRATED)
            else:
                models[quantity] = found
        if not models:
            raise NotCalibratedError(_why_not(store, device, setting, absent))
        return cls(device, setting, models, absent, drift_of(store, device, setting))

    def predict(self, graphs: Sequence[KernelGraph]) -> list[dict[Quantity, Forecast]]:
        """For each network every quantity; flags name operators where a prediction has any."""
        columns: dict[Quantity, list[Forecast]] = {
            quantity: [self.absent[quantity]] * len(graphs) for quantity in self.absent
        }
        for quantity, calibrated in self.models.items():
            columns[quantity] = [
                replace(
                    self._scaled(quantity, one),
                    flagged=flagged_operators(calibrated.model, graph, one.flagged),
                )
                for graph, one in zip(graphs, calibrated.model.predict(graphs), strict=True)
            ]
        return [
            {quantity: columns[quantity][index] for quantity in KINDS}
            for index in range(len(graphs))
        ]

    def _scaled(self, quantity: Quantity, prediction: Prediction) -> Prediction:
        """The one place where drift enters a prediction."""
        scale = self.scales.get(quantity)
        return prediction if scale is None else rescaled(prediction, scale.ratio, scale.interval)

    @cached_property
    def scales(self) -> Mapping[Quantity, Scale]:
        """What predictions are multiplied by, where that is not 1."""
        return {
            quantity: scale
            for quantity in _OF_TIME
            if (found := self.models.get(quantity)) is not None
            and (scale := scale_of(self.drift, found.created_at)) is not None
        }

    def drift_since(self, quantity: Quantity, measurement: Measurement) -> float:
        """What the quantity that was measured is multiplied by to compare with predictions, which
        are of the device as it is now.
        """
        if quantity not in _OF_TIME or self.drift.verdict == "reshaped":
            return 1.0
        return self.drift.to_now(measurement.measured_at)

    @property
    def notes(self) -> list[str]:
        """How the device has changed since its models were made."""
        together: dict[Scale, list[str]] = {}
        for quantity, scale in self.scales.items():
            together.setdefault(scale, []).append(_OF_TIME[quantity])
        told = [scale.sentence(names) for scale, names in together.items()]
        if self.drift.verdict == "reshaped":
            told.append(f"{self.drift.sentence()}: {self.drift.advice()}")
        return told


def _why_not(
    store: Store, device: Device, setting: Setting, absent: Mapping[Quantity, Absent]
) -> str:
    command = calibrate_command(device, setting)
    if Absent(_UNUSABLE) in absent.values():
        return (
            f"the stored cost models of {device.name} for {setting} cannot be read by this version"
            f" of genba: calibrate again with `{command}`"
        )
    others = [other for other in settings_of(store, device) if other != setting]
    older = [other for other in others if other.runtime == setting.runtime]
    older = [other for other in older if not is_current(other, device)]
    if older:
        return (
            f"{device.name} was calibrated with {older[-1]} and has {setting} now: calibrate again"
            f" with `{command}`"
        )
    known = f" (it is for {'; '.join(map(str, others))})" if others else ""
    return f"{device.name} is not calibrated for {setting}{known}: run `{command}`"
