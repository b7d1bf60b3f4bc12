"""Which source of power a fit uses, and what it makes of it."""

from dataclasses import replace

import pytest

from host.calibration.calibration import Calibrator, Wish
from host.calibration.energy import NoEnergyError, common_source, fit_energy
from host.calibration.micrographs import micrographs
from host.calibration.specimens import mobile_candidates


@pytest.fixture
def figure(make_measurement):
    (energy,) = make_measurement("d", "0" * 64).energies
    return energy


def calibrated(made_up):
    return Calibrator(micrographs(), mobile_candidates(5, 0), made_up, Wish(12)).run()


def with_energies(calibration, energies_of):
    rows = tuple(
        replace(row, measurement=replace(row.measurement, energies=energies_of(place, row)))
        for place, row in enumerate(calibration.rows)
    )
    return replace(calibration, rows=rows)


def test_measured_comes_before_derived_and_the_wall_before_the_package(made_up, figure):
    wall = replace(figure, source="shelly", scope="wall", kind="measured")
    derived = replace(figure, source="ina219", scope="board", kind="derived")
    found = with_energies(calibrated(made_up), lambda *_: (derived, figure, wall))

    assert {energy.source for energy in common_source(found.rows).values()} == {"shelly"}


def test_a_source_that_is_missing_for_many_networks_is_not_taken(made_up, figure):
    wall = replace(figure, source="shelly", scope="wall")
    found = with_energies(
        calibrated(made_up), lambda place, _: (figure, wall) if place % 2 else (figure,)
    )

    assert {energy.source for energy in common_source(found.rows).values()} == {"rapl"}


def test_estimates_teach_nothing(made_up, figure):
    estimate = replace(figure, kind="estimated")
    found = with_energies(calibrated(made_up), lambda *_: (estimate,))

    with pytest.raises(NoEnergyError, match="estimates"):
        common_source(found.rows)


def test_a_constant_power_is_found_and_networks_that_cannot_be_told_from_idle_are_left_out(
    made_up, figure
):
    def energies_of(place, row):
        joules = -0.001 if place == 3 else 3.0 * row.measurement.latency_seconds
        return (replace(figure, net_joules=joules, power_watts=5.0, idle_watts=2.0),)

    found = with_energies(calibrated(made_up), energies_of)

    fit = fit_energy(found)

    assert (fit.source, fit.kind, fit.scope) == ("rapl", "measured", "package")
    assert fit.rows == (*found.rows[:3], *found.rows[4:])
    graphs = [graph.kernels for graph in micrographs()[:20]]
    assert [told.value for told in fit.power.predict(graphs)] == pytest.approx([3.0] * 20, rel=0.05)
    seconds = [told.value for told in found.latency.predict(graphs)]
    joules = [told.value for told in fit.energy.predict(graphs)]
    assert joules == pytest.approx([3.0 * value for value in seconds], rel=0.1)


def test_energy_goes_with_latencies_that_were_brought_to_the_newest_state(made_up, figure):
    def energies_of(_, row):
        joules = 3.0 * row.measurement.latency_seconds
        return (replace(figure, net_joules=joules, power_watts=5.0, idle_watts=2.0),)

    def now(measurement):
        return 1.5 * measurement.latency_seconds

    slowed = Calibrator(
        micrographs(), mobile_candidates(5, 0), made_up, Wish(12), latency_of=now
    ).run()
    fit = fit_energy(with_energies(slowed, energies_of))

    measured = [3.0 * 1.5 * row.measurement.latency_seconds for row in fit.rows]
    assert fit.energy.measured_values.tolist() == pytest.approx(measured)
    graphs = [graph.kernels for graph in micrographs()[:20]]
    assert [told.value for told in fit.power.predict(graphs)] == pytest.approx([3.0] * 20, rel=0.05)
