"""The queue: every job once, nothing lost, whoever goes away."""

import itertools
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from host.device import DeviceFacts, MeterBinding
from host.job import Lease
from host.measurement import (
    PRESETS,
    FailureKind,
    InputShape,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    OperatorTime,
    Outcome,
    Preflight,
    ProbeResult,
    ProbeSpec,
    Profile,
    ProfileSpec,
    Readiness,
    ReferenceRun,
    Spec,
    Thermal,
    Verdict,
    VerifiedOutputs,
    VerifySpec,
    blobs_of,
)
from host.store import (
    Caller,
    Claim,
    JobCancelledError,
    Renewal,
    Report,
    SessionSupersededError,
    Store,
    StoreError,
    UnknownBlobError,
    UnknownDeviceError,
    UnknownJobError,
    UnknownMeasurementError,
    Waiting,
    wait_for_outcomes,
)
from host.store.tables import JobRow, MeasurementRow

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet

MakeMeasurement = Callable[..., Measurement]
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
A_PREFLIGHT = Preflight(0.01, None, 2_000_000_000, None, (), 0.005, 0.0)


def claimed(store: Store, device_id: str, session: str = "s", seconds: float = 60.0) -> Lease:
    lease = store.jobs.claim(device_id, session, seconds)
    assert lease is not None
    return lease


def failure(
    device_id: str, spec: MeasureSpec, store: Store, kind: FailureKind, message: str = "because"
) -> MeasurementFailure:
    return MeasurementFailure(device_id, spec.run.model_sha256, kind, message, store.now())


def a_device() -> DeviceFacts:
    return DeviceFacts(
        hostname="line-3",
        machine="x86_64",
        pointer_bits=64,
        cpu_model="Core 2",
        cpu_flags=(),
        cpu_cores_physical=None,
        cpu_cores_logical=2,
        ram_bytes=4_000_000_000,
        os_name="Debian 12",
        kernel="6.1",
        python_version="3.11.2",
        governor=None,
        temperature_celsius=None,
        cpu_max_hertz=None,
        runtimes=(),
        power_sources=(),
    )


def hello(store: Store, device_id: str, session: str) -> int:
    return store.devices.open_session(device_id, session, agent_version="0.1.0", facts=a_device())


def done(store: Store, lease: Lease) -> Lease:
    """The same lease, once its job is over."""
    spec = lease.job.spec
    model = next(iter(blobs_of(spec)), None)
    outcome = MeasurementFailure(lease.job.device_id, model, "timeout", "late", store.now())
    assert store.jobs.report(lease.job.device_id, lease.job.id, lease.attempt, "k", outcome)
    return lease


def refuse(store: Store, lease: Lease, message: str = "busy: 60 % of the CPU") -> bool:
    job = lease.job
    assert isinstance(job.spec, MeasureSpec)
    outcome = failure(job.device_id, job.spec, store, "not_ready", message)
    return store.jobs.report(
        job.device_id, job.id, lease.attempt, f"{job.id}:{lease.attempt}", outcome
    )


def test_asking_twice_gives_the_same_job(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()

    first, second = (store.jobs.submit(device.id, spec) for _ in range(2))

    assert first == second
    assert store.jobs.waiting(device.id) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"plan": PRESETS["quick"]},
        {"readiness": Readiness(measure_when_busy=True)},
        {"timeout_seconds": 7.0},
        {"protocol": "other/1"},
    ],
)
def test_another_spec_is_another_job(
    store: Store, fleet: "Fleet", change: dict[str, object]
) -> None:
    device, spec = fleet.device(), fleet.spec()
    first = store.jobs.submit(device.id, spec)

    second = store.jobs.submit(device.id, replace(spec, **change))  # type: ignore[arg-type]

    assert second.id != first.id


def test_another_purpose_or_device_is_another_job(store: Store, fleet: "Fleet") -> None:
    spec = fleet.spec()
    kiosk, press = fleet.device("kiosk"), fleet.device("press")

    jobs = [
        store.jobs.submit(kiosk.id, spec),
        store.jobs.submit(kiosk.id, spec, purpose="verify"),
        store.jobs.submit(press.id, spec),
    ]

    assert len({job.id for job in jobs}) == 3


