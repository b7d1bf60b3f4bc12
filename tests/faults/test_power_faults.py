"""Processes that end without warning, at the moments at which it matters most."""

from functools import partial

import psutil

from host.measurement import MeasurementFailure
from tests.faults.plant import HERE, wait_until

HOLD_SECONDS = 0.6
MIB = 1 << 20


def begin_to_pull(plant, panel):
    """A job whose model comes so slowly that there is time to act."""
    panel.link.slow(bytes_per_second=1.5 * MIB)
    (job,) = plant.ask(panel.device, size_bytes=2 * MIB)
    wait_until(lambda: any(p.stat().st_size > 0 for p in panel.parts()), "a part of the model")
    return job


def begin_to_measure(plant, panel, **wishes):
    (job,) = plant.ask(panel.device, hold_seconds=HOLD_SECONDS, **wishes)
    wait_until(panel.workers, "the worker")
    return job


def measure_without_a_word(plant, panel):
    """A job that is measured while nothing gets through."""
    job = begin_to_measure(plant, panel)
    panel.link.hold()
    wait_until(panel.letters, "the outcome in the outbox")
    return job


def report_without_an_answer(plant, panel):
    """A job whose outcome the host has, which the device does not know."""
    job = begin_to_measure(plant, panel)
    panel.link.lose_answer()
    plant.wait_for([job])
    assert panel.letters() == 1
    return job


def test_an_agent_killed_while_it_pulls_goes_on_where_it_was(plant, panel):
    job = begin_to_pull(plant, panel)

    panel.kill()
    (part,) = panel.parts()
    there = part.stat().st_size
    panel.link.heal()
    before = panel.link.down.carried_bytes
    panel.start()

    plant.measured([job])
    assert 0 < there < 2 * MIB
    assert panel.link.down.carried_bytes - before < 2 * MIB - there + 300_000


def test_an_agent_killed_while_it_measures_measures_again_and_its_worker_died_with_it(plant, panel):
    job = begin_to_measure(plant, panel)

    panel.kill()
    assert not panel.workers()
    panel.start()

    plant.measured([job])
    assert plant.attempts(job) == 2


def test_an_agent_killed_before_it_reports_reports_in_its_next_life(plant, panel):
    measured = panel.measured()
    job = measure_without_a_word(plant, panel)

    panel.kill()
    panel.link.cut()
    panel.link.heal()
    panel.start()

    plant.measured([job])
    assert panel.measured() == measured + 1
    assert plant.attempts(job) == 1


def test_an_agent_killed_between_its_report_and_the_answer_is_not_counted_twice(plant, panel):
    job = report_without_an_answer(plant, panel)

    panel.kill()
    panel.link.cut()
    panel.link.heal()
    panel.start()

    plant.measured([job])
    wait_until(lambda: panel.said(f"job {job.id}: the host had its result already"), "the remark")


def all_ended(plant, jobs):
    return None not in plant.outcomes(jobs)


def test_an_agent_that_is_killed_over_and_over_still_gets_its_work_done(plant, panel):
    jobs = plant.ask(panel.device, 5)

    for number in range(4):
        first = jobs[: number + 1]
        wait_until(partial(all_ended, plant, first), "an outcome")
        panel.restart()

    plant.measured(jobs)


def test_a_job_that_takes_its_agent_down_each_time_fails_and_the_next_is_measured(plant, panel):
    (bad,) = plant.ask(panel.device, hold_seconds=20.0)
    for _ in range(3):
        wait_until(panel.workers, "the worker")
        panel.restart()
    (good,) = plant.ask(panel.device)

    plant.measured([good])
    (outcome,) = plant.outcomes([bad])
    assert isinstance(outcome, MeasurementFailure)
    assert "3 times" in outcome.message


def test_a_killed_worker_is_an_outcome_and_the_next_job_is_measured(plant, panel):
    job = begin_to_measure(plant, panel)
    (after,) = plant.ask(panel.device)

    for worker in panel.workers():
        worker.kill()

    plant.measured([after])
    (outcome,) = plant.wait_for([job])
    assert isinstance(outcome, MeasurementFailure)
    assert "SIGKILL" in outcome.message
    assert plant.attempts(job) == 1


def test_a_model_that_crashes_its_worker_each_time_fails_once_and_holds_up_nothing(plant, panel):
    bad = plant.ask(panel.device, 2, die=11)
    good = plant.ask(panel.device, 2)

    plant.measured(good)
    for job, outcome in zip(bad, plant.wait_for(bad), strict=True):
        assert isinstance(outcome, MeasurementFailure)
        assert outcome.kind == "worker_crashed"
        assert plant.attempts(job) == 1


