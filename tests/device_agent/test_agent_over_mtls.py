"""A real agent process against a scripted host, over real mutual TLS on 127.0.0.1."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import grpc
import pytest

from device_agent.errors import HostAwayError
from device_agent.outbox import Letter, Outbox
from device_agent.state import Home
from device_agent.work import (
    PROTOCOL,
    Failure,
    FailureKind,
    Lease,
    MeasuredSamples,
    MeasureSpec,
    ModelRun,
    Plan,
    ProbeSpec,
    ProfileSpec,
    Readiness,
    VerifiedOutputs,
    VerifySpec,
)
from protos import genba_agent_pb2 as pb

pytest.importorskip("onnxruntime")

KIB = 1024


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)


def test_a_job_is_pulled_measured_and_reported(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    lease = host.offer(conv_model)

    status, output = start_agent("--once").end()

    assert status == 0, output
    (report,) = host.reports
    assert (report.job_id, report.attempt) == (lease.job_id, 1)
    assert report.idempotency_key == lease.idempotency_key
    (process,) = report.measured.processes
    ticks = [tick for b in process.blocks for tick in itertools.accumulate(b.latency_ticks)]
    assert len(ticks) >= 5
    assert all(10 < tick < 10_000_000 for tick in ticks)
    memory = process.memory
    assert 0 < memory.base_rss_bytes <= memory.load_rss_bytes <= memory.peak_rss_bytes
    assert not report.measured.HasField("energy")
    assert report.measured.energy_absent_because


def test_hello_says_what_the_device_is(host: Any, start_agent: Callable[..., Any]) -> None:
    start_agent("--once").end()

    (hello,) = host.hellos
    assert hello.protocol_min == hello.protocol_max == 3
    assert hello.agent_version
    assert hello.facts.cpu_model
    runtime, *_ = hello.facts.runtimes
    assert (runtime.name, runtime.works) == ("onnx", True)
    for source in hello.facts.power_sources:
        assert source.works == (source.why_not == "")


def test_every_waiting_job_is_worked_off(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes, make_model: Callable[..., bytes]
) -> None:
    host.offer(conv_model)
    host.offer(make_model())

    start_agent("--once").end()

    assert [report.job_id for report in host.reports] == ["job-1", "job-2"]


def test_a_job_offered_later_is_taken_at_once(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    start_agent()
    assert host.watching.wait(20)

    host.offer(conv_model)

    (report,) = host.wait_for_reports(1)
    assert report.WhichOneof("outcome") == "measured"


def test_a_half_pulled_blob_is_resumed_where_it_broke(
    host: Any, start_agent: Callable[..., Any], make_model: Callable[..., bytes]
) -> None:
    model = make_model(pad_bytes=1500 * KIB)
    host.offer(model)
    host.cut_blob_after = 768 * KIB

    start_agent()

    (report,) = host.wait_for_reports(1)
    assert report.WhichOneof("outcome") == "measured", report.failure
    sha256 = hashlib.sha256(model).hexdigest()
    assert host.blob_requests == [(sha256, 0), (sha256, 768 * KIB)]
    # One process is one session, however often the link breaks.
    assert len({hello.session_id for hello in host.hellos}) == 1


def test_a_model_that_is_there_is_not_pulled_again(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.offer(conv_model)
    host.offer(conv_model)

    start_agent("--once").end()

    assert len(host.reports) == 2
    assert len(host.blob_requests) == 1


def test_an_outcome_of_an_earlier_life_is_reported_before_hello(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], spec: MeasureSpec
) -> None:
    failure = Failure(FailureKind.TIMEOUT, "too slow")
    with contextlib.closing(Outbox(enrolled.outbox)) as outbox:
        outbox.put(Lease("old", "old-job", 3, 60.0, spec), failure, "another boot")
    host.refuse_hello = (grpc.StatusCode.FAILED_PRECONDITION, "not yet")

    start_agent("--once").end()

    (report,) = host.reports
    assert report.idempotency_key == "old-job:3"
    assert report.failure.kind == pb.Failure.KIND_TIMEOUT
    assert not report.HasField("sent_monotonic_seconds")
    assert waiting(enrolled) == (0, 0)


def waiting(home: Home) -> tuple[int, int]:
    with contextlib.closing(Outbox(home.outbox)) as outbox:
        return outbox.counts()


def test_an_outcome_waits_while_the_host_is_away(
    host: Any,
    enrolled: Home,
    start_agent: Callable[..., Any],
    conv_model: bytes,
    plan_lasting: Callable[[float], Plan],
) -> None:
    host.offer(conv_model, plan=plan_lasting(2.0))
    agent = start_agent()
    wait_until(lambda: list(enrolled.cache.glob("??/*")))
    host.stop()
    wait_until(lambda: rows(enrolled) == 1)

    host.start()

    (report,) = host.wait_for_reports(1)
    assert report.WhichOneof("outcome") == "measured"
    wait_until(lambda: rows(enrolled) == 0)
    assert agent.process.poll() is None


def rows(home: Home) -> int:
    if not home.outbox.exists():
        return 0
    with contextlib.closing(sqlite3.connect(str(home.outbox), timeout=10)) as connection:
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if not tables:
            return 0
        (count,) = connection.execute("SELECT COUNT(*) FROM letters").fetchone()
        return int(count)


def test_an_agent_killed_while_the_host_was_away_delivers_in_its_next_life(
    host: Any,
    enrolled: Home,
    start_agent: Callable[..., Any],
    conv_model: bytes,
    plan_lasting: Callable[[float], Plan],
) -> None:
    host.offer(conv_model, plan=plan_lasting(1.0))
    agent = start_agent()
    wait_until(lambda: list(enrolled.cache.glob("??/*")))
    host.stop()
    wait_until(lambda: rows(enrolled) == 1)
    agent.process.kill()
    agent.end()
    host.start()

    start_agent("--once").end()

    (report,) = host.reports
    assert report.WhichOneof("outcome") == "measured"
    assert report.idempotency_key == "job-1:1"


def test_an_acknowledgement_of_a_duplicate_empties_the_outbox_too(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.stored_already = True
    host.offer(conv_model)

    _, output = start_agent("--once").end()

    assert "had its result already" in output
    assert waiting(enrolled) == (0, 0)


def test_a_report_that_the_host_will_never_take_is_set_aside_and_work_goes_on(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.refuse_report = (grpc.StatusCode.NOT_FOUND, "no such job")
    host.offer(conv_model)

    status, output = start_agent("--once").end()

    assert status == 0
    assert "no such job" in output
    assert waiting(enrolled) == (0, 1)


def test_a_running_job_is_cancelled_by_an_event(
    host: Any, start_agent: Callable[..., Any], hours_model: bytes
) -> None:
    lease = host.offer(hours_model)
    start_agent()
    wait_until(lambda: host.blob_requests)
    time.sleep(0.3)

    host.events.put(pb.Event(kind=pb.Event.KIND_CANCEL, job_id=lease.job_id))

    (report,) = host.wait_for_reports(1)
    assert report.failure.kind == pb.Failure.KIND_CANCELLED


def test_a_running_job_is_cancelled_by_the_answer_to_a_renewal(
    host: Any, start_agent: Callable[..., Any], hours_model: bytes
) -> None:
    lease = host.offer(hours_model, lease_seconds=0.6)
    host.cancel_on_renew.add(lease.id)

    start_agent("--once").end()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_CANCELLED
    assert host.renewals


def test_a_device_that_is_shut_out_in_the_middle_of_a_job_stops_it(
    host: Any, start_agent: Callable[..., Any], hours_model: bytes
) -> None:
    host.offer(hours_model)
    agent = start_agent()
    wait_until(lambda: host.blob_requests)
    wait_until(lambda: workers_of(agent.process.pid))
    (worker,) = workers_of(agent.process.pid)
    revoked = (grpc.StatusCode.UNAUTHENTICATED, "this device was revoked")

    host.refuse_hello = host.refuse_report = host.refuse_watch = revoked

    wait_until(lambda: not is_alive(worker), 5)
    wait_until(lambda: len(host.reports) == 2)
    time.sleep(0.5)
    agent.process.terminate()
    _, output = agent.end()
    assert "the host refuses this device: this device was revoked" in output


def test_a_cancel_of_another_job_leaves_this_one_alone(
    host: Any,
    start_agent: Callable[..., Any],
    conv_model: bytes,
    plan_lasting: Callable[[float], Plan],
) -> None:
    host.offer(conv_model, plan=plan_lasting(0.5))
    start_agent()
    wait_until(lambda: host.blob_requests)

    host.events.put(pb.Event(kind=pb.Event.KIND_CANCEL, job_id="another"))

    (report,) = host.wait_for_reports(1)
    assert report.WhichOneof("outcome") == "measured"


def test_a_lease_is_renewed_while_its_job_runs(
    host: Any,
    start_agent: Callable[..., Any],
    conv_model: bytes,
    plan_lasting: Callable[[float], Plan],
) -> None:
    lease = host.offer(conv_model, lease_seconds=0.6, plan=plan_lasting(1.5))

    start_agent("--once").end()

    assert host.reports[0].WhichOneof("outcome") == "measured"
    assert len(host.renewals) >= 3
    assert set(host.renewals) == {lease.id}


def test_no_renewal_falls_into_a_timed_block(
    host: Any,
    start_agent: Callable[..., Any],
    conv_model: bytes,
    plan_lasting: Callable[[float], Plan],
) -> None:
    """Both sides read the same monotonic clock here."""
    host.offer(conv_model, lease_seconds=3.0, plan=plan_lasting(3.0))

    start_agent("--once").end()

    (report,) = host.reports
    (process,) = report.measured.processes
    blocks = [
        (block.started_monotonic_seconds, block.started_monotonic_seconds + block.lasted_seconds)
        for block in process.blocks
    ]
    assert any(blocks[0][0] < moment < blocks[-1][1] for moment in host.renewed_at)
    assert not [
        moment for moment in host.renewed_at for start, end in blocks if start < moment < end
    ]


def test_an_hours_model_ends_at_its_timeout(
    host: Any, start_agent: Callable[..., Any], hours_model: bytes
) -> None:
    host.offer(hours_model, timeout_seconds=2.0)

    start_agent("--once").end()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_TIMEOUT


@pytest.fixture
def verify_job(quick_run: ModelRun, conv_model: bytes) -> Any:
    """A spec to verify the model on four examples, and its files."""
    numpy = pytest.importorskip("numpy")
    file = io.BytesIO()
    numpy.savez(file, x=numpy.ones((4, 32, 56, 56), "float32"))
    inputs = file.getvalue()
    names = [hashlib.sha256(data).hexdigest() for data in (conv_model, inputs)]
    run = dataclasses.replace(quick_run, model_sha256=names[0], model_size_bytes=len(conv_model))
    spec = VerifySpec(PROTOCOL, run, names[1], len(inputs), 8_000_000, timeout_seconds=60.0)
    return spec, dict(zip(names, (conv_model, inputs)))


def test_the_outputs_of_a_model_arrive_before_the_report_of_them(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], verify_job: Any
) -> None:
    numpy = pytest.importorskip("numpy")
    lease = host.offer_spec(*verify_job)

    status, output = start_agent("--once").end()

    assert status == 0, output
    ((lease_id, sha256, data),) = host.uploads
    assert lease_id == lease.id
    assert max(host.upload_parts) == 256 * KIB
    (report,) = host.reports
    assert report.WhichOneof("outcome") == "verified", report.failure
    assert report.verified.outputs_sha256 == sha256 == hashlib.sha256(data).hexdigest()
    assert report.verified.outputs_size_bytes == len(data)
    assert report.verified.examples == 4
    with numpy.load(io.BytesIO(data)) as outputs:
        assert outputs["y"].shape == (4, 32, 56, 56)
    assert list(enrolled.spool.iterdir()) == []


def test_outputs_wait_in_the_spool_until_the_host_takes_them(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], verify_job: Any
) -> None:
    host.offer_spec(*verify_job)
    host.refuse_one_upload = (grpc.StatusCode.UNAVAILABLE, "the link broke")

    start_agent()

    (report,) = host.wait_for_reports(1)
    assert report.WhichOneof("outcome") == "verified"
    assert len(host.uploads) == 1
    wait_until(lambda: list(enrolled.spool.iterdir()) == [])


def test_outputs_that_the_host_refuses_are_not_kept_on_the_card(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], verify_job: Any
) -> None:
    host.offer_spec(*verify_job)
    host.refuse_one_upload = (grpc.StatusCode.PERMISSION_DENIED, "no such lease")

    status, output = start_agent("--once").end()

    assert status == 0
    assert "no such lease" in output
    assert host.reports == []
    assert waiting(enrolled) == (0, 1)
    assert list(enrolled.spool.iterdir()) == []


def test_outputs_that_are_gone_are_reported_as_a_failure(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], verify_job: Any
) -> None:
    lease = Lease("old", "old-job", 1, 60.0, verify_job[0])
    gone = VerifiedOutputs(
        "onnx", "onnxruntime", "1", (), "0" * 64, 5, 2, enrolled.spool / "outputs-gone.npz"
    )
    with contextlib.closing(Outbox(enrolled.outbox)) as outbox:
        outbox.put(lease, gone, "another boot")

    start_agent("--once").end()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_WORKER_CRASHED
    assert "no longer on the device" in report.failure.message


def test_a_new_life_keeps_outputs_that_wait_and_sweeps_away_the_rest(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], verify_job: Any
) -> None:
    waits = enrolled.spool / "outputs-waits.npz"
    (enrolled.spool / "trace-left" / "deep").mkdir(parents=True)
    (enrolled.spool / "trace-left" / "deep" / "trace.json").write_text("{}")
    (enrolled.spool / "outputs-left.npz").write_bytes(b"nobody's")
    waits.write_bytes(b"12345")
    outputs = VerifiedOutputs(
        "onnx", "onnxruntime", "1", (), hashlib.sha256(b"12345").hexdigest(), 5, 2, waits
    )
    with contextlib.closing(Outbox(enrolled.outbox)) as outbox:
        outbox.put(Lease("old", "old-job", 1, 60.0, verify_job[0]), outputs, "another boot")

    start_agent("--once").end()

    assert host.uploads == [("old", outputs.outputs_sha256, b"12345")]
    assert host.reports[0].WhichOneof("outcome") == "verified"
    assert list(enrolled.spool.iterdir()) == []


def test_a_profile_and_a_probe_are_worked_off_and_reported(
    host: Any,
    start_agent: Callable[..., Any],
    conv_model: bytes,
    quick_run: ModelRun,
    quick_readiness: Readiness,
) -> None:
    sha256 = hashlib.sha256(conv_model).hexdigest()
    run = dataclasses.replace(quick_run, model_sha256=sha256, model_size_bytes=len(conv_model))
    host.offer_spec(ProfileSpec(PROTOCOL, run, 5, timeout_seconds=60.0), {sha256: conv_model})
    host.offer_spec(ProbeSpec(PROTOCOL, quick_readiness, timeout_seconds=60.0), {})

    start_agent("--once").end()

    profiled, probed = host.reports
    assert profiled.profile.runs == 5
    assert "Conv" in {operator.kind for operator in profiled.profile.operators}
    assert probed.probe.references[0].runtime == "onnx"
    assert len(probed.probe.references[0].latency_seconds) > 5
    assert probed.probe.preflight.canary_seconds > 0


def test_a_report_says_when_it_was_sent_on_the_clock_of_its_phases(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    before = time.monotonic()
    host.offer(conv_model)

    start_agent("--once").end()

    (report,) = host.reports
    assert before < report.sent_monotonic_seconds < time.monotonic()


def test_a_busy_device_is_not_ready_and_says_who_is_to_blame(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes, quick_readiness: Readiness
) -> None:
    strict = dataclasses.replace(
        quick_readiness, observe_seconds=0.5, max_foreign_cpu=0.05, measure_when_busy=False
    )
    host.offer(conv_model, readiness=strict)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as hog:
        start_agent("--once").end()
        hog.kill()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_NOT_READY
    assert "the limit is 5%" in report.failure.message
    assert f"process {hog.pid}" in report.failure.message


def test_a_result_that_no_message_can_hold_is_a_failure_that_says_so(
    host: Any, enrolled: Home, samples: MeasuredSamples
) -> None:
    from device_agent.link import Link

    noisy = tuple(0.01 * (n % 7919) for n in range(500_000))
    block = dataclasses.replace(samples.processes[0].blocks[0], latency_seconds=noisy)
    process = dataclasses.replace(samples.processes[0], blocks=(block,))
    letter = Letter("j:1", "j", 1, "l", "b", dataclasses.replace(samples, processes=(process,)))
    link = Link(enrolled.identity())

    stored = link.report(letter, None)

    link.close()
    assert stored
    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_RESOURCE
    assert "1048576" in report.failure.message


def test_a_corrupt_model_is_a_rejected_model(host: Any, start_agent: Callable[..., Any]) -> None:
    host.offer(b"this is no model")

    start_agent("--once").end()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_MODEL_REJECTED


def test_a_model_with_external_data_is_a_rejected_model(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(conv_model)
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/hostname")
    host.offer(model.SerializeToString())

    start_agent("--once").end()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_MODEL_REJECTED
    assert "external data" in report.failure.message


def test_other_bytes_than_the_lease_names_are_never_measured(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.offer(conv_model, announced_sha256="0" * 64)

    start_agent("--once").end()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_MODEL_REJECTED
    assert "not what was announced" in report.failure.message


@pytest.mark.parametrize("spoken", [(1, 2), (4, 5)], ids=["older host", "newer host"])
def test_versions_that_do_not_meet_print_the_sentence_of_the_host(
    host: Any, start_agent: Callable[..., Any], spoken: Any
) -> None:
    host.protocols = spoken

    status, output = start_agent("--once").end()

    assert status == 1
    assert f"this host {spoken[0]} to {spoken[1]}: update the older of the two" in output
    assert "Traceback" not in output


def test_a_job_that_another_than_the_host_signed_is_neither_run_nor_reported(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes, another_authority: Any
) -> None:
    host.sign = lambda lease: pb.SignedLease(
        lease=lease, signature=another_authority.sign_lease(lease)
    )
    for _ in range(3):
        host.offer(conv_model)
    agent = start_agent()
    wait_until(lambda: len(host.waiting) == 2)

    time.sleep(1.5)

    # And it asks for no other one, for ten minutes.
    assert len(host.waiting) == 2
    assert host.blob_requests == []
    assert host.reports == []
    agent.process.terminate()
    status, output = agent.end()
    assert status == 0
    assert "no job is taken from the host, because the job is not signed with the key" in output
    assert "trying again in 10 minutes" in output


def test_a_refused_agent_that_is_enrolled_anew_is_back_within_seconds(
    host: Any, enrolled: Home, start_agent: Callable[..., Any]
) -> None:
    from device_agent.enrol import enrol, parse_token
    from device_agent.identity import make_key_pair
    from device_agent.system import read_facts

    host.refuse_hello = (grpc.StatusCode.UNAUTHENTICATED, "this device was revoked")
    start_agent()
    wait_until(lambda: host.hellos)
    host.refuse_hello = None

    enrol(enrolled, parse_token(host.token), read_facts(), make_key_pair=make_key_pair, force=True)

    assert host.watching.wait(8)


def test_a_report_whose_acknowledgement_was_lost_is_sent_again_and_stored_once(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.lose_one_acknowledgement = True
    host.offer(conv_model)
    start_agent()

    first, second = host.wait_for_reports(2)

    assert first.idempotency_key == second.idempotency_key
    assert first.measured == second.measured
    assert list(host.stored) == [first.idempotency_key]
    wait_until(lambda: rows(enrolled) == 0)


def test_an_outbox_that_is_no_database_any_more_is_set_aside_and_work_goes_on(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    enrolled.outbox.write_bytes(b"\0" * 10_000)
    host.offer(conv_model)

    status, output = start_agent("--once").end()

    assert status == 0
    assert "the outbox was damaged" in output
    assert enrolled.outbox.with_name("outbox.sqlite.damaged-1").read_bytes() == b"\0" * 10_000
    assert [report.WhichOneof("outcome") for report in host.reports] == ["measured"]


def test_a_file_that_the_host_does_not_have_is_a_failure_and_not_asked_for_for_ever(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.offer(conv_model)
    host.blob_refusal = (grpc.StatusCode.NOT_FOUND, "no such file here")

    start_agent("--once").end()

    (report,) = host.reports
    assert report.failure.kind == pb.Failure.KIND_RESOURCE
    assert "no such file here" in report.failure.message


def test_a_job_whose_lease_is_gone_is_given_up_and_not_reported(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.offer(conv_model)
    host.blob_refusal = (grpc.StatusCode.PERMISSION_DENIED, "no lease names this file")

    status, output = start_agent("--once").end()

    assert status == 0
    assert "given up" in output
    assert host.reports == []


def test_on_a_full_disk_a_job_fails_is_reported_all_the_same_and_the_next_one_works(
    host: Any, enrolled: Home, small_disk: Any, tmp_path: Path, conv_model: bytes
) -> None:
    script = 'cp -r "$1" "$2/home" && cd "$3" && exec "$4" -m device_agent run --home "$2/home"'
    disk, root = tmp_path / "disk", Path(__file__).parents[2]
    command = ["sh", "-c", script, "sh", str(enrolled.path), str(disk), str(root), sys.executable]
    with subprocess.Popen(
        [*small_disk.before, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        assert host.watching.wait(30)
        filler = Path(f"/proc/{agent.pid}/root{disk}/filler")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4 * KIB))
        host.offer(conv_model)
        (failed,) = host.wait_for_reports(1)
        filler.unlink()
        host.offer(conv_model)
        _, measured = host.wait_for_reports(2)
        agent.terminate()
        output, _ = agent.communicate(timeout=20)

    assert failed.failure.kind == pb.Failure.KIND_RESOURCE, output
    assert "cannot be kept on this device" in failed.failure.message
    assert "held in memory until then" in output
    assert measured.WhichOneof("outcome") == "measured", output
    assert "Traceback" not in output


def test_a_refused_agent_waits_and_does_not_hammer_the_host(
    host: Any, start_agent: Callable[..., Any]
) -> None:
    host.refuse_hello = (grpc.StatusCode.UNAUTHENTICATED, "this device was removed")
    agent = start_agent()
    wait_until(lambda: host.hellos)

    time.sleep(1.0)
    agent.process.terminate()
    _, output = agent.end()

    assert len(host.hellos) == 1
    assert "this device was removed" in output


def test_a_host_with_another_ca_is_never_spoken_to(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], another_authority: Any
) -> None:
    identity = enrolled.identity()
    enrolled.save_identity(dataclasses.replace(identity, ca_pem=another_authority.ca_pem))

    status, output = start_agent("--once").end()

    assert status == 1
    assert "cannot be reached" in output
    assert host.hellos == []


def test_an_agent_without_a_certificate_of_this_host_is_turned_away(
    host: Any, enrolled: Home, start_agent: Callable[..., Any], another_authority: Any
) -> None:
    from cryptography.hazmat.primitives import serialization

    identity = enrolled.identity()
    key = serialization.load_pem_private_key(identity.key_pem, password=None)
    foreign = another_authority.issue(key.public_key(), "stranger")
    enrolled.save_identity(dataclasses.replace(identity, certificate_pem=foreign))

    status, _ = start_agent("--once").end()

    assert status == 1
    assert host.hellos == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_agent_ends_at_once_when_told_to(
    host: Any, start_agent: Callable[..., Any], number: int
) -> None:
    agent = start_agent()
    assert host.watching.wait(20)
    started = time.monotonic()

    agent.process.send_signal(number)
    status, output = agent.end()

    assert status == 0
    assert time.monotonic() - started < 2
    assert "Traceback" not in output


def test_a_measuring_agent_ends_at_once_and_leaves_no_worker(
    host: Any, start_agent: Callable[..., Any], hours_model: bytes
) -> None:
    host.offer(hours_model)
    agent = start_agent()
    wait_until(lambda: host.blob_requests)
    wait_until(lambda: workers_of(agent.process.pid))
    time.sleep(0.3)
    (worker,) = workers_of(agent.process.pid)
    started = time.monotonic()

    agent.process.terminate()
    status, output = agent.end()

    assert status == 0, output
    assert time.monotonic() - started < 3
    assert host.reports == []
    wait_until(lambda: not is_alive(worker), 5)


class RecordingService:
    """Remembers what a service manager was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self) -> None:
        self.told.append("ready")

    def alive(self) -> None:
        self.told.append("alive")

    def status(self, text: str) -> None:
        self.told.append(text)

    def stopping(self) -> None:
        self.told.append("stopping")


