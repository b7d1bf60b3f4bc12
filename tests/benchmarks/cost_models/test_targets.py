"""Which targets count as missed."""

from dataclasses import replace

from benchmarks.cost_models.protocols import HELP_DEVICES, Figures, HelpFigures
from benchmarks.cost_models.speed import Speed
from benchmarks.cost_models.targets import Check

GOOD = Figures(
    column="device",
    n=100,
    seeds=1,
    test_cells=10,
    rho=0.99,
    mape=0.02,
    within_5_percent=0.9,
    within_10_percent=1.0,
    coverage=0.9,
    width=0.1,
    fit_seconds=0.1,
    kinds=("eager",),
)
RHOS = dict.fromkeys(HELP_DEVICES, 0.98)
REACHED = Check(HelpFigures(10, RHOS, RHOS), GOOD, GOOD, (GOOD, GOOD), Speed(30_000.0, 0.1))


def test_nothing_is_missed_where_every_target_is_reached() -> None:
    assert REACHED.missed == []
    assert REACHED.as_json()["devices_covering"] == 2


def test_each_figure_below_its_target_is_named() -> None:
    low = replace(GOOD, rho=0.9)
    none = replace(GOOD, rho=None)
    poor = dict.fromkeys(HELP_DEVICES, 0.9)

    found = Check(HelpFigures(10, poor, poor), low, none, (GOOD,), Speed(100.0, 2.0))

    assert found.missed == [
        "HELP N=10 all >= 0.975",
        "HELP N=10 trimmed >= 0.96",
        "raspi4 N=20 >= 0.95",
        "edgegpu N=100 >= 0.975",
        ">= 20,000 predictions a second",
        "fit at N=100 <= 1 s",
    ]


def test_intervals_that_hold_too_few_or_too_many_are_astray() -> None:
    few, many = replace(GOOD, coverage=0.87), replace(GOOD, coverage=0.94)

    found = replace(REACHED, coverage=(GOOD, few, many))

    assert found.astray == [few, many]
    assert found.missed == ["coverage 88-93 % on every device"]


def test_a_device_that_is_predicted_exactly_is_counted_apart() -> None:
    exact = replace(GOOD, width=1e-6, coverage=0.98)

    found = replace(REACHED, coverage=(GOOD, exact))

    assert (found.covering, found.exact, found.astray) == ([GOOD], [exact], [])
    assert found.missed == []
