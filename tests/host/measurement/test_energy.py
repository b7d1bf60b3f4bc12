from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host.measurement.energy import energies_of

# The made-up device takes 2 W idle and 5 W busy and makes 100 inferences a second.
GROSS, NET = 0.05, 0.03


@pytest.fixture
def energy_of(make_energy_run):
    """The only figure, or else the reason for which there is none."""

    def only(series, phases, **run):
        energies, reason = energies_of(make_energy_run([series], phases, **run))
        return energies[0] if energies else reason

    return only


@pytest.mark.parametrize("lag", [0.0, 0.37, 1.5, 4.2])
@pytest.mark.parametrize(("counter", "hertz"), [(True, 20.0), (False, 10.0), (False, 4.0)])
def test_the_figure_and_the_lag_are_found(energy_of, make_phases, make_series, lag, counter, hertz):
    phases = make_phases(paced=5.0)

    energy = energy_of(make_series(phases, counter=counter, hertz=hertz, lag=lag), phases)

    assert energy.gross_joules == pytest.approx(GROSS, rel=0.01)
    assert energy.net_joules == pytest.approx(NET, rel=0.01)
    assert energy.power_watts == pytest.approx(5.0, rel=0.01)
    assert energy.idle_watts == pytest.approx(2.0, rel=0.01)
    # Readings every 1/hertz: an edge falls anywhere between two of them.
    assert energy.lag_seconds == pytest.approx(lag, abs=0.02 + 0.5 / hertz)
    assert energy.paced_hertz == pytest.approx(5.0)
    assert energy.paced_power_watts == pytest.approx(2.5, rel=0.01)
    assert energy.paced_gross_joules == pytest.approx(0.5, rel=0.01)
    assert (energy.windows, energy.inferences) == (5, 5000)
    assert energy.reading_hertz == pytest.approx(hertz, rel=0.01)


def test_a_counter_on_the_same_clock_has_no_lag(energy_of, make_phases, make_series):
    phases = make_phases()

    energy = energy_of(make_series(phases, counter=True, hertz=50.0), phases)

    assert energy.lag_seconds == pytest.approx(0, abs=0.01)
    assert energy.warnings == ()


def test_noise_is_in_the_intervals(energy_of, make_phases, make_series, rng):
    phases = make_phases()

    energy = energy_of(make_series(phases, noise=0.5, rng=rng), phases)

    low, high = energy.net_interval_joules
    assert low < NET < high
    assert high - low < 0.1 * NET
    assert energy.gross_interval_joules[0] < GROSS < energy.gross_interval_joules[1]


def test_a_run_without_inferences_has_no_energy(energy_of, make_phases, make_series):
    phases = make_phases(windows=0)

    assert "no inference" in energy_of(make_series(phases), phases)


def test_a_run_without_sources_says_what_to_do(make_energy_run, make_phases):
    energies, reason = energies_of(make_energy_run([], make_phases()))

    assert energies == ()
    assert "bind a meter" in reason


def test_without_a_paced_window_there_are_no_paced_figures(energy_of, make_phases, make_series):
    energy = energy_of(make_series(phases := make_phases()), phases)

    assert energy.paced_hertz is energy.paced_gross_joules is energy.paced_power_watts is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"broken_because": "permission denied"}, "ina226: permission denied"),
        ({"power_watts": (), "energy_joules": ()}, "0 readings"),
        ({"max_watts": 3.0}, "value of the shunt"),
    ],
)
def test_a_broken_source_says_why(energy_of, make_phases, make_series, changes, reason):
    phases = make_phases()

    assert reason in energy_of(replace(make_series(phases), **changes), phases)


def test_a_counter_in_the_wrong_unit_is_found(energy_of, make_phases, make_series):
    phases = make_phases()

    reason = energy_of(
        make_series(phases, counter=True, busy=10_000, idle=4_000, source="rapl"), phases
    )

    assert "its unit is wrong" in reason


def test_a_shunt_off_by_ten_is_found_by_the_greatest_possible_power(
    energy_of, make_phases, make_series
):
    phases = make_phases()

    assert "shunt" in energy_of(make_series(phases, idle=20, busy=50, max_watts=15), phases)


