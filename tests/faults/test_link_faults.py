"""A network that cuts, starves, delays and says nothing."""

import time

import pytest

from tests.faults.plant import wait_until
from tests.faults.quick_agent import KEEPALIVE_SECONDS
from tests.faults.quick_gateway import LEASE_SECONDS

HOLD_SECONDS = 0.5
MIB = 1 << 20


def begin_to_measure(plant, panel, hold_seconds=HOLD_SECONDS):
    (job,) = plant.ask(panel.device, hold_seconds=hold_seconds)
    wait_until(panel.workers, "the worker")
    return job


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_pull_that_is_cut_in_the_middle_of_a_message_goes_on_there(plant, panel, share):
    size_bytes = 2 * MIB
    before = panel.link.down.carried_bytes
    panel.link.cut_after(panel.link.down, int(share * size_bytes))

    job, *_ = plant.ask(panel.device, size_bytes=size_bytes)

    plant.measured([job])
    # Some chunks may have been on their way when it was cut.
    assert panel.link.down.carried_bytes - before < 1.6 * size_bytes
    assert plant.attempts(job) == 1


def test_a_link_cut_while_a_device_measures_costs_nothing(plant, panel):
    measured = panel.measured()
    job = begin_to_measure(plant, panel)

    panel.link.cut()

    plant.measured([job])
    assert panel.measured() == measured + 1
    assert plant.attempts(job) == 1


def test_a_link_that_ends_in_good_order_is_made_anew(plant, panel):
    job = begin_to_measure(plant, panel)

    panel.link.close()
    (after,) = plant.ask(panel.device)

    plant.measured([job, after])
    assert plant.attempts(job) == 1


@pytest.mark.parametrize("size_bytes", [1, 40, 400])
def test_a_report_that_is_truncated_is_sent_again_and_kept_once(plant, panel, size_bytes):
    measured = panel.measured()
    job = begin_to_measure(plant, panel, hold_seconds=0.3)

    panel.link.truncate_report(size_bytes)

    plant.measured([job])
    assert panel.measured() == measured + 1
    assert plant.attempts(job) == 1


def test_a_link_that_cannot_be_made_for_seconds_only_delays(plant, panel):
    job = begin_to_measure(plant, panel)
    (after,) = plant.ask(panel.device)

    panel.link.refuse()
    wait_until(panel.letters, "the outcome in the outbox")
    time.sleep(1.0)
    assert plant.outcomes([job, after]) == [None, None]
    panel.link.heal()

    plant.measured([job, after])
    assert plant.attempts(job) == 1


def test_a_report_whose_answer_does_not_come_is_kept_once(plant, panel):
    measured = panel.measured()
    job = begin_to_measure(plant, panel)

    panel.link.lose_answer()
    plant.wait_for([job])
    assert panel.letters() == 1
    panel.link.cut()
    panel.link.heal()

    plant.measured([job])
    assert panel.measured() == measured + 1


def test_a_half_open_link_that_comes_back_goes_on_as_if_nothing_had_been(plant, panel):
    connections = panel.link.connections
    job = begin_to_measure(plant, panel)

    panel.link.hold()
    time.sleep(0.5 * KEEPALIVE_SECONDS)
    panel.link.heal()

    plant.measured([job])
    assert panel.link.connections == connections


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_link_that_is_half_open_for_longer_than_keepalive_is_given_up(plant, panel, direction):
    lanes = {"up": [panel.link.up], "down": [panel.link.down], "both": []}[direction]
    job = begin_to_measure(plant, panel)

    given_up = panel.said("the host cannot be reached")
    panel.link.hold(*lanes)
    wait_until(lambda: panel.said("the host cannot be reached") > given_up, "a complaint", 12.0)
    panel.link.cut()
    panel.link.heal()

    plant.measured([job])
    assert plant.attempts(job) == 1


def test_an_idle_half_open_link_is_noticed_before_anybody_needs_it(plant, panel):
    plant.measured(plant.ask(panel.device))
    connections = panel.link.connections
    held = time.monotonic()

    panel.link.hold()
    wait_until(lambda: panel.link.connections > connections, "another connection", 12.0)
    took = time.monotonic() - held
    panel.link.cut()
    panel.link.heal()

    plant.measured(plant.ask(panel.device))
    assert took < 4 * KEEPALIVE_SECONDS + 2.0


def test_an_outage_longer_than_the_lease_loses_nothing(plant, panel):
    measured = panel.measured()
    job = begin_to_measure(plant, panel)

    panel.link.refuse()
    wait_until(panel.letters, "the outcome in the outbox")
    time.sleep(LEASE_SECONDS + 0.5)
    panel.link.heal()

    plant.measured([job])
    assert panel.measured() == measured + 1


def test_a_pull_longer_than_the_lease_keeps_it_by_renewing(plant, panel):
    size_bytes = MIB
    panel.link.slow(bytes_per_second=size_bytes / (1.5 * LEASE_SECONDS))

    (job,) = plant.ask(panel.device, size_bytes=size_bytes)

    plant.measured([job])
    assert plant.attempts(job) == 1


def test_a_link_with_long_and_changing_delays_only_takes_longer(plant, panel):
    panel.link.slow(delay_seconds=0.1)

    jobs = plant.ask(panel.device, 2)

    plant.measured(jobs)
    assert [plant.attempts(job) for job in jobs] == [1, 1]


@pytest.mark.parametrize("size_bytes", [1, 300])
def test_a_lease_that_is_lost_on_its_way_is_given_again(plant, panel, size_bytes):
    plant.measured(plant.ask(panel.device))

    panel.link.truncate_lease(size_bytes)
    jobs = plant.ask(panel.device, 2)

    plant.measured(jobs)
    assert [plant.attempts(job) for job in jobs] == [1, 1]


def test_a_cancel_reaches_a_device_that_measures(plant, panel):
    job = begin_to_measure(plant, panel, hold_seconds=20.0)
    (after,) = plant.ask(panel.device)

    plant.store.jobs.cancel([job.id])

    plant.measured([after])
    assert plant.outcomes([job]) == [None]
    assert plant.store.jobs.get(job.id).state == "cancelled"


def test_a_cancel_during_an_outage_takes_effect_when_the_link_is_back(plant, panel):
    job = begin_to_measure(plant, panel, hold_seconds=20.0)
    (after,) = plant.ask(panel.device)

    panel.link.refuse()
    plant.store.jobs.cancel([job.id])
    time.sleep(0.5)
    panel.link.heal()

    plant.measured([after])
    assert plant.store.jobs.get(job.id).state == "cancelled"
