"""Energy where nothing measures it: a model of power over CPU utilisation, always "estimated".

Power is idle power plus a constant times the share of all cores that is in use, fitted to what a
meter said in earlier energy runs of the same device or of the same model of board.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from host.errors import GenbaError
from host.measurement.energy import Energy
from host.measurement.measurement import Measurement
from host.measurement.resampling import t_quantile
from host.measurement.samples import EnergyRun, Phase, Scope

MIN_RECORDS = 3
_BEYOND = 1.25  # times the utilisations that were measured; further out the model only guesses
SOURCE = "utilisation-model"


class EstimateError(GenbaError):
    """No estimate of energy can be made."""


@dataclass(frozen=True)
class PowerRecord:
    """What a meter said in one energy run: idle, and at a share of all cores."""

    scope: Scope
    idle_watts: float
    busy_watts: float
    cpu_utilisation: float


def records_of(measurements: Iterable[Measurement]) -> tuple[PowerRecord, ...]:
    """The records in measurements whose energy a sensor measured and whose CPU ran unthrottled.
    Paced windows are left out: their utilisation is not known.
    """
    return tuple(
        PowerRecord(
            energy.scope, energy.idle_watts, energy.power_watts, m.energy_run.cpu_utilisation
        )
        for m in measurements
        if m.energy_run is not None and not _is_throttled(m)
        for energy in m.energies
        if energy.kind == "measured"
    )


def _is_throttled(measurement: Measurement) -> bool:
    thermal = measurement.thermal
    return bool(thermal.throttle_events or thermal.throttled)


@dataclass(frozen=True)
class UtilisationModel:
    """Watts = idle_watts + watts_per_utilisation × utilisation, in one scope.

    `residual_watts` is the standard deviation about the line and `freedom` its degrees of freedom.
    """

    scope: Scope
    idle_watts: float
    watts_per_utilisation: float
    residual_watts: float
    freedom: int
    max_utilisation: float

    @classmethod
    def fit(cls, records: Sequence[PowerRecord]) -> Self:
        """Least squares over the idle and the busy point of every record, in the scope of which
        there are most. Raises EstimateError for less than three records of a scope, or where they
        say nothing about load.
        """
        import numpy as np

        scopes: list[Scope] = [record.scope for record in records]
        scope: Scope = max(scopes, key=scopes.count) if scopes else "board"
        used = [record for record in records if record.scope == scope]
        if len(used) < MIN_RECORDS:
            raise EstimateError(
                f"{len(used)} energy measurements are too few for an estimate, {MIN_RECORDS} are "
                "needed: measure this board with a meter first"
            )
        busy = [record.cpu_utilisation for record in used]
        x = np.array([0.0] * len(used) + busy)
        y = np.array([r.idle_watts for r in used] + [r.busy_watts for r in used])
        if not min(busy) > 0:
            raise EstimateError("an energy measurement has no CPU utilisation; measure it again")
        design = np.stack([np.ones_like(x), x], axis=1)
        (idle, slope), *_ = np.linalg.lstsq(design, y, rcond=None)
        if idle <= 0 or slope <= 0:
            raise EstimateError(
                "power does not grow with CPU utilisation in these measurements, so nothing can be "
                "estimated from them"
            )
        freedom = len(x) - 2
        residual = float(np.sqrt(((y - design @ [idle, slope]) ** 2).sum() / freedom))
        return cls(scope, float(idle), float(slope), residual, freedom, max(busy))

    def estimate(self, run: EnergyRun, *, throttled: bool = False) -> Energy:
        """Energy of an energy run from the CPU's utilisation alone. The intervals are those of the
        prediction: t × residual, of two points for the net power. Raises EstimateError for a run
        that was throttled, counted nothing, or lies beyond what the model knows.
        """
        self._refuse(run, throttled=throttled)
        busy = [phase for phase in run.phases if phase.kind == "busy" and phase.inferences]
        inferences = sum(phase.inferences for phase in busy)
        seconds = _seconds(busy) / inferences
        net_watts = self.watts_per_utilisation * run.cpu_utilisation
        watts = self.idle_watts + net_watts
        margin = t_quantile(self.freedom) * self.residual_watts
        net_margin = margin * 2**0.5
        return Energy(
            source=SOURCE,
            scope=self.scope,
            kind="estimated",
            gross_joules=watts * seconds,
            gross_interval_joules=_around(watts, margin, seconds),
            net_joules=net_watts * seconds,
            net_interval_joules=_around(net_watts, net_margin, seconds),
            power_watts=watts,
            idle_watts=self.idle_watts,
            windows=len(busy),
            inferences=inferences,
            readings=0,
            reading_hertz=0.0,
            lag_seconds=0.0,
            warnings=("estimated from CPU utilisation, not measured",),
        )

    def _refuse(self, run: EnergyRun, *, throttled: bool) -> None:
        if throttled:
            raise EstimateError(
                "the CPU was throttled, so its utilisation says little of its power"
            )
        if not any(phase.kind == "busy" and phase.inferences for phase in run.phases):
            raise EstimateError("no inference was counted in the energy run; measure again")
        if not 0 < run.cpu_utilisation <= min(1.0, _BEYOND * self.max_utilisation):
            raise EstimateError(
                f"the CPU was in use to {run.cpu_utilisation:.0%}, and the model knows up to "
                f"{self.max_utilisation:.0%}: measure with as many threads with a meter first"
            )


def _seconds(phases: Sequence[Phase]) -> float:
    return sum(p.ended_monotonic_seconds - p.started_monotonic_seconds for p in phases)


def _around(watts: float, margin: float, seconds: float) -> tuple[float, float]:
    return max(watts - margin, 0.0) * seconds, (watts + margin) * seconds
