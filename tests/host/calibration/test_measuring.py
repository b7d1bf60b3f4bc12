"""Measuring for a calibration through the store's queue: what counts, what is asked again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from host.calibration.calibration import LeftOut, Row
from host.calibration.measuring import Manner, Measurer
from host.calibration.micrographs import micrographs
from host.calibration.setting import Setting
from host.job import Job
from host.measurement import (
    PRESETS,
    Measurement,
    MeasurementFailure,
    Readiness,
    Reason,
    Verdict,
)
from host.store import Store

SETTING = Setting("onnx", "onnxruntime", "1.23.2", 1)
REJECT = Verdict("REJECT", (Reason("THROTTLED", "REJECT", "The CPU was slowed down."),))
SOME = micrographs()[:3]


@dataclass
class Answering:
    """Reports outcomes of the jobs that are waited for, as a device would."""

    store: Store
    make: Callable[..., Measurement]
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    fails: str = ""
    version: str = "1.23.2"
    done: list[str] = field(default_factory=list)

    def __call__(self, jobs: Mapping[str, Job]):
        return {name: self._outcome(name, job) for name, job in jobs.items()}

    def _outcome(self, name, job):
        known = self.store.jobs.outcome(job.id)
        if known is not None:
            return known
        lease = self.store.jobs.claim(job.device_id, "session", 60.0)
        assert lease is not None
        assert lease.job.id == job.id
        self.done.append(name)
        outcome = self._answer(name, job)
        self.store.jobs.report(job.device_id, job.id, lease.attempt, f"{job.id}-1", outcome)
        return self.store.jobs.outcome(job.id)

    def _answer(self, name, job):
        if name == self.fails:
            sha256 = job.spec.run.model_sha256
            message = "it needs 900 MB."
            return MeasurementFailure(job.device_id, sha256, "resource", message, job.created_at)
        verdicts = self.verdicts.get(name, [])
        verdict = verdicts.pop(0) if verdicts else Verdict("OK")
        made = self.make(job.device_id, job.spec.run.model_sha256, verdict=verdict)
        return replace(made, run=job.spec.run, runtime_version=self.version)


@pytest.fixture
def answering(store, make_measurement):
    return Answering(store, make_measurement)


@pytest.fixture
def measurer(store, fleet, answering):
    manner = Manner(PRESETS["quick"], Readiness(), 120.0)
    return Measurer(store, fleet.device(), SETTING, manner, answering)


def test_each_network_gets_its_measurement_and_its_number(measurer, store):
    found = measurer(SOME)

    assert [found[one.name].name for one in SOME] == [one.name for one in SOME]
    for row in found.values():
        assert store.measurements.get(row.number).measurement == row.measurement


def test_what_the_store_knows_is_not_measured_again(measurer, answering):
    first = measurer(SOME[:2])
    answering.done.clear()

    second = measurer(SOME)

    assert answering.done == [SOME[2].name]
    assert second.items() >= first.items()


def test_another_purpose_measures_anew(measurer, answering):
    measurer(SOME[:1])
    again = replace(measurer, manner=replace(measurer.manner, purpose="calibrate again"))

    again(SOME[:1])

    assert answering.done == [SOME[0].name] * 2


def test_a_rejected_measurement_is_made_again_and_the_good_one_counts(measurer, answering):
    name = SOME[0].name
    answering.verdicts[name] = [REJECT, REJECT]

    found = measurer(SOME)

    assert answering.done.count(name) == 3
    assert isinstance(found[name], Row)
    assert found[name].measurement.verdict.level == "OK"


def test_what_is_rejected_three_times_is_left_out_with_its_reason(measurer, answering):
    name = SOME[0].name
    answering.verdicts[name] = [REJECT] * 3

    found = measurer(SOME)

    assert found[name] == LeftOut(name, "micro-graph", "rejected 3 times: The CPU was slowed down.")
    assert answering.done.count(name) == 3


def test_a_failure_is_left_out_with_its_reason_and_not_repeated(measurer, answering):
    answering.fails = SOME[1].name

    found = measurer(SOME)

    assert found[SOME[1].name].why == "resource: it needs 900 MB"
    assert answering.done.count(SOME[1].name) == 1


def test_what_another_version_measured_does_not_belong_to_this_setting(measurer, answering):
    answering.version = "1.24.0"

    found = measurer(SOME[:1])

    why = found[SOME[0].name].why
    assert why == "measured with onnxruntime 1.24.0, 1 thread, not onnxruntime 1.23.2, 1 thread"