def test_a_worker_that_hangs_is_stopped_by_the_clock_and_the_next_job_is_measured(plant, panel):
    spec = plant.spec(plant.model(hold_seconds=600.0))
    hung = plant.store.jobs.submit(
        panel.device.id, type(spec)(spec.run, spec.plan, spec.readiness, timeout_seconds=1.0)
    )
    (after,) = plant.ask(panel.device)

    plant.measured([after])
    (outcome,) = plant.wait_for([hung])
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.kind == "timeout"


def test_a_gateway_killed_while_a_model_is_pulled_goes_on_where_the_pull_was(plant, panel):
    job = begin_to_pull(plant, panel)

    plant.kill_gateway()
    panel.link.heal()
    plant.start_gateway()

    plant.measured([job])
    assert plant.attempts(job) == 1


def test_a_gateway_killed_while_a_device_measures_gets_the_outcome_afterwards(plant, panel):
    measured = panel.measured()
    job = begin_to_measure(plant, panel)

    plant.restart_gateway()

    plant.measured([job])
    assert panel.measured() == measured + 1
    assert plant.attempts(job) == 1


def test_a_gateway_killed_between_a_report_and_its_answer_keeps_it_once(plant, panel):
    job = report_without_an_answer(plant, panel)

    plant.kill_gateway()
    panel.link.cut()
    panel.link.heal()
    plant.start_gateway()

    plant.measured([job])
    assert plant.attempts(job) == 1


def test_a_gateway_that_hangs_is_given_up_by_the_device_and_loses_nothing(plant, panel, gateway):
    complaints = panel.said("the host cannot be reached")
    job = begin_to_measure(plant, panel)

    gateway.pause()
    wait_until(panel.letters, "the outcome in the outbox")
    wait_until(lambda: panel.said("the host cannot be reached") > complaints, "a complaint")
    gateway.resume()

    plant.measured([job])


def test_a_gateway_that_is_told_to_stop_drains_and_the_device_comes_back(plant, panel, gateway):
    jobs = [begin_to_measure(plant, panel), *plant.ask(panel.device, 2)]

    assert gateway.stop() == 0
    plant.start_gateway()

    plant.measured(jobs)


def test_a_power_cut_of_the_whole_plant_loses_nothing(plant, panel):
    jobs = plant.ask(panel.device, 4, hold_seconds=0.2)
    wait_until(lambda: None not in plant.outcomes(jobs[:1]), "the first outcome")

    panel.kill()
    plant.kill_gateway()
    plant.start_gateway()
    panel.start()

    plant.measured(jobs)


STUDY = HERE / "study.py"


def test_a_study_killed_while_devices_measure_finds_its_jobs_again(plant, panel):
    measured = panel.measured()
    seed = "5"
    study = plant.run(STUDY, plant.workspace.root, panel.device.name, seed)
    wait_until(lambda: panel.measured() > measured, "a measurement")

    study.kill()
    again = plant.run(STUDY, plant.workspace.root, panel.device.name, seed)

    assert again.wait() == 0, again.log.read_text()
    plant.settle()
    assert again.log.read_text().split() == ["measured"] * 5
    assert panel.measured() == measured + 5


def test_a_study_killed_while_it_asks_asks_for_nothing_twice(plant, panel):
    measured = panel.measured()
    panel.kill()
    study = plant.run(STUDY, plant.workspace.root, panel.device.name, "6")
    wait_until(lambda: plant.store.jobs.waiting(panel.device.id) >= 2, "two jobs")
    study.kill()
    panel.start()

    again = plant.run(STUDY, plant.workspace.root, panel.device.name, "6")

    assert again.wait() == 0, again.log.read_text()
    plant.settle()
    assert panel.measured() == measured + 5


def test_the_shipped_gateway_survives_its_own_end_too(plant, panel, gateway):
    job = begin_to_measure(plant, panel)
    gateway.kill()
    shipped = plant.start_shipped_gateway()
    plant.measured([job])
    second = begin_to_measure(plant, panel)
    helpers = psutil.Process(shipped.pid).children(recursive=True)

    shipped.kill()
    plant.start_gateway()

    plant.measured([second])
    assert helpers
    wait_until(lambda: not psutil.wait_procs(helpers, 0.1)[1], "the end of its helpers")