def run_in_this_process(home: Home, service: RecordingService) -> None:
    from device_agent.processes import default_worker_command
    from device_agent.session import run_agent

    run_agent(
        home,
        once=True,
        worker_command=default_worker_command(),
        say=lambda _: None,
        service=service,
    )


def test_a_service_manager_is_told_what_goes_on(
    host: Any, enrolled: Home, conv_model: bytes, plan_lasting: Callable[[float], Plan]
) -> None:
    lease = host.offer(conv_model, plan=plan_lasting(1.5))
    service = RecordingService()

    run_in_this_process(enrolled, service)

    first, ready, *rest = service.told
    assert first.startswith("attached to 127.0.0.1")
    assert ready == "ready"
    doing = f"job {lease.job_id}: measuring {lease.spec.run.model_sha256[:12]}"
    alive = rest.index("alive", rest.index(doing))
    assert alive < rest.index("waiting for jobs")
    assert service.told[-1] == "stopping"
    assert service.told.count("ready") == 1


def test_an_agent_whose_host_is_away_has_started_all_the_same(
    host: Any, enrolled: Home, spec: MeasureSpec
) -> None:
    host.stop()
    with contextlib.closing(Outbox(enrolled.outbox)) as outbox:
        failure = Failure(FailureKind.TIMEOUT, "too slow")
        outbox.put(Lease("old", "old-job", 3, 60.0, spec), failure, "another boot")
    service = RecordingService()

    with pytest.raises(HostAwayError):
        run_in_this_process(enrolled, service)

    # A slow machine may be alive for a while before it is ready.
    assert [told for told in service.told if told != "alive"] == ["ready", "stopping"]


