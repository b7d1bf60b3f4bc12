"""What a study's report computes before it is a page: choices, costs, comparisons."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from host.report.study import Usage
from host.report.study_agreement import compared
from host.report.study_answer import recommended, standings
from host.report.study_cost import JOULES_PER_KWH, yearly_cost
from host.report.study_front import coverage
from host.report.study_toml import toml_text
from host.study.finalist import TrialsReport
from host.study.front import LimitLine, value_on


def test_what_is_recommended_is_within_limits_before_it_is_good(make):
    better = make.finalist(["panel"], 1)
    beyond = [choice.model_copy(update={"within_limits": False}) for choice in better.choices]
    forms = [form.model_copy(update={"validation_quality": 0.999}) for form in better.forms]
    better = better.model_copy(update={"choices": beyond, "forms": forms})
    worse = make.finalist(["panel"], 0)

    pick = recommended([better, worse], make.profile("panel"))

    assert pick is not None
    assert pick.finalist.key == worse.key
    assert pick.number == 2
    alone = recommended([better], make.profile("panel"))
    assert alone is not None
    assert not alone.choice.within_limits


def test_a_limit_is_held_against_the_figure_that_was_measured(make):
    limits = make.front(["panel"]).limits
    p90 = LimitLine(quantity="latency_p90_seconds", device="panel", maximum=0.01, text="")
    elsewhere = LimitLine(quantity="latency_seconds", device="kiosk", maximum=1e-9, text="")
    power = LimitLine(quantity="power_watts", device="panel", maximum=100.0, text="")
    row = make.on_device("panel", 0.0123, joules=0.1)
    form = make.form("onnx-fp32", [row])

    found = [one.within for one in standings([*limits, p90, elsewhere, power], form, row)]

    assert found == [True, True, False, None]  # file, median, p90; power at the rate is not known


def test_the_tightest_of_two_limits_on_the_latency_counts(make):
    limits = [
        LimitLine(quantity="latency_seconds", device="panel", maximum=maximum, text="")
        for maximum in (0.03, 0.02, 0.04)
    ]
    front = make.front(["panel"], limits=limits)

    assert front.latency_limit_seconds("panel") == 0.02
    assert front.latency_limit_seconds("kiosk") is None


def test_a_median_whose_interval_straddles_its_limit_is_beyond_it_as_the_gate_says(make):
    row = make.on_device("panel", 0.0100)  # up to 10.2 ms
    limit = LimitLine(quantity="latency_seconds", device="panel", maximum=0.0101, text="")

    (found,) = standings([limit], make.form("onnx-fp32", [row]), row)

    assert found.within is False
    assert found.value == value_on(row, "latency_seconds") == row.latency_high_seconds


def test_a_quantity_that_is_not_known_here_is_neither_within_nor_beyond_its_limit(make):
    row = make.on_device("panel")
    limit = LimitLine(quantity="noise_decibels", device="panel", maximum=40, text="")

    (found,) = standings([limit], make.form("onnx-fp32", [row]), row)

    assert found.within is None


@given(
    joules=st.floats(1e-6, 1e3),
    inferences=st.floats(1.0, 1e10),
    price=st.floats(0.01, 1e4),
    factor=st.integers(2, 9),
)
def test_a_year_costs_energy_times_count_times_price(make, joules, inferences, price, factor):
    row = make.on_device(joules=joules)

    once = yearly_cost(row, Usage(inferences, price_per_kwh=price, currency="JPY"))
    more = yearly_cost(row, Usage(factor * inferences, price_per_kwh=price, currency="JPY"))

    assert once.energy_kwh is not None
    assert once.money is not None
    assert once.energy_kwh * JOULES_PER_KWH == pytest.approx(joules * inferences)
    assert once.money == pytest.approx(joules * inferences * price / 3.6e6)
    assert more.money == pytest.approx(factor * once.money)
    assert once.duty is None


@given(rate=st.floats(1e-3, 1e3), hours=st.floats(1.0, 8784.0), latency=st.floats(1e-5, 10.0))
def test_a_rate_gives_the_count_and_says_whether_the_device_keeps_up(make, rate, hours, latency):
    usage = Usage.at_rate(rate, hours)

    cost = yearly_cost(make.on_device(latency=latency, joules=None), usage)

    assert cost.inferences == pytest.approx(rate * hours * 3600)
    assert cost.duty == pytest.approx(rate * latency)
    assert cost.keeps_up == (cost.duty is not None and cost.duty <= 1)
    assert cost.energy_kwh is None
    assert cost.money is None


def test_scores_are_compared_with_quality_after_the_same_epochs_only(make):
    trials = make.trials(4)
    early = trials.trials[3].model_copy(update={"rounds": [(1, 0.5)]})
    mixed = TrialsReport(trials=[*trials.trials[:3], early], agreement=None)

    assert [quality for _, quality in compared(trials)] == pytest.approx([0.95, 0.944, 0.938, 0.92])
    assert compared(mixed) == []


def test_the_share_of_predictions_that_held_is_counted(make):
    row = make.row(0, ["panel"])
    told = row.devices[0].predicted_latency_seconds
    missed = row.devices[0].model_copy(update={"latency_seconds": told.high * 1.01})
    open_ended = told.model_copy(update={"high": None})
    unbounded = missed.model_copy(update={"predicted_latency_seconds": open_ended})
    rows = [
        row,
        row.model_copy(update={"devices": [missed]}),
        row.model_copy(update={"devices": [unbounded]}),
        make.row(1, ["panel"]),  # measured to calibrate
    ]

    assert coverage(make.front(["panel"], rows=rows)) == (2, 3, 0.9)
    assert coverage(make.front(["panel"], rows=[make.row(1, ["panel"])])) is None


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.none()
        | st.booleans()
        | st.integers(-(2**40), 2**40)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.lists(st.integers(0, 9) | st.text(max_size=3), max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=5), st.text() | st.integers(0, 9))
        | st.lists(
            st.dictionaries(
                st.text(min_size=1, max_size=5),
                st.integers(0, 9) | st.dictionaries(st.text(max_size=3), st.text()),
            ),
            min_size=1,
            max_size=3,
        ),
        max_size=5,
    )
)
def test_the_configuration_is_toml_that_reads_back(config):
    assert tomllib.loads(toml_text(config)) == {
        key: value for key, value in config.items() if value is not None
    }


def test_counts_of_data_fit_the_classes(make):
    with pytest.raises(ValidationError, match="a count for each class"):
        make.data(classes=["good", "bad", "ugly"])
