"""Which source of power a device's energy models are fitted on: one for all networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.energy import EnergyModel, PowerModel
from host.calibration.calibration import MIN_ROWS, Calibration, Row
from host.errors import GenbaError
from host.measurement import Energy
from host.measurement.samples import NumberKind, Scope

_ENOUGH = 0.8
"""Share of the networks that a source must have a figure of."""
_KINDS: tuple[NumberKind, ...] = ("measured", "derived")


class NoEnergyError(GenbaError):
    """Nothing measured the power of enough networks."""


@dataclass(frozen=True)
class EnergyFit:
    """Models of power and energy, the source of their numbers, and the networks behind them."""

    source: str
    scope: Scope
    kind: NumberKind
    power: PowerModel
    energy: EnergyModel
    rows: tuple[Row, ...]


def common_source(rows: Sequence[Row]) -> dict[str, Energy]:
    """The figures of one source by the name of the network.

    Two sources see different parts of a device, so a fit may not mix them. Of those that have a
    figure of nearly all networks: measured before derived, board and wall before package, then the
    one of the most networks. Estimates teach nothing. Raises NoEnergyError.
    """
    found: dict[str, dict[str, Energy]] = {}
    for row in rows:
        for energy in row.measurement.energies:
            if energy.kind in _KINDS:
                found.setdefault(energy.source, {})[row.name] = energy
    least = max(MIN_ROWS, _ENOUGH * len(rows))
    enough = {source: figures for source, figures in found.items() if len(figures) >= least}
    if not enough:
        raise NoEnergyError(_why_none(rows, found, least))
    return min(enough.items(), key=_rank)[1]


def _rank(source: tuple[str, dict[str, Energy]]) -> tuple[int, bool, int, str]:
    name, figures = source
    worst = max(_KINDS.index(energy.kind) for energy in figures.values())
    scope = next(iter(figures.values())).scope
    return worst, scope == "package", -len(figures), name


def _why_none(rows: Sequence[Row], found: dict[str, dict[str, Energy]], least: float) -> str:
    if found:
        counts = ", ".join(f"{source} {len(figures)}" for source, figures in found.items())
        return f"no source has a figure of at least {least:.0f} networks: {counts}"
    reasons = dict.fromkeys(
        row.measurement.energy_absent_because for row in rows if not row.measurement.energies
    )
    return "; ".join(filter(None, reasons)) or "its figures are estimates, which teach nothing"


def fit_energy(calibration: Calibration) -> EnergyFit:
    """Models of power and energy above idle on the latency model of a calibration.

    Networks whose power cannot be told from idle are left out. Raises NoEnergyError.
    """
    figures = common_source(calibration.rows)
    usable = {
        name: energy
        for name, energy in figures.items()
        if energy.net_joules > 0 and energy.power_watts > energy.idle_watts
    }
    if len(usable) < MIN_ROWS:
        raise NoEnergyError(
            f"the power of only {len(usable)} networks can be told from idle, {MIN_ROWS} are needed"
        )
    places = [index for index, row in enumerate(calibration.rows) if row.name in usable]
    rows = tuple(calibration.rows[index] for index in places)
    energies = [usable[row.name] for row in rows]
    latency = calibration.latency
    features = latency.measured_rows[places]
    watts = np.array([one.power_watts - one.idle_watts for one in energies])
    # The model may have been fitted on latencies of another state of the device than they were
    # measured in: energy goes with them.
    measured = np.array([row.measurement.latency_seconds for row in rows])
    slower = latency.measured_values[places] / measured
    joules = slower * np.array([one.net_joules for one in energies])
    power = PowerModel(latency, latency.level)
    return EnergyFit(
        source=energies[0].source,
        scope=energies[0].scope,
        kind="derived" if any(one.kind == "derived" for one in energies) else "measured",
        power=power.fit_rows(power.features_of(features), watts),
        energy=EnergyModel(latency, latency.level).fit_latency_rows(features, joules),
        rows=rows,
    )