def test_a_worker_does_not_outlive_an_agent_that_was_killed(
    host: Any, start_agent: Callable[..., Any], hours_model: bytes
) -> None:
    host.offer(hours_model)
    agent = start_agent()
    wait_until(lambda: host.blob_requests)
    wait_until(lambda: workers_of(agent.process.pid))
    time.sleep(0.5)
    (worker,) = workers_of(agent.process.pid)

    agent.process.kill()

    wait_until(lambda: not is_alive(worker), 5)


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        return stat.rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_agent_comes_back_when_the_host_does(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    start_agent()
    assert host.watching.wait(20)
    host.stop()
    time.sleep(0.5)
    host.start()

    host.offer(conv_model)

    host.wait_for_reports(1)
    assert len(host.hellos) >= 2


def test_an_agent_whose_session_the_host_forgot_says_hello_again(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    host.refuse_one_claim = (grpc.StatusCode.FAILED_PRECONDITION, "this session is unknown")
    host.offer(conv_model)

    start_agent()

    host.wait_for_reports(1)
    assert len(host.hellos) == 2


def test_a_drained_agent_claims_nothing_more_until_it_has_attached_again(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    start_agent()
    assert host.watching.wait(20)
    host.events.put(pb.Event(kind=pb.Event.KIND_DRAIN))
    time.sleep(0.5)

    host.offer(conv_model)

    time.sleep(1.0)
    assert host.reports == []
    host.wait_for_reports(1)
    assert len(host.hellos) == 2


def test_one_home_serves_one_agent(host: Any, start_agent: Callable[..., Any]) -> None:
    start_agent()
    assert host.watching.wait(20)

    status, output = start_agent("--once").end()

    assert status == 1
    assert "another agent runs" in output


def test_a_host_that_is_away_is_complained_of_once(
    host: Any, start_agent: Callable[..., Any]
) -> None:
    host.stop()
    agent = start_agent()
    first = agent.process.stdout.readline()
    time.sleep(2.0)

    agent.process.terminate()
    _, rest = agent.end()

    assert "cannot be reached" in first
    assert "cannot be reached" not in rest


@pytest.mark.skipif(struct.calcsize("P") == 4, reason="the limit is that of 64-bit systems")
def test_a_waiting_agent_takes_20_mebibytes_of_its_own_and_45_with_shared_libraries(
    host: Any, start_agent: Callable[..., Any], conv_model: bytes
) -> None:
    agent = start_agent()
    assert host.watching.wait(20)
    time.sleep(0.5)

    before_any_job = resident_kib(agent.process.pid)
    host.offer(conv_model)
    host.wait_for_reports(1)
    time.sleep(0.5)

    # How many pages of the libraries' files are resident depends on the page cache: the same agent
    # stood at 39 and at 42 MiB in all with 17.1 MiB of its own.
    for resident in (before_any_job, resident_kib(agent.process.pid)):
        assert resident["RssAnon"] <= 20 * KIB
        assert resident["VmRSS"] <= 45 * KIB


def resident_kib(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {
        name: int(value.split()[0])
        for name, value in (line.split(":", 1) for line in lines)
        if name in ("VmRSS", "RssAnon")
    }


def test_the_fixed_clock_of_the_end_to_end_tests_makes_measurements_repeatable(
    host: Any, enrolled: Home, conv_model: bytes, make_model: Callable[..., bytes]
) -> None:
    script = Path(__file__).parent.parent / "end_to_end" / "fixed_clock_agent.py"
    models = [conv_model, make_model(pad_bytes=100 * KIB)]
    for model in models * 2:
        host.offer(model)

    subprocess.run(
        [sys.executable, str(script), "--home", str(enrolled.path), "--once"], check=True
    )

    first, other, again, other_again = [report.measured for report in host.reports]
    for one, two in ((first, again), (other, other_again)):
        assert one.processes
        assert list(one.processes) == list(two.processes)
    assert first.processes[0].blocks != other.processes[0].blocks
    assert first.processes[0].memory != other.processes[0].memory


def test_threads_that_listen_end_with_their_connection(host: Any, enrolled: Home) -> None:
    from device_agent.link import Link

    link = Link(enrolled.identity())
    watch = link.watch("session")
    assert host.watching.wait(10)

    watch.cancel()
    link.close()

    names = {thread.name for thread in threading.enumerate()}
    assert not any("_listen" in name for name in names)
