"""Faults that hit many devices at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.plant import Simulated

DEVICES = 50


@pytest.fixture(scope="module")
def crew(whole_plant):
    """Devices, each with the credentials of its agent."""
    return [whole_plant.device(f"crew-{number:02}") for number in range(DEVICES)]


@pytest.fixture
def agents(plant, crew):
    """An agent of each of them, with an open session and a lease."""
    made = [Simulated(device, credentials, plant.port) for device, credentials in crew]
    yield made
    for agent in made:
        agent.close()


def each(agents, act):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(act, agents))


def claimed(plant, agents):
    """A job for each, and the leases of all of them."""
    jobs = [plant.ask(agent.device)[0] for agent in agents]
    each(agents, Simulated.hello)
    return jobs, each(agents, Simulated.claim)


def reported(agents, leases):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(Simulated.report, agents, leases))


def test_a_gateway_killed_with_fifty_leases_out_gets_fifty_outcomes(plant, agents):
    jobs, leases = claimed(plant, agents)

    plant.restart_gateway()

    assert reported(agents, leases) == [True] * DEVICES
    plant.measured(jobs)
    assert {plant.attempts(job) for job in jobs} == {1}


def test_a_gateway_that_drains_with_fifty_leases_out_gets_fifty_outcomes(plant, agents, gateway):
    jobs, leases = claimed(plant, agents)

    assert gateway.stop() == 0
    plant.start_gateway()

    assert reported(agents, leases) == [True] * DEVICES
    plant.measured(jobs)


def test_fifty_devices_that_lose_power_together_measure_everything_anew_and_once(plant, crew):
    first = [Simulated(device, credentials, plant.port) for device, credentials in crew]
    jobs, lost = claimed(plant, first)
    for agent in first:
        agent.close()

    second = [Simulated(device, credentials, plant.port) for device, credentials in crew]
    each(second, Simulated.hello)
    leases = each(second, Simulated.claim)

    assert {lease.attempt for lease in leases} == {2}
    assert [lease.job_id for lease in leases] == [lease.job_id for lease in lost]
    assert reported(second, leases) == [True] * DEVICES
    plant.measured(jobs)
    for agent in second:
        agent.close()