def test_a_counter_that_goes_backwards_has_no_figure(energy_of, make_phases, make_series):
    series = make_series(phases := make_phases(), counter=True)
    joules = list(series.energy_joules)
    joules[500:] = [x - 200.0 for x in joules[500:]]

    assert "backwards" in energy_of(replace(series, energy_joules=tuple(joules)), phases)


def test_a_counter_that_stands_still_has_no_figure(energy_of, make_phases, make_series):
    series = make_series(phases := make_phases(), counter=True)
    stuck = replace(series, energy_joules=(17.0,) * len(series.energy_joules))

    assert "stood still" in energy_of(stuck, phases)


@pytest.mark.parametrize("busy", [2.0, 1.0])
def test_a_source_that_does_not_follow_the_load_has_no_figure(
    energy_of, make_phases, make_series, rng, busy
):
    phases = make_phases()

    reason = energy_of(make_series(phases, busy=busy, noise=0.3, rng=rng), phases)

    assert "follow the load" in reason or "not measure this device" in reason


def test_readings_that_are_not_numbers_have_no_figure(energy_of, make_phases, make_series):
    series = make_series(phases := make_phases())
    broken = (float("nan"), *series.power_watts[1:])

    assert "not numbers" in energy_of(replace(series, power_watts=broken), phases)


def test_a_plug_below_its_range_has_no_figure(energy_of, make_phases, make_series):
    phases = make_phases(seconds=40.0)

    small = energy_of(make_series(phases, source="tasmota plug", scope="wall", hertz=1.0), phases)
    zero = energy_of(make_series(phases, idle=0.0, busy=4.0, hertz=1.0), phases)
    large = energy_of(
        make_series(phases, source="tasmota plug", idle=20.0, busy=45.0, hertz=1.0), phases
    )

    assert "of no use below 6 W" in small
    assert "0 W" in zero
    assert large.gross_joules == pytest.approx(0.45, rel=0.02)


def test_spikes_of_a_plug_are_filtered(energy_of, make_phases, make_series):
    phases = make_phases(seconds=40.0)
    series = make_series(phases, idle=20.0, busy=45.0, hertz=2.0, max_watts=3000.0)
    spiked = [10_000.0 if i % 97 == 5 else w for i, w in enumerate(series.power_watts)]

    energy = energy_of(replace(series, power_watts=tuple(spiked)), phases)

    assert energy.gross_joules == pytest.approx(0.45, rel=0.01)


def test_a_coarse_meter_widens_its_interval_and_says_so(energy_of, make_phases, make_series):
    phases = make_phases(seconds=40.0)

    energy = energy_of(make_series(phases, idle=20.0, busy=40.0, hertz=1.0), phases)
    coarse = replace(make_series(phases, idle=20.0, busy=40.0, hertz=1.0))
    steps = tuple(10.0 * round(w / 10) for w in coarse.power_watts)
    coarse = energy_of(replace(coarse, power_watts=steps), phases)

    low, high = coarse.gross_interval_joules
    assert high - low >= 0.04  # half of 2 W (the step pattern reads 4 W above busy) and more
    assert any("steps of" in warning for warning in coarse.warnings)
    assert any("steps of" in warning for warning in energy.warnings)


def test_the_step_that_a_meter_declares_widens_the_interval_however_many_levels_it_shows(
    energy_of, make_phases, make_series, rng
):
    phases = make_phases()
    series = make_series(phases, noise=0.5, rng=rng)

    fine = energy_of(series, phases)
    coarse = energy_of(replace(series, resolution_watts=10.0), phases)

    width = [e.gross_interval_joules[1] - e.gross_interval_joules[0] for e in (fine, coarse)]
    assert width[1] > 2 * width[0]


def test_rare_readings_are_told(energy_of, make_phases, make_series):
    phases = make_phases()

    energy = energy_of(make_series(phases, hertz=1.0, idle=20.0, busy=40.0), phases)

    assert any("readings" in w and "30 are wanted" in w for w in energy.warnings)


def test_a_source_too_late_for_its_windows_is_told(energy_of, make_phases, make_series):
    phases = make_phases()

    energy = energy_of(make_series(phases, lag=3.0), phases)

    assert any("late" in warning for warning in energy.warnings)


def test_few_windows_are_told(energy_of, make_phases, make_series):
    phases = make_phases(windows=2)

    assert any("2 windows" in w for w in energy_of(make_series(phases), phases).warnings)


