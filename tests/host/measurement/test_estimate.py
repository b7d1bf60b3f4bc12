from dataclasses import replace

import pytest

from host.measurement import Thermal
from host.measurement.estimate import EstimateError, PowerRecord, UtilisationModel, records_of

# A board that takes 2 W idle and 12 W more with all cores in use.
RECORDS = tuple(
    PowerRecord("board", 2.0 + off, 2.0 + 12.0 * u + off, u)
    for u, off in ((0.25, 0.1), (0.5, -0.1), (1.0, 0.0), (0.25, 0.05))
)


def test_energy_is_estimated_with_the_residual_as_interval(make_energy_run, make_phases):
    model = UtilisationModel.fit(RECORDS)

    energy = model.estimate(make_energy_run([], make_phases()))

    assert energy.kind == "estimated"
    assert energy.power_watts == pytest.approx(5.0, rel=0.02)
    assert energy.gross_joules == pytest.approx(0.05, rel=0.02)
    assert energy.net_joules == pytest.approx(0.03, rel=0.02)
    low, high = energy.gross_interval_joules
    assert low < 0.05 < high
    assert high - low < 0.01
    assert energy.net_interval_joules[0] < energy.net_joules < energy.net_interval_joules[1]
    assert (energy.windows, energy.inferences, energy.readings) == (5, 5000, 0)
    assert energy.warnings == ("estimated from CPU utilisation, not measured",)


def test_less_than_three_records_of_one_scope_are_refused():
    with pytest.raises(EstimateError, match="2 energy measurements are too few"):
        UtilisationModel.fit([*RECORDS[:2], replace(RECORDS[2], scope="wall")])
    with pytest.raises(EstimateError, match="0 energy measurements"):
        UtilisationModel.fit([])


def test_the_scope_with_most_records_is_taken():
    model = UtilisationModel.fit([*(replace(r, scope="wall") for r in RECORDS[:3]), RECORDS[3]])

    assert model.scope == "wall"


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([PowerRecord("board", 5.0, 5.0, 0.25)] * 3, "does not grow"),
        ([PowerRecord("board", 2.0, 5.0, 0.0)] * 3, "no CPU utilisation"),
    ],
)
def test_records_that_say_nothing_about_load_are_refused(records, message):
    with pytest.raises(EstimateError, match=message):
        UtilisationModel.fit(records)


def test_a_throttled_run_is_refused(make_energy_run, make_phases):
    model = UtilisationModel.fit(RECORDS)

    with pytest.raises(EstimateError, match="throttled"):
        model.estimate(make_energy_run([], make_phases()), throttled=True)


def test_a_run_without_inferences_is_refused(make_energy_run, make_phases):
    model = UtilisationModel.fit(RECORDS)

    with pytest.raises(EstimateError, match="no inference"):
        model.estimate(make_energy_run([], make_phases(windows=0)))


@pytest.mark.parametrize("utilisation", [0.0, 0.9])
def test_utilisation_that_was_never_measured_is_refused(make_energy_run, make_phases, utilisation):
    model = UtilisationModel.fit([r for r in RECORDS if r.cpu_utilisation <= 0.5])
    run = replace(make_energy_run([], make_phases()), cpu_utilisation=utilisation)

    with pytest.raises(EstimateError, match="the model knows up to 50%"):
        model.estimate(run)


def test_records_come_from_measured_energies_of_unthrottled_runs(
    make_measurement, make_process, make_energy_run, make_phases, make_energy, rng
):
    base = make_measurement([make_process(rng)])
    with_run = replace(base, energy_run=make_energy_run([], make_phases()))
    measured = replace(with_run, energies=(make_energy(), make_energy(kind="derived")))
    throttled = replace(measured, thermal=Thermal(throttle_events=1))

    records = records_of([base, with_run, measured, throttled])

    assert records == (PowerRecord("board", 2.0, 5.0, 0.25),)
