"""A study with real processes on both sides, some of which end without warning."""

import sqlite3
from contextlib import closing

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def outcome_of(front):
    return [
        (row["key"], row["score"], [device["latency_seconds"] for device in row["devices"]])
        for row in front["rows"]
    ]


def measurements(plant):
    """The model of every stored measurement, with the purpose that it was made for."""
    with closing(sqlite3.connect(plant.workspace / "genba.db")) as database:
        return database.execute(
            "SELECT jobs.model_sha256, jobs.purpose FROM measurements "
            "JOIN jobs ON jobs.id = measurements.job_id"
        ).fetchall()


def test_power_cuts_on_both_sides_change_neither_the_front_nor_the_count_of_measurements(
    make_plant, power_cut, wait
):
    undisturbed, disturbed = make_plant("undisturbed"), make_plant("disturbed")
    undisturbed.start_agent()
    assert undisturbed.start_search().wait(300) == 0
    undisturbed.stop()

    agent = disturbed.start_agent()
    search = disturbed.start_search()
    wait(lambda: disturbed.measured_by_agent() >= 3, "three measurements")
    power_cut(agent)
    agent = disturbed.start_agent()
    wait(lambda: disturbed.measured_by_agent() >= 6, "six measurements")
    power_cut(search)
    search = disturbed.start_search()
    wait(lambda: disturbed.measured_by_agent() >= 10, "ten measurements")
    power_cut(agent)
    power_cut(search)
    disturbed.start_agent()
    assert disturbed.start_search().wait(300) == 0

    assert outcome_of(disturbed.front()) == outcome_of(undisturbed.front())
    made = measurements(disturbed)
    assert len(made) == len(set(made))
    assert sorted(made, key=str) == sorted(measurements(undisturbed), key=str)


def test_a_study_waits_for_a_device_that_is_offline_and_can_be_stopped(make_plant, wait):
    plant = make_plant("offline")
    log = plant.root / "search.log"

    search = plant.start_search()
    wait(lambda: "waiting for panel: offline" in log.read_text(), "the message")
    search.send_signal(2)

    assert search.wait(30) == 130
    assert "go on with: genba search resume stripes" in log.read_text()
    plant.start_agent()
    resumed = plant.genba("search", "resume", "stripes")
    assert resumed.returncode == 0, resumed.stderr
    assert "Pareto front of stripes" in resumed.stdout
    status = plant.genba("search", "status", "stripes")
    assert status.stdout.startswith("stripes: finished")
