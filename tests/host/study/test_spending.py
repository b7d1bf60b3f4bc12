"""What a study has spent, over its runs, and where that ended it."""

import pytest

from host.config import BudgetConfig
from host.study.spending import Spending


@pytest.fixture
def clock(clock):
    """Begins anywhere but at zero."""
    clock.seconds = 100.0
    return clock


@pytest.fixture
def study(store):
    return store.studies.create("stripes", "{}", 0)


def spending(store, study, clock, device_seconds=0.0, **budget):
    return Spending(store, study.id, BudgetConfig(**budget), lambda: device_seconds, clock)


def test_time_goes_on_where_it_stopped(store, study, clock):
    first = spending(store, study, clock)
    clock.seconds += 40
    first.save()
    clock.seconds += 1000

    second = spending(store, study, clock)
    clock.seconds += 2

    assert second.seconds == pytest.approx(42)


def test_half_of_the_time_is_for_the_search(store, study, clock):
    found = spending(store, study, clock, minutes=10.0)
    clock.seconds += 299
    before = found.search_seconds_are_spent()
    clock.seconds += 1

    assert not before
    assert found.search_seconds_are_spent()
    assert found.seconds_left() == pytest.approx(300)


def test_without_a_budget_nothing_is_ever_spent(store, study, clock):
    found = spending(store, study, clock, device_seconds=1e9)
    clock.seconds += 1e9

    assert not found.search_seconds_are_spent()
    assert not found.device_seconds_are_spent()
    assert found.seconds_left() is None


def test_an_end_stays_at_its_step_when_the_study_goes_on(store, study, clock):
    first = spending(store, study, clock)
    ends = [first.end("search", step, lambda step=step: step >= 3) for step in range(5)]
    second = spending(store, study, clock)

    assert ends == [False, False, False, True, True]
    assert [second.end("search", step, lambda: False) for step in range(5)] == ends
    assert not second.end("measuring", 9, lambda: False)


def test_device_minutes_are_those_of_all_devices(store, study, clock):
    assert not spending(
        store, study, clock, device_seconds=119, device_minutes=2.0
    ).device_seconds_are_spent()
    assert spending(
        store, study, clock, device_seconds=120, device_minutes=2.0
    ).device_seconds_are_spent()


def test_epochs_are_counted_over_all_runs(store, study, clock):
    for _ in range(2):
        found = spending(store, study, clock)
        found.note_epoch()

    assert spending(store, study, clock).epochs == 2
