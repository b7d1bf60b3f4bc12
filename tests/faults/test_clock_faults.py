"""Clocks that are set: on the host, and on a device without a battery for its own."""

import subprocess
from datetime import UTC, datetime

import pytest

from tests.faults.plant import HERE, wait_until

DAY_SECONDS = 86_400
# An hour after the clock of a board without battery begins.
TO_1970_SECONDS = 3600 - int(datetime.now(UTC).timestamp())
TO_2099_SECONDS = 73 * 365 * DAY_SECONDS


@pytest.mark.parametrize("days", [-400, 400])
def test_a_host_whose_clock_jumps_while_a_device_measures_counts_it_once(plant, panel, days):
    measured = panel.measured()
    jobs = plant.ask(panel.device, 2, hold_seconds=0.5)
    wait_until(panel.workers, "the worker")

    (plant.workspace.root / "clock-offset").write_text(str(days * DAY_SECONDS))

    plant.measured(jobs)
    assert panel.measured() == measured + 2


def test_a_host_whose_clock_went_back_gives_the_work_of_a_dead_agent_out_again(plant, panel):
    (job,) = plant.ask(panel.device, hold_seconds=0.5)
    wait_until(panel.workers, "the worker")

    (plant.workspace.root / "clock-offset").write_text(str(-400 * DAY_SECONDS))
    panel.restart()

    plant.measured([job])


def test_a_lease_that_was_lost_on_its_way_before_the_clock_went_back_is_given_again(plant, panel):
    plant.measured(plant.ask(panel.device))
    offset = plant.workspace.root / "clock-offset"
    offset.write_text(str(DAY_SECONDS))
    panel.link.truncate_lease(1)
    (job,) = plant.ask(panel.device)
    plant.wait_for_claim(job)

    offset.write_text("0")

    plant.measured([job])
    assert plant.attempts(job) == 1


def test_a_host_whose_clock_went_forth_does_not_shut_a_device_out(plant, panel):
    (plant.workspace.root / "clock-offset").write_text(str(TO_2099_SECONDS))
    panel.restart()
    plant.restart_gateway()

    plant.measured(plant.ask(panel.device))


@pytest.fixture(scope="session")
def shifted_clock(tmp_path_factory):
    """A library that shifts the wall clock of the process that loads it."""
    library = tmp_path_factory.mktemp("clock") / "shifted_clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "shifted_clock.c"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no clock can be made up here: {error}")
    return library


@pytest.fixture
def set_clock(plant, panel, shifted_clock, tmp_path):
    """Sets the wall clock of the device, as often as wanted; its agent runs with it from then."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    panel.kill()
    panel.start(LD_PRELOAD=str(shifted_clock), SHIFTED_CLOCK=str(offset))
    yield lambda seconds: offset.write_text(str(seconds))
    panel.kill()


@pytest.mark.parametrize(
    "seconds", [TO_1970_SECONDS, TO_2099_SECONDS, -90], ids=["1970", "2099", "back"]
)
def test_a_device_whose_clock_jumps_while_it_measures_counts_once(plant, panel, set_clock, seconds):
    measured = panel.measured()
    jobs = plant.ask(panel.device, 2, hold_seconds=0.4)
    wait_until(panel.workers, "the worker")

    set_clock(seconds)
    plant.wait_for(jobs[:1])
    panel.link.cut()  # the next handshake sees the new time

    plant.measured([*jobs, *plant.ask(panel.device)])
    assert panel.measured() == measured + 3