def test_an_updated_runtime_is_measured_anew(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    before = store.jobs.submit(device.id, spec)
    assert device.facts is not None
    runtime = replace(device.facts.runtimes[0], version="1.24.2")
    facts = replace(device.facts, runtimes=(runtime,))
    store.devices.open_session(device.id, "session", agent_version="0.1.0", facts=facts)

    after = store.jobs.submit(device.id, spec)

    assert after.id != before.id


def test_a_job_needs_its_device_and_its_model(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()

    with pytest.raises(UnknownDeviceError):
        store.jobs.submit("nobody", spec)
    with pytest.raises(UnknownBlobError, match="0" * 64):
        store.jobs.submit(device.id, replace(spec, run=replace(spec.run, model_sha256="0" * 64)))


def test_the_highest_priority_comes_first_and_then_the_oldest(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    for model, priority in ((b"a", 0), (b"b", 0), (b"c", 5)):
        store.jobs.submit(device.id, fleet.spec(model), priority=priority)

    leases = [done(store, claimed(store, device.id)) for _ in range(3)]
    order = [store.blobs.get(blobs_of(lease.job.spec)[0]) for lease in leases]

    assert order == [b"c", b"a", b"b"]
    assert store.jobs.claim(device.id, "s", 60) is None


def test_a_device_gets_only_its_own_jobs(store: Store, fleet: "Fleet") -> None:
    kiosk, press = fleet.device("kiosk"), fleet.device("press")
    store.jobs.submit(kiosk.id, fleet.spec())

    assert store.jobs.claim(press.id, "s", 60) is None


def test_a_lease_that_is_not_renewed_ends_and_the_job_is_given_again(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    first = claimed(store, device.id)
    assert store.jobs.waiting(device.id) == 0
    clock.advance(61)
    assert store.jobs.waiting(device.id) == 1

    second = claimed(store, device.id)

    assert (second.job.id, second.attempt) == (job.id, 2)
    assert store.jobs.renew(device.id, first.lease_id)
    assert not store.jobs.renew(device.id, second.lease_id)


def test_a_renewed_lease_lives_on(store: Store, fleet: "Fleet", clock: "FakeClock") -> None:
    device = fleet.device()
    store.jobs.submit(device.id, fleet.spec())
    lease = claimed(store, device.id)

    for _ in range(5):
        clock.advance(40)
        assert not store.jobs.renew(device.id, lease.lease_id)

    assert claimed(store, device.id).attempt == 1


def test_another_device_cannot_renew_a_lease(store: Store, fleet: "Fleet") -> None:
    kiosk, press = fleet.device("kiosk"), fleet.device("press")
    store.jobs.submit(kiosk.id, fleet.spec())

    assert store.jobs.renew(press.id, claimed(store, kiosk.id).lease_id)


def test_a_restarted_agent_gives_back_what_it_held(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    claimed(store, device.id, "before")

    released = hello(store, device.id, "after")

    assert released == 1
    assert store.jobs.get(job.id).state == "queued"
    assert claimed(store, device.id, "after").attempt == 2
    assert hello(store, device.id, "after") == 0


def test_after_three_lost_attempts_the_job_fails(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())

    for number in range(3):
        hello(store, device.id, f"session {number}")
        claimed(store, device.id, f"session {number}")
    hello(store, device.id, "s")

    outcome = store.jobs.outcome(job.id)
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.kind == "worker_crashed"
    assert outcome.message == "the agent went away 3 times while running this job"
    assert store.jobs.get(job.id).state == "failed"
    assert store.jobs.claim(device.id, "s", 60) is None


def test_a_report_is_kept_with_every_sample(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    measurement = make_measurement(device.id, spec.run.model_sha256)

    stored = store.jobs.report(device.id, job.id, 1, f"{job.id}:1", measurement)

    assert stored
    assert store.jobs.outcome(job.id) == measurement
    assert store.measurements.of_device(device.id, spec.run.model_sha256) == [measurement]
    assert store.measurements.of_device(device.id, "0" * 64) == []
    assert store.jobs.get(job.id).state == "done"


def test_a_late_report_counts_whatever_became_of_its_lease(
    store: Store, fleet: "Fleet", clock: "FakeClock", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    clock.advance(61)
    second = claimed(store, device.id)
    measurement = make_measurement(device.id, spec.run.model_sha256)

    stored = store.jobs.report(device.id, job.id, 1, f"{job.id}:1", measurement)

    assert stored
    assert store.jobs.renew(device.id, second.lease_id), "the second attempt is to stop"
    late = make_measurement(device.id, spec.run.model_sha256, 9.0)
    assert not store.jobs.report(device.id, job.id, 2, f"{job.id}:2", late)
    assert store.jobs.outcome(job.id) == measurement
    assert store.jobs.roll_call().to_stop == {}


def test_only_the_device_of_a_job_reports_it(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    kiosk, press, spec = fleet.device("kiosk"), fleet.device("press"), fleet.spec()
    job = store.jobs.submit(kiosk.id, spec)
    measurement = make_measurement(press.id, spec.run.model_sha256)

    for device_id, job_id in ((press.id, job.id), (kiosk.id, "no job")):
        with pytest.raises(UnknownJobError):
            store.jobs.report(device_id, job_id, 1, "k", measurement)


def test_a_failure_ends_the_job_too(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    failed = failure(device.id, spec, store, "timeout")

    assert store.jobs.report(device.id, job.id, 1, f"{job.id}:1", failed)

    assert store.jobs.outcome(job.id) == failed
    assert store.jobs.submit(device.id, spec).state == "failed"


def test_a_cancelled_job_is_not_given_and_can_be_asked_for_again(
    store: Store, fleet: "Fleet"
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    assert store.jobs.cancel([job.id, "no job"]) == 1
    assert store.jobs.claim(device.id, "s", 60) is None

    again = store.jobs.submit(device.id, spec)

    assert (again.id, again.state) == (job.id, "queued")
    assert claimed(store, device.id).job.id == job.id


def test_the_answer_to_a_cancel_is_no_outcome(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    store.jobs.cancel([job.id])
    assert store.jobs.roll_call().to_stop == {device.id: (job.id,)}
    stopped = failure(device.id, spec, store, "cancelled")

    stored = store.jobs.report(device.id, job.id, 1, f"{job.id}:1", stopped)

    assert not stored
    assert store.jobs.get(job.id).state == "cancelled"
    assert store.jobs.outcome(job.id) is None
    assert store.jobs.roll_call().to_stop == {}


def test_a_late_answer_to_a_cancel_does_not_harm_a_job_asked_for_again(
    store: Store, fleet: "Fleet"
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    store.jobs.cancel([job.id])
    store.jobs.submit(device.id, spec)

    store.jobs.report(device.id, job.id, 1, "k", failure(device.id, spec, store, "cancelled"))

    assert store.jobs.get(job.id).state == "queued"
    assert claimed(store, device.id).attempt == 2


def test_a_measurement_of_a_cancelled_job_is_kept(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    store.jobs.cancel([job.id])

    measurement = make_measurement(device.id, spec.run.model_sha256)
    assert store.jobs.report(device.id, job.id, 1, "k", measurement)

    assert store.jobs.get(job.id).state == "done"
    assert store.jobs.cancel([job.id]) == 0


def test_only_models_of_open_leases_may_be_read(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    before = store.jobs.leased_blobs(device.id)
    claimed(store, device.id)
    during = store.jobs.leased_blobs(device.id)

    measurement = make_measurement(device.id, spec.run.model_sha256)
    store.jobs.report(device.id, job.id, 1, "k", measurement)

    assert (before, during) == (set(), {spec.run.model_sha256})
    assert store.jobs.leased_blobs(device.id) == set()


def test_a_removed_device_has_no_jobs_left(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)

    store.devices.remove(device.name)

    assert store.jobs.get(job.id).state == "cancelled"
    with pytest.raises(UnknownDeviceError):
        store.jobs.submit(device.id, spec)


def test_the_jobs_of_a_study_are_those_it_asked_for_first(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    study = store.studies.create("one", "{}", 1)
    jobs = [
        store.jobs.submit(device.id, fleet.spec(model), study_id=study.id) for model in (b"1", b"2")
    ]
    store.jobs.submit(device.id, fleet.spec(b"3"))

    assert store.jobs.of_study(study.id) == jobs


def test_a_device_that_is_not_ready_gets_the_job_again_after_a_while(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    waited = []

    for _ in range(7):
        assert refuse(store, claimed(store, device.id))
        delay = 0
        while store.jobs.waiting(device.id) == 0:
            assert store.jobs.claim(device.id, "s", 60) is None
            clock.advance(5)
            delay += 5
        waited.append(delay)

    assert waited == [15, 30, 60, 120, 240, 300, 300]
    assert store.jobs.get(job.id).state == "queued"
    assert store.jobs.not_ready(job.id) == "busy: 60 % of the CPU"
    assert store.jobs.outcome(job.id) is None


def test_why_a_device_is_not_ready_is_forgotten_once_it_is(
    store: Store, fleet: "Fleet", clock: "FakeClock", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    assert store.jobs.not_ready(job.id) is None
    refuse(store, claimed(store, device.id))
    clock.advance(15)

    lease = claimed(store, device.id)
    while_leased = store.jobs.not_ready(job.id)
    measurement = make_measurement(device.id, spec.run.model_sha256)
    store.jobs.report(device.id, job.id, lease.attempt, "k", measurement)

    assert while_leased is None
    assert store.jobs.not_ready(job.id) is None
    assert store.jobs.outcome(job.id) == measurement


def test_after_ten_refusals_the_job_fails_and_can_be_asked_for_again(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    for _ in range(10):
        refuse(store, claimed(store, device.id))
        clock.advance(300)

    outcome = store.jobs.outcome(job.id)
    again = store.jobs.submit(device.id, spec)

    assert isinstance(outcome, MeasurementFailure)
    assert (outcome.kind, outcome.message) == ("not_ready", "busy: 60 % of the CPU")
    assert (again.id, again.state) == (job.id, "queued")
    assert store.jobs.outcome(job.id) is None
    refuse(store, claimed(store, device.id))
    assert store.jobs.get(job.id).state == "queued", "it is counted from the start"


def test_a_refusal_reported_twice_counts_once(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    first = claimed(store, device.id)

    kept = [refuse(store, first, "hot: 81 °C"), refuse(store, first, "again")]
    clock.advance(15)
    second = claimed(store, device.id)
    late = refuse(store, first, "late")

    assert (*kept, late) == (True, False, False)
    assert store.jobs.get(job.id).state == "leased"
    assert not store.jobs.renew(device.id, second.lease_id), "the second attempt goes on"


def test_a_refusal_of_a_cancelled_job_changes_nothing(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    lease = claimed(store, device.id)
    store.jobs.cancel([job.id])

    assert not refuse(store, lease)

    assert store.jobs.get(job.id).state == "cancelled"
    assert store.jobs.roll_call().to_stop == {}


def test_waiting_tells_why_a_device_is_not_ready(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    refuse(store, claimed(store, device.id), "hot: 81 °C")
    waits: list[Waiting] = []

    def cancel(_seconds: float) -> None:
        store.jobs.cancel([job.id])

    with pytest.raises(JobCancelledError):
        list(wait_for_outcomes(store, [job], on_wait=waits.append, sleep=cancel))

    assert waits[0].not_ready == {job.id: "hot: 81 °C"}


def specs_of_all_kinds(fleet: "Fleet") -> list[Spec]:
    run = replace(fleet.run(), input_shapes=(InputShape("x", (1, 3)),), options=("xnnpack=0",))
    plan = PRESETS["standard"].with_energy(paced_hertz=5.0)
    readiness = Readiness(max_start_celsius=60.0)
    return [
        MeasureSpec(run, plan, readiness, 99.0),
        fleet.verify_spec(),
        ProfileSpec(run, runs=7),
        ProbeSpec(readiness),
    ]


def test_every_kind_of_job_comes_back_as_it_was(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    specs = specs_of_all_kinds(fleet)

    jobs = [store.jobs.submit(device.id, spec, label="net.onnx") for spec in specs]

    assert [store.jobs.get(job.id) for job in jobs] == jobs
    assert [job.spec for job in jobs] == specs
    assert len({job.key for job in jobs}) == 4
    assert {job.label for job in jobs} == {"net.onnx"}
    assert [done(store, claimed(store, device.id)).job.spec for _ in jobs] == specs


def test_the_label_does_not_make_another_job(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()

    first, second = (store.jobs.submit(device.id, spec, label=label) for label in ("a", "b"))

    assert first.id == second.id
    assert second.label == "a"


def test_a_probe_is_the_same_job_whatever_runtimes_there_are(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    before = store.jobs.submit(device.id, ProbeSpec())
    assert device.facts is not None
    facts = replace(device.facts, runtimes=())
    store.devices.open_session(device.id, "session", agent_version="0.1.0", facts=facts)

    assert store.jobs.submit(device.id, ProbeSpec()).id == before.id


def test_a_verify_job_needs_its_inputs_and_lends_both_files(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.verify_spec()
    with pytest.raises(UnknownBlobError, match="0" * 64):
        store.jobs.submit(device.id, replace(spec, inputs_sha256="0" * 64))
    store.jobs.submit(device.id, spec)

    lease = claimed(store, device.id)

    assert store.jobs.leased_blobs(device.id) == {spec.run.model_sha256, spec.inputs_sha256}
    assert store.jobs.leased(device.id, lease.lease_id) == lease.job
    assert store.jobs.leased("another", lease.lease_id) is None
    assert store.jobs.leased(device.id, "no lease") is None


def results_of(device_id: str, specs: list[Spec]) -> list[Outcome]:
    _, verify, profile, _ = specs
    assert isinstance(verify, VerifySpec)
    assert isinstance(profile, ProfileSpec)
    return [
        VerifiedOutputs(
            device_id, verify.run, verify.inputs_sha256, "lib", "1", ("a=1",), "0" * 64, 9, 3, NOON
        ),
        Profile(
            device_id, profile.run, "lib", "1", (), 7, 0.5, (OperatorTime("c", "Conv", 0.4),), NOON
        ),
        probed(device_id),
    ]


def probed(device_id: str, seconds: float = 0.002, version: str = "1.23.2") -> ProbeResult:
    references = (
        ReferenceRun("tflite", "tflite-runtime", "", (), (), (), "not installed"),
        ReferenceRun(
            "onnx",
            "onnxruntime",
            version,
            (seconds, 1.1 * seconds, 9.0),
            (seconds,) * 3,
            (0.005, 0.005),
        ),
    )
    return ProbeResult(device_id, A_PREFLIGHT, references, Thermal(), "performance", NOON)


def test_results_of_other_kinds_come_back_as_they_were(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    specs = specs_of_all_kinds(fleet)
    jobs = [store.jobs.submit(device.id, spec) for spec in specs[1:]]
    outcomes = results_of(device.id, specs)

    for job, outcome in zip(jobs, outcomes, strict=True):
        assert store.jobs.report(device.id, job.id, 1, "k", outcome)

    assert [store.jobs.outcome(job.id) for job in jobs] == outcomes
    assert {store.jobs.get(job.id).state for job in jobs} == {"done"}


def test_a_probe_that_was_lost_fails_without_a_model(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, ProbeSpec())

    for number in range(3):
        hello(store, device.id, f"session {number}")
        claimed(store, device.id, f"session {number}")
    hello(store, device.id, "s")

    outcome = store.jobs.outcome(job.id)
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.model_sha256 is None


def probe(store: Store, device_id: str, result: ProbeResult, purpose: str = "measure") -> None:
    job = store.jobs.submit(device_id, ProbeSpec(), purpose=purpose)
    store.jobs.report(device_id, job.id, 1, "k", result)


def test_the_baseline_is_that_of_the_newest_probe(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    assert store.probes.latest(device.id) is None
    for number, seconds in enumerate((0.002, 0.003)):
        probe(store, device.id, probed(device.id, seconds), purpose=str(number))

    baseline = store.measurements.baseline(device.id, "onnx", "onnxruntime", "1.23.2")

    assert baseline is not None
    assert baseline.reference_seconds == pytest.approx(0.0033)
    assert (baseline.reference_cpu_seconds, baseline.canary_seconds) == (0.003, 0.005)
    assert baseline.since == NOON
    assert store.probes.latest(device.id) == probed(device.id, 0.003)
    for other in (("onnx", "onnxruntime", "9"), ("tflite", "tflite-runtime", "")):
        assert store.measurements.baseline(device.id, *other) is None
    assert store.measurements.baseline("another", "onnx", "onnxruntime", "1.23.2") is None


def measure(
    store: Store, device_id: str, spec: MeasureSpec, measurement: Measurement, label: str = ""
) -> None:
    job = store.jobs.submit(device_id, spec, label=label)
    assert store.jobs.report(device_id, job.id, 1, "k", measurement)


def test_without_a_probe_the_first_measurement_that_counts_is_the_baseline(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device = fleet.device()
    verdicts = (Verdict("REJECT"), Verdict("WARN"), Verdict("OK"))
    for number, verdict in enumerate(verdicts):
        spec = fleet.spec(str(number).encode())
        measurement = make_measurement(device.id, spec.run.model_sha256, verdict=verdict)
        since = NOON + timedelta(hours=number)
        measure(store, device.id, spec, replace(measurement, measured_at=since))

    baseline = store.measurements.baseline(device.id, "onnx", "onnxruntime", "1.23.2")

    assert baseline is not None
    assert baseline.since == NOON + timedelta(hours=1)
    assert baseline.reference_seconds == 0.001
    assert store.measurements.baseline(device.id, "onnx", "onnxruntime", "2") is None


def test_measurements_are_listed_newest_first_with_their_labels(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    kiosk, press = fleet.device("kiosk"), fleet.device("press")
    kept = []
    for device, name in ((kiosk, "a"), (kiosk, "b"), (press, "a")):
        spec = fleet.spec(name.encode())
        kept.append(make_measurement(device.id, spec.run.model_sha256))
        measure(store, device.id, spec, kept[-1], f"{name}.onnx")

    listed = store.measurements.list()
    model = kept[0].model_sha256

    assert [stored.measurement for stored in listed] == kept[::-1]
    assert [stored.label for stored in listed] == ["a.onnx", "b.onnx", "a.onnx"]
    assert [store.measurements.get(stored.number) for stored in listed] == listed
    assert store.measurements.list(kiosk.id) == listed[1:]
    assert store.measurements.list(model_sha256=model) == [listed[0], listed[2]]
    assert store.measurements.list(kiosk.id, model, limit=5) == [listed[2]]
    assert store.measurements.list(limit=1) == listed[:1]
    with pytest.raises(UnknownMeasurementError, match="genba measurements list"):
        store.measurements.get(99)


def test_a_damaged_measurement_is_named(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    measure(store, device.id, spec, make_measurement(device.id, spec.run.model_sha256))
    with store._database.write() as session:
        session.execute(update(MeasurementRow).values(content=b"nothing"))

    with pytest.raises(StoreError, match="damaged Measurement"):
        store.measurements.list()


def test_a_device_has_one_meter(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    assert store.meters.of_device(device.id) is None
    assert not store.meters.unbind(device.id)
    store.meters.bind(device.id, MeterBinding("http://plug"))
    store.meters.bind(device.id, MeterBinding("modbus://meter", {"unit": "3"}))

    assert store.meters.of_device(device.id) == MeterBinding("modbus://meter", {"unit": "3"})
    assert store.meters.unbind(device.id)
    assert store.meters.of_device(device.id) is None
    with pytest.raises(UnknownDeviceError):
        store.meters.bind("nobody", MeterBinding("http://plug"))


def test_a_removed_device_is_named_to_whoever_asks_for_it(store: Store, fleet: "Fleet") -> None:
    device, spec = fleet.device(), fleet.spec()
    store.devices.remove("kiosk")

    with pytest.raises(UnknownDeviceError, match=r"kiosk was removed .*genba device enroll kiosk"):
        store.jobs.submit(device.id, spec)


def test_waiting_yields_outcomes_as_they_come(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device = fleet.device()
    specs = [fleet.spec(model) for model in (b"a", b"b", b"c")]
    jobs = [store.jobs.submit(device.id, spec) for spec in specs]
    pending = [2, 0, 1]
    waits: list[Waiting] = []

    def finish_one(_seconds: float) -> None:
        number = pending.pop(0)
        measurement = make_measurement(device.id, specs[number].run.model_sha256)
        store.jobs.report(device.id, jobs[number].id, 1, "k", measurement)

    outcomes = wait_for_outcomes(store, jobs, on_wait=waits.append, sleep=finish_one)

    assert [job.id for job, _ in outcomes] == [jobs[i].id for i in (2, 0, 1)]
    assert [len(waiting.jobs) for waiting in waits] == [3, 2, 1]
    assert [d.name for d in waits[0].offline] == ["kiosk"]


def test_waiting_for_a_job_that_is_withdrawn_ends(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())

    def cancel(_seconds: float) -> None:
        store.jobs.cancel([job.id])

    with pytest.raises(JobCancelledError, match=r"was cancelled .*run the same command again"):
        list(wait_for_outcomes(store, [job], sleep=cancel))


def test_waiting_for_a_device_that_is_removed_ends_with_its_name(
    store: Store, fleet: "Fleet"
) -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())

    with pytest.raises(JobCancelledError, match=r"kiosk was removed .*genba device enroll kiosk"):
        list(wait_for_outcomes(store, [job], sleep=lambda _: store.devices.remove("kiosk")))


def _meet(folder: Path, who: str) -> None:
    (folder / f"ready-{who}").touch()
    deadline = time.monotonic() + 20
    while len(list(folder.glob(f"ready-{who[0]}*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _work_all(place: str | Path, folder: Path, device_id: str, who: str) -> list[str]:
    _meet(folder, who)
    with Store.open(place, blobs_folder=folder) as store:
        stored = []
        # Both ask for the same session, as a device does that cannot hear one of two gateways.
        while lease := store.jobs.claim(device_id, "s", 60):
            assert lease.attempt == 1
            outcome = failure(device_id, lease.job.spec, store, "timeout")  # type: ignore[arg-type]
            if store.jobs.report(device_id, lease.job.id, 1, "k", outcome):
                stored.append(lease.job.id)
        return stored


def _submit_all(place: str | Path, folder: Path, device_id: str, who: str) -> list[str]:
    _meet(folder, who)
    with Store.open(place, blobs_folder=folder) as store:
        models = [store.blobs.put(str(i).encode()).sha256 for i in range(40)]
        specs = [MeasureSpec(ModelRun(model, 1)) for model in models]
        return [store.jobs.submit(device_id, spec).id for spec in specs]


def test_processes_that_submit_and_work_at_once_do_every_job_once(
    tmp_path: Path, store: Store, store_place: str | Path, fleet: "Fleet"
) -> None:
    device = fleet.device()
    common = [store_place] * 2, [tmp_path] * 2, [device.id] * 2

    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        submitted = list(pool.map(_submit_all, *common, ["s1", "s2"]))
        done_by = list(pool.map(_work_all, *common, ["c1", "c2"]))

    assert submitted[0] == submitted[1]
    assert sorted([*done_by[0], *done_by[1]]) == sorted(submitted[0])


def test_a_device_that_asks_again_gets_the_lease_that_it_holds(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device = fleet.device()
    for model in (b"a", b"b"):
        store.jobs.submit(device.id, fleet.spec(model))
    first = claimed(store, device.id)
    clock.advance(50)

    again = claimed(store, device.id)
    clock.advance(50)
    once_more = claimed(store, device.id)

    assert (again.lease_id, again.attempt) == (first.lease_id, 1)
    assert once_more == again, "asking again renews it"
    assert store.jobs.waiting(device.id) == 1


def test_another_session_than_the_last_gets_no_job(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    store.jobs.submit(device.id, fleet.spec())
    hello(store, device.id, "new")

    with pytest.raises(SessionSupersededError, match="kiosk has opened another session"):
        store.jobs.claim(device.id, "old", 60)

    assert claimed(store, device.id, "new").attempt == 1


def test_a_lease_of_an_earlier_session_ends_when_the_next_one_claims(
    store: Store, fleet: "Fleet"
) -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    first = claimed(store, device.id, "before")

    second = claimed(store, device.id, "after")

    assert (second.job.id, second.attempt) == (job.id, 2)
    assert store.jobs.renew(device.id, first.lease_id)
    assert store.jobs.leased(device.id, first.lease_id) is None


def test_a_job_that_its_device_gave_up_is_lost_and_not_given_for_ever(
    store: Store, fleet: "Fleet"
) -> None:
    device = fleet.device()
    job = store.jobs.submit(device.id, fleet.spec())
    lease = claimed(store, device.id)

    for attempt in (2, 3):
        (answer,) = store.jobs.settle([Claim(device.id, "s", 60.0, lease.lease_id)])
        assert isinstance(answer, Lease)
        lease = answer
        assert lease.attempt == attempt
    (answer,) = store.jobs.settle([Claim(device.id, "s", 60.0, lease.lease_id)])

    assert answer is None
    outcome = store.jobs.outcome(job.id)
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.message == "the agent gave up 3 times while running this job"


def test_a_cancelled_job_leaves_its_device_free_for_the_next(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    first = store.jobs.submit(device.id, fleet.spec(b"a"))
    claimed(store, device.id)
    store.jobs.cancel([first.id])
    second = store.jobs.submit(device.id, fleet.spec(b"b"))

    assert claimed(store, device.id).job.id == second.id
    assert store.jobs.roll_call().to_stop == {}


def test_a_revoked_device_gets_no_job_and_a_later_claim_is_refused(
    store: Store, fleet: "Fleet"
) -> None:
    device = fleet.device()
    store.jobs.submit(device.id, fleet.spec())

    store.devices.revoke("kiosk")

    with pytest.raises(UnknownDeviceError, match="genba device enroll kiosk"):
        store.jobs.claim(device.id, "s", 60)


def test_many_devices_in_one_transaction_get_their_own_answers(
    store: Store, fleet: "Fleet"
) -> None:
    kiosk, press, idle, old = (fleet.device(name) for name in ("kiosk", "press", "idle", "old"))
    jobs = {d.id: store.jobs.submit(d.id, fleet.spec()) for d in (kiosk, press, old)}
    held = claimed(store, press.id)
    hello(store, old.id, "new")
    spec = held.job.spec
    assert isinstance(spec, MeasureSpec)
    attempt = press.id, held.job.id, held.attempt
    report = Report.of(attempt, "k", failure(press.id, spec, store, "timeout"), store.now())
    foreign = Report.of((idle.id, held.job.id, 1), "k", report_failure(report), store.now())

    answers = store.jobs.settle(
        [
            Claim(kiosk.id, "s", 60.0),
            report,
            Claim(idle.id, "s", 60.0),
            Claim(old.id, "old", 60.0),
            Claim("nobody", "s", 60.0),
            foreign,
            Renewal(press.id, held.lease_id),
            Claim(press.id, "s", 60.0),
        ]
    )

    lease, reported, nothing, superseded, unknown, not_theirs, stop, after = answers
    assert isinstance(lease, Lease)
    assert lease.job.id == jobs[kiosk.id].id
    assert (reported, nothing, stop, after) == (True, None, True, None)
    assert isinstance(superseded, SessionSupersededError)
    assert isinstance(unknown, UnknownDeviceError)
    assert isinstance(not_theirs, UnknownJobError)
    assert store.jobs.get(held.job.id).state == "failed"


def report_failure(report: Report) -> MeasurementFailure:
    assert report.failure is not None
    return report.failure


def test_two_reports_of_one_job_in_one_transaction_are_kept_once(
    store: Store, fleet: "Fleet", make_measurement: MakeMeasurement
) -> None:
    device, spec = fleet.device(), fleet.spec()
    job = store.jobs.submit(device.id, spec)
    claimed(store, device.id)
    measurement = make_measurement(device.id, spec.run.model_sha256)
    report = Report.of((device.id, job.id, 1), "k", measurement, store.now())

    assert store.jobs.settle([report, report]) == [True, False]
    assert store.measurements.of_device(device.id) == [measurement]


def test_a_damaged_job_harms_no_other_device(store: Store, fleet: "Fleet") -> None:
    kiosk, press = fleet.device("kiosk"), fleet.device("press")
    damaged = store.jobs.submit(kiosk.id, fleet.spec())
    store.jobs.submit(press.id, fleet.spec())
    with store._database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == damaged.id).values(spec={"no": "spec"}))

    bad, good = store.jobs.settle([Claim(kiosk.id, "s", 60.0), Claim(press.id, "s", 60.0)])

    assert isinstance(bad, StoreError)
    assert isinstance(good, Lease)


def test_studies_take_turns_however_many_jobs_each_asked_for(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    large, small = (store.studies.create(name, "{}", 1).id for name in ("large", "small"))
    for number in range(6):
        ask(store, fleet, device.id, large, number)
    begun = [done(store, claimed(store, device.id)).job.study_id for _ in range(2)]
    for number in range(3):
        ask(store, fleet, device.id, small, number)
    ask(store, fleet, device.id, None, 0)

    order = [done(store, claimed(store, device.id)).job.study_id for _ in range(8)]

    assert begun == [large, large]
    assert order == [large, small, None, large, small, large, small, large]


def ask(store: Store, fleet: "Fleet", device_id: str, study_id: int | None, number: int) -> None:
    spec = fleet.spec(f"{study_id} {number}".encode())
    store.jobs.submit(device_id, spec, study_id=study_id)


@pytest.mark.parametrize("seed", range(3))
def test_whoever_waits_is_never_passed_over_twice(store: Store, fleet: "Fleet", seed: int) -> None:
    device = fleet.device()
    studies = [store.studies.create(str(n), "{}", 1).id for n in range(3)]
    rng = random.Random(seed)
    waiting: Counter[int] = Counter()
    numbers = itertools.count()
    passed_over: Counter[int] = Counter()
    for _ in range(25):
        for study in rng.choices(studies, weights=(6, 2, 1), k=rng.randrange(3)):
            ask(store, fleet, device.id, study, next(numbers))
            waiting[study] += 1
        if not waiting.total():
            continue
        served = done(store, claimed(store, device.id)).job.study_id
        assert served is not None
        waiting[served] -= 1
        passed_over[served] = 0
        for study in studies:
            if study != served and waiting[study]:
                passed_over[study] += 1

        assert max(passed_over.values()) <= 2 * (len(studies) - 1)


def test_a_job_asked_for_again_queues_behind_those_that_wait(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    first, second = (store.jobs.submit(device.id, fleet.spec(model)) for model in (b"a", b"b"))
    store.jobs.cancel([first.id])

    store.jobs.submit(device.id, fleet.spec(b"a"))

    order = [done(store, claimed(store, device.id)).job.id for _ in range(2)]
    assert order == [second.id, first.id]


def test_what_is_asked_and_withdrawn_stands_in_the_audit_log(store: Store, fleet: "Fleet") -> None:
    kiosk, press, spec = fleet.device("kiosk"), fleet.device("press"), fleet.spec()
    study = store.studies.create("welds", "{}", 1)
    jobs = [
        store.jobs.submit(kiosk.id, spec, study_id=study.id, label="net.onnx"),
        store.jobs.submit(kiosk.id, spec),
        store.jobs.submit(press.id, ProbeSpec()),
    ]
    store.jobs.cancel([job.id for job in jobs])
    store.jobs.cancel([job.id for job in jobs])
    store.jobs.submit(kiosk.id, spec)

    entries = [e for e in store.audit.entries() if e.action in ("job", "cancel")]

    assert [(e.action, e.subject) for e in entries[:2]] == [("job", "kiosk"), ("job", "press")]
    assert entries[0].details == {
        "job_id": jobs[0].id,
        "kind": "measure",
        "label": "net.onnx",
        "model_sha256": spec.run.model_sha256,
        "study": "welds",
    }
    assert entries[1].details == {"job_id": jobs[2].id, "kind": "probe", "label": ""}
    assert {(e.action, e.subject) for e in entries[2:4]} == {
        ("cancel", "kiosk"),
        ("cancel", "press"),
    }
    assert all(e.details["jobs"] == "1" for e in entries[2:4])
    assert {e.details["job_ids"] for e in entries[2:4]} == {jobs[0].id, jobs[2].id}
    assert [(e.action, e.details["job_id"]) for e in entries[4:]] == [("job", jobs[0].id)]


def test_the_store_names_those_that_may_connect_and_those_for_whom_something_waits(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    idle, ready, works, away, gone = (
        fleet.device(name) for name in ("idle", "ready", "works", "away", "gone")
    )
    for device in (ready, works, away, gone):
        store.jobs.submit(device.id, fleet.spec())
    for device in (away, works):
        claimed(store, device.id, seconds=60.0 if device is works else 30.0)
    hello(store, idle.id, "one")
    store.devices.revoke("gone")
    clock.advance(40)

    roll = store.jobs.roll_call()

    assert store.jobs.callers() == {
        idle.id: Caller(idle.spki_sha256, "one"),
        ready.id: Caller(ready.spki_sha256, None),
        works.id: Caller(works.spki_sha256, None),
        away.id: Caller(away.spki_sha256, None),
    }
    assert roll.to_claim == {ready.id, away.id}
    assert roll.to_stop == {}