def test_warming_is_told(energy_of, make_phases, make_series):
    phases = make_phases()

    energy = energy_of(make_series(phases), phases, start=40.0, end=48.0)

    assert any("warmed by 8 °C" in warning for warning in energy.warnings)


def test_idle_power_that_moves_is_told(energy_of, make_phases, make_series):
    series = make_series(phases := make_phases())
    rising = [w * (1 + 0.6 * i / len(series.power_watts)) for i, w in enumerate(series.power_watts)]

    energy = energy_of(replace(series, power_watts=tuple(rising)), phases)

    assert any("idle power changed" in warning for warning in energy.warnings)
    assert energy.net_joules == pytest.approx(NET * 1.3, rel=0.1)


def test_windows_in_a_gap_of_the_readings_are_left_out(energy_of, make_phases, make_series):
    series = make_series(phases := make_phases())
    busy = [phase for phase in phases if phase.kind == "busy"][1]
    gap = (busy.started_monotonic_seconds + 2, busy.ended_monotonic_seconds - 1)
    kept = [
        (t, w)
        for t, w in zip(series.monotonic_seconds, series.power_watts, strict=True)
        if not gap[0] < t < gap[1]
    ]
    times, watts = zip(*kept, strict=True)

    energy = energy_of(replace(series, monotonic_seconds=times, power_watts=watts), phases)

    assert energy.windows == 4
    assert energy.gross_joules == pytest.approx(GROSS, rel=0.01)


def test_readings_before_the_run_only_have_no_figure(energy_of, make_phases, make_series):
    series = make_series(phases := make_phases())
    earlier = tuple(t - 10_000 for t in series.monotonic_seconds)

    assert "no readings" in energy_of(replace(series, monotonic_seconds=earlier), phases)


def test_readings_out_of_order_are_sorted(energy_of, make_phases, make_series, rng):
    series = make_series(phases := make_phases())
    order = rng.permutation(len(series.power_watts))
    times = tuple(np.asarray(series.monotonic_seconds)[order].tolist())
    watts = tuple(np.asarray(series.power_watts)[order].tolist())

    shuffled = energy_of(replace(series, monotonic_seconds=times, power_watts=watts), phases)

    assert shuffled == energy_of(series, phases)


def test_measured_comes_before_derived_and_board_before_package(
    make_energy_run, make_phases, make_series
):
    phases = make_phases()
    sources = [
        ("model", "board", "estimated"),
        ("pmic", "board", "derived"),
        ("rapl", "package", "measured"),
        ("plug", "wall", "measured"),
    ]
    every = [make_series(phases, source=n, scope=s, kind=k) for n, s, k in sources]

    energies, reason = energies_of(make_energy_run(every, phases))

    assert [energy.source for energy in energies] == ["plug", "rapl", "pmic", "model"]
    assert reason == ""


def test_a_source_that_failed_beside_another_is_told(make_energy_run, make_phases, make_series):
    phases = make_phases()
    broken = replace(make_series(phases, source="rapl"), broken_because="permission denied")

    energies, reason = energies_of(make_energy_run([broken, make_series(phases)], phases))

    assert reason == ""
    assert energies[0].warnings[-1] == "no figure of rapl: permission denied"


def test_all_reasons_are_told_where_there_is_no_figure(make_energy_run, make_phases, make_series):
    phases = make_phases()
    first = replace(make_series(phases, source="rapl"), broken_because="permission denied")
    second = replace(make_series(phases), broken_because="it was unplugged")

    _, reason = energies_of(make_energy_run([first, second], phases))

    assert reason == "rapl: permission denied; ina226: it was unplugged"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    idle=st.floats(1.0, 40.0),
    net=st.floats(0.5, 60.0),
    lag=st.floats(0.0, 5.0),
    counter=st.booleans(),
)
def test_any_clean_source_gives_the_truth(
    energy_of, make_phases, make_series, idle, net, lag, counter
):
    phases = make_phases(windows=3)
    busy = idle + net

    energy = energy_of(
        make_series(phases, idle=idle, busy=busy, lag=lag, counter=counter, max_watts=200), phases
    )

    assert energy.gross_joules == pytest.approx(busy / 100, rel=0.02)
    assert energy.net_joules == pytest.approx(net / 100, rel=0.02)
    assert energy.lag_seconds == pytest.approx(lag, abs=0.07)
