"""The gateway as devices meet it: real TLS on loopback, and an agent made of the stubs."""

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from host.gateway.server import (
    GatewayError,
    Listen,
    RunningGateway,
    ensure_gateway,
    start_in_thread,
)
from host.measurement import Measurement, MeasurementFailure, ProbeSpec, VerifiedOutputs
from host.pki import CertificateAuthority, Token, read_csr
from host.store import Store, wait_for_outcomes
from host.workspace import GatewayRunsError, Workspace
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from tests.host.conftest import ConnectedDevice, FakeClock, Fleet, ScriptedAgent

Connect = Callable[[str], "ConnectedDevice"]
MakeToken = Callable[[str], Token]
MakeAgent = Callable[[], "ScriptedAgent"]


class Watching:
    """Reads a Watch stream in a thread."""

    def __init__(self, connected: "ConnectedDevice") -> None:
        request = pb.WatchRequest(session_id=connected.agent.session_id)
        self.call = connected.stub.Watch(request)
        self.events: queue.Queue[pb.Event | grpc.RpcError | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def next(self, seconds: float = 5.0) -> pb.Event | grpc.RpcError | None:
        return self.events.get(timeout=seconds)

    def close(self) -> None:
        self.call.cancel()
        self._thread.join()

    def _read(self) -> None:
        try:
            for event in self.call:
                self.events.put(event)
            self.events.put(None)
        except grpc.RpcError as error:
            self.events.put(error)


@pytest.fixture
def watch() -> Iterator[Callable[["ConnectedDevice"], Watching]]:
    opened: list[Watching] = []

    def start(connected: "ConnectedDevice") -> Watching:
        opened.append(Watching(connected))
        return opened[-1]

    yield start
    for watching in opened:
        watching.close()


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value  # also a grpc.Call
    return error.code(), error.details()


def test_a_device_enrols_and_the_host_keeps_what_it_is(
    connect: Connect, store: Store, clock: "FakeClock"
) -> None:
    connected = connect("kiosk")

    device = store.devices.by_name("kiosk")
    assert device.id == connected.device.id
    assert device.agent_version == "0.1.0"
    assert device.last_seen_at == clock()
    assert device.facts is not None
    assert device.facts.cpu_model == "Intel(R) Core(TM)2 Duo"
    assert device.facts.cpu_cores_physical is None
    assert device.facts.temperature_celsius == 41.5


def test_what_a_device_says_cannot_control_a_terminal(connect: Connect, store: Store) -> None:
    connect("kiosk")

    facts = store.devices.by_name("kiosk").facts

    assert facts is not None
    assert facts.hostname == "line-3 [31m"


def test_a_token_used_twice_is_refused(make_agent: MakeAgent, make_token: MakeToken) -> None:
    token = make_token("kiosk")
    make_agent().enrol(token)

    code, sentence = refused(lambda: make_agent().enrol(token))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "used already" in sentence
    assert "genba device enroll kiosk" in sentence


def test_an_expired_token_is_refused(
    make_agent: MakeAgent, make_token: MakeToken, clock: "FakeClock"
) -> None:
    token = make_token("kiosk")
    clock.advance(3601)

    code, sentence = refused(lambda: make_agent().enrol(token))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "has expired" in sentence


def test_an_unknown_token_is_refused(
    make_agent: MakeAgent, gateway: RunningGateway, workspace: Workspace
) -> None:
    token = Token.make("127.0.0.1", gateway.enrolment_port, workspace.authority().fingerprint)

    code, sentence = refused(lambda: make_agent().enrol(token))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "unknown" in sentence


def test_a_bad_certificate_request_does_not_use_up_the_token(
    make_agent: MakeAgent, make_token: MakeToken
) -> None:
    token = make_token("kiosk")

    code, sentence = refused(lambda: make_agent().enrol(token, csr_pem=b"no request"))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "must be PEM" in sentence
    assert make_agent().enrol(token).device_name == "kiosk"


def test_enrolling_again_keeps_the_device_and_replaces_its_key(
    connect: Connect, make_agent: MakeAgent, make_token: MakeToken
) -> None:
    before = connect("kiosk")

    after = make_agent().enrol(make_token("kiosk"))

    assert after.device_id == before.device.id
    code, sentence = refused(lambda: before.agent.claim(before.stub))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "enrol it with a new token" in sentence


def test_the_key_of_one_device_cannot_enrol_as_another(
    connect: Connect, make_token: MakeToken
) -> None:
    connected = connect("kiosk")

    code, sentence = refused(lambda: connected.agent.enrol(make_token("press")))

    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert "'kiosk'" in sentence


def test_a_device_removed_while_connected_is_refused_at_the_next_call(
    connect: Connect, store: Store
) -> None:
    connected = connect("kiosk")
    store.devices.remove("kiosk")

    code, sentence = refused(lambda: connected.agent.claim(connected.stub))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "removed" in sentence


def test_the_watch_of_a_removed_device_ends_with_the_reason(
    connect: Connect, store: Store, watch: Callable[["ConnectedDevice"], Watching]
) -> None:
    connected = connect("kiosk")
    watching = watch(connected)

    store.devices.remove("kiosk")

    error: Any = watching.next()
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_revoked_device_is_cut_off_within_a_second(
    connect: Connect,
    store: Store,
    fleet: "Fleet",
    watch: Callable[["ConnectedDevice"], Watching],
) -> None:
    connected = connect("kiosk")
    job = store.jobs.submit(connected.device.id, fleet.spec())
    lease = connected.agent.claim(connected.stub).lease
    watching = watch(connected)
    time.sleep(0.1)  # the gateway knows it by heart

    store.devices.revoke("kiosk", reason="stolen")
    revoked = time.monotonic()

    error: Any = watching.next()
    assert time.monotonic() - revoked < 1.0
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "revoked" in error.details()
    for call in (
        lambda: connected.agent.claim(connected.stub),
        lambda: connected.agent.report(connected.stub, lease),
        lambda: connected.agent.read(connected.stub, lease.measure.run.model_sha256),
        lambda: connected.agent.hello(connected.stub),
        lambda: connected.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id), timeout=5),
    ):
        code, _ = refused(call)
        assert code is grpc.StatusCode.UNAUTHENTICATED
    assert store.jobs.get(job.id).state == "cancelled"


def test_a_revoked_device_does_not_get_the_rest_of_a_file(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    spec = fleet.spec(bytes(16 * 1024 * 1024))
    store.jobs.submit(connected.device.id, spec)
    connected.agent.claim(connected.stub)
    request = pb.BlobRequest(sha256=spec.run.model_sha256)
    chunks = connected.stub.ReadBlob(request, timeout=20)
    next(chunks)

    store.devices.revoke("kiosk")
    time.sleep(0.5)

    code, _ = refused(lambda: list(chunks))
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_a_revoked_device_may_enrol_anew_and_is_accepted_at_once(
    connect: Connect, store: Store
) -> None:
    before = connect("kiosk")
    store.devices.revoke("kiosk")

    after = connect("kiosk")

    assert after.device.id == before.device.id
    assert not after.agent.claim(after.stub).HasField("lease")


def test_a_stolen_token_shows_in_the_audit_log_with_the_address_of_the_thief(
    make_agent: MakeAgent,
    make_token: MakeToken,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = make_token("kiosk")
    make_agent().enrol(token)

    refused(lambda: make_agent().enrol(token))

    (entry,) = store.audit.entries(action="refuse")
    assert (entry.subject, entry.details["reason"]) == ("kiosk", "used token")
    assert entry.details["peer"].startswith("127.0.0.1:")
    assert "Enroll refused to 127.0.0.1:" in caplog.text
    (enrolled,) = store.audit.entries(action="enrol")
    assert enrolled.details["peer"].startswith("127.0.0.1:")


def test_a_certificate_of_another_authority_is_refused(
    connect: Connect, gateway: RunningGateway
) -> None:
    connected = connect("kiosk")
    agent = connected.agent
    agent.certificate_pem = CertificateAuthority.make().sign_device(
        read_csr(agent.csr_pem()), "kiosk"
    )

    code, _ = refused(lambda: agent.hello(agent.fleet(gateway.gateway_port)))

    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_host_with_another_authority_is_refused_by_the_device(
    connect: Connect, gateway: RunningGateway
) -> None:
    agent = connect("kiosk").agent
    agent.ca_pem = CertificateAuthority.make().certificate_pem

    code, _ = refused(lambda: agent.hello(agent.fleet(gateway.gateway_port)))

    assert code is grpc.StatusCode.UNAVAILABLE


def test_without_a_client_certificate_nothing_is_answered(
    connect: Connect, gateway: RunningGateway
) -> None:
    agent = connect("kiosk").agent
    credentials = grpc.ssl_channel_credentials(root_certificates=agent.ca_pem)
    stub = pb_grpc.FleetStub(agent._channel(gateway.gateway_port, credentials))

    code, _ = refused(lambda: agent.hello(stub))

    assert code is grpc.StatusCode.UNAVAILABLE


def test_plaintext_is_refused(connect: Connect, gateway: RunningGateway) -> None:
    agent = connect("kiosk").agent

    with grpc.insecure_channel(f"127.0.0.1:{gateway.gateway_port}") as channel:
        code, _ = refused(lambda: agent.hello(pb_grpc.FleetStub(channel)))

    assert code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("lowest", "highest", "told"),
    [
        (7, 9, "the host is too old: it speaks protocol 2 to 3, this agent protocol 7 to 9"),
        (1, 1, "the agent is too old: it speaks protocol 1 to 1, this host 2 to 3"),
    ],
)
def test_protocols_without_overlap_are_refused_naming_the_older_side(
    connect: Connect, lowest: int, highest: int, told: str
) -> None:
    connected = connect("kiosk")
    request = pb.HelloRequest(protocol_min=lowest, protocol_max=highest, session_id="s")

    code, sentence = refused(lambda: connected.stub.Hello(request, timeout=5))

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert told in sentence
    assert "update genba" in sentence


@pytest.mark.parametrize(("lowest", "highest", "chosen"), [(1, 2, 2), (2, 3, 3), (3, 9, 3)])
def test_the_newest_protocol_that_both_speak_is_chosen(
    connect: Connect, lowest: int, highest: int, chosen: int
) -> None:
    connected = connect("kiosk")
    request = pb.HelloRequest(
        protocol_min=lowest, protocol_max=highest, session_id="s", facts=pb.DeviceFacts()
    )

    assert connected.stub.Hello(request, timeout=5).protocol == chosen


def test_a_lease_is_signed_by_the_owner_of_the_ca_and_names_its_device(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, fleet.spec())

    reply = connected.agent.claim(connected.stub)

    authority = x509.load_pem_x509_certificate(connected.agent.ca_pem)
    key = authority.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    content = reply.signed.lease
    key.verify(reply.signed.signature, b"genba-lease/1\n" + content, ec.ECDSA(hashes.SHA256()))
    lease = pb.Lease.FromString(content)
    assert lease == reply.lease
    assert lease.device_id == connected.device.id
    with pytest.raises(InvalidSignature):
        key.verify(reply.signed.signature, content, ec.ECDSA(hashes.SHA256()))


def test_a_device_that_did_not_hear_of_its_lease_gets_it_again(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    for model in (b"one", b"two"):
        store.jobs.submit(connected.device.id, fleet.spec(model))

    leases = [connected.agent.claim(connected.stub).lease for _ in range(2)]

    assert leases[0] == leases[1]
    assert store.jobs.waiting(connected.device.id) == 1


def test_a_device_that_claims_again_after_it_has_worked_on_its_lease_gave_it_up(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    spec = fleet.spec()
    job = store.jobs.submit(connected.device.id, spec)

    for attempt in (1, 2, 3):
        lease = connected.agent.claim(connected.stub).lease
        assert lease.attempt == attempt
        connected.agent.read(connected.stub, spec.run.model_sha256)
    assert not connected.agent.claim(connected.stub).HasField("lease")

    outcome = store.jobs.outcome(job.id)
    assert isinstance(outcome, MeasurementFailure)
    assert "gave up 3 times" in outcome.message


def test_a_job_goes_the_whole_way(connect: Connect, store: Store, fleet: "Fleet") -> None:
    connected = connect("kiosk")
    model = bytes(range(256)) * 4000  # four chunks
    job = store.jobs.submit(connected.device.id, fleet.spec(model))

    lease = connected.agent.claim(connected.stub).lease
    content = connected.agent.read(connected.stub, lease.measure.run.model_sha256)
    reply = connected.agent.report(connected.stub, lease)

    assert lease.job_id == job.id
    assert content == model
    assert reply.stored
    [(_, outcome)] = wait_for_outcomes(store, [job])
    assert isinstance(outcome, Measurement)
    assert outcome.sample_count == 30
    assert outcome.energy is None
    assert outcome.energy_absent_because == "no powercap zone"
    assert outcome.verdict.level in ("OK", "WARN")
    assert outcome.latency_seconds == pytest.approx(0.010)
    assert not connected.agent.claim(connected.stub).HasField("lease")


def test_a_second_report_is_acknowledged_and_dropped(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, fleet.spec())
    lease = connected.agent.claim(connected.stub).lease

    replies = [connected.agent.report(connected.stub, lease).stored for _ in range(2)]

    assert replies == [True, False]
    assert len(store.measurements.of_device(connected.device.id)) == 1


def test_a_download_resumes_at_any_offset(connect: Connect, store: Store, fleet: "Fleet") -> None:
    connected = connect("kiosk")
    spec = fleet.spec(b"0123456789")
    store.jobs.submit(connected.device.id, spec)
    connected.agent.claim(connected.stub)

    rest = connected.agent.read(connected.stub, spec.run.model_sha256, offset=7)
    nothing = connected.agent.read(connected.stub, spec.run.model_sha256, offset=10)

    assert (rest, nothing) == (b"789", b"")
    code, _ = refused(
        lambda: connected.agent.read(connected.stub, spec.run.model_sha256, offset=11)
    )
    assert code is grpc.StatusCode.OUT_OF_RANGE


def test_a_device_reads_only_the_models_of_its_own_leases(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    kiosk, press = connect("kiosk"), connect("press")
    spec = fleet.spec()
    store.jobs.submit(kiosk.device.id, spec)
    kiosk.agent.claim(kiosk.stub)

    code, _ = refused(lambda: press.agent.read(press.stub, spec.run.model_sha256))

    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert kiosk.agent.read(kiosk.stub, spec.run.model_sha256) == b"a model"


def test_a_model_cannot_be_read_after_its_report(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    spec = fleet.spec()
    store.jobs.submit(connected.device.id, spec)
    connected.agent.report(connected.stub, connected.agent.claim(connected.stub).lease)

    code, _ = refused(lambda: connected.agent.read(connected.stub, spec.run.model_sha256))

    assert code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("sha256", ["", "../../pki/ca.key", "A" * 64], ids=["none", "path", "case"])
def test_a_hash_that_is_none_is_refused(connect: Connect, sha256: str) -> None:
    connected = connect("kiosk")

    code, _ = refused(lambda: connected.agent.read(connected.stub, sha256))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_nobody_reports_the_jobs_of_another_device(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    kiosk, press = connect("kiosk"), connect("press")
    job = store.jobs.submit(kiosk.device.id, fleet.spec())
    lease = kiosk.agent.claim(kiosk.stub).lease

    code, _ = refused(lambda: press.agent.report(press.stub, lease))

    assert code is grpc.StatusCode.NOT_FOUND
    assert store.jobs.outcome(job.id) is None


def _no_samples(request: pb.ReportRequest) -> None:
    del request.measured.processes[0].blocks[:]


def _not_a_number(request: pb.ReportRequest) -> None:
    request.measured.processes[0].load_seconds = float("nan")


def _no_outcome(request: pb.ReportRequest) -> None:
    request.ClearField("measured")


def _other_task(request: pb.ReportRequest) -> None:
    request.profile.runs = 3


@pytest.mark.parametrize("spoil", [_no_samples, _not_a_number, _no_outcome, _other_task])
def test_a_report_that_makes_no_sense_is_refused(
    connect: Connect,
    store: Store,
    fleet: "Fleet",
    report_of: Callable[[pb.Lease], pb.ReportRequest],
    spoil: Callable[[pb.ReportRequest], None],
) -> None:
    connected = connect("kiosk")
    job = store.jobs.submit(connected.device.id, fleet.spec())
    request = report_of(connected.agent.claim(connected.stub).lease)
    spoil(request)

    code, sentence = refused(lambda: connected.stub.Report(request, timeout=5))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence
    assert store.jobs.outcome(job.id) is None


def test_a_failure_is_an_outcome(connect: Connect, store: Store, fleet: "Fleet") -> None:
    connected = connect("kiosk")
    job = store.jobs.submit(connected.device.id, fleet.spec())
    lease = connected.agent.claim(connected.stub).lease

    connected.stub.Report(
        pb.ReportRequest(
            job_id=lease.job_id,
            attempt=lease.attempt,
            idempotency_key="k",
            failure=pb.Failure(kind=pb.Failure.KIND_WORKER_CRASHED, message="SIGILL"),
        ),
        timeout=5,
    )

    outcome = store.jobs.outcome(job.id)
    assert outcome is not None
    assert isinstance(outcome, MeasurementFailure)
    assert (outcome.kind, outcome.message) == ("worker_crashed", "SIGILL")
    assert store.jobs.get(job.id).state == "failed"


def test_a_device_that_is_not_ready_gets_the_job_later(
    connect: Connect, store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    connected = connect("kiosk")
    job = store.jobs.submit(connected.device.id, fleet.spec())
    lease = connected.agent.claim(connected.stub).lease

    failed = pb.Failure(kind=pb.Failure.KIND_NOT_READY, message="hot: 81 °C, limit 60 °C")
    request = pb.ReportRequest(
        job_id=lease.job_id, attempt=lease.attempt, idempotency_key="k", failure=failed
    )
    connected.stub.Report(request, timeout=5)

    assert store.jobs.not_ready(job.id) == "hot: 81 °C, limit 60 °C"
    assert not connected.agent.claim(connected.stub).HasField("lease")
    clock.advance(15)
    assert connected.agent.claim(connected.stub).lease.attempt == 2


OUTPUTS = bytes(range(250)) * 3


def _verified(lease: pb.Lease, data: bytes = OUTPUTS, size: int | None = None) -> pb.ReportRequest:
    return pb.ReportRequest(
        job_id=lease.job_id,
        attempt=lease.attempt,
        idempotency_key=f"{lease.job_id}:{lease.attempt}",
        verified=pb.VerifiedOutputs(
            runtime="onnx",
            runtime_library="onnxruntime",
            runtime_version="1.23.2",
            outputs_sha256=hashlib.sha256(data).hexdigest(),
            outputs_size_bytes=len(data) if size is None else size,
            examples=3,
        ),
    )


@dataclass
class Verifying:
    """A device that works on a verify job."""

    connected: "ConnectedDevice"
    lease: pb.Lease

    def write(self, data: bytes = OUTPUTS) -> int:
        return int(self.connected.agent.write(self.connected.stub, self.lease, data).size_bytes)

    def write_parts(self, *parts: pb.BlobPart) -> None:
        self.connected.stub.WriteBlob(iter(parts), timeout=5)

    def part(self, **changes: Any) -> pb.BlobPart:
        values: dict[str, Any] = {
            "lease_id": self.lease.lease_id,
            "sha256": hashlib.sha256(OUTPUTS).hexdigest(),
            "offset": 0,
            "data": OUTPUTS,
        }
        return pb.BlobPart(**values | changes)


@pytest.fixture
def verifying(connect: Connect, store: Store, fleet: "Fleet") -> Verifying:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, fleet.verify_spec(max_output_bytes=1000))
    return Verifying(connected, connected.agent.claim(connected.stub).lease)


def kept_files(workspace: Workspace) -> set[str]:
    return {path.name for path in workspace.blobs_folder.rglob("*") if path.is_file()}


def test_a_verify_job_goes_the_whole_way(verifying: Verifying, store: Store) -> None:
    connected, lease = verifying.connected, verifying.lease

    inputs = connected.agent.read(connected.stub, lease.verify.inputs_sha256)
    size = verifying.write()
    stored = connected.stub.Report(_verified(lease), timeout=5).stored

    outcome = store.jobs.outcome(lease.job_id)
    assert inputs == b"some inputs"
    assert (size, stored) == (750, True)
    assert isinstance(outcome, VerifiedOutputs)
    assert (outcome.examples, outcome.inputs_sha256) == (3, lease.verify.inputs_sha256)
    assert store.blobs.get(outcome.outputs_sha256) == OUTPUTS


def test_outputs_sent_again_are_taken_again_and_others_are_not(verifying: Verifying) -> None:
    assert [verifying.write(), verifying.write()] == [750, 750]

    code, sentence = refused(lambda: verifying.write(b"other outputs"))

    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "other outputs" in sentence


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([{"data": OUTPUTS[:-1]}], grpc.StatusCode.DATA_LOSS),
        ([{"data": bytes(1001)}], grpc.StatusCode.INVALID_ARGUMENT),
        ([{"offset": 1}], grpc.StatusCode.OUT_OF_RANGE),
        ([{"data": b"1"}, {"data": b"2", "offset": 2}], grpc.StatusCode.OUT_OF_RANGE),
        ([{"data": b"1"}, {"data": b"1", "offset": 0}], grpc.StatusCode.OUT_OF_RANGE),
        ([{}, {"offset": 750, "sha256": "0" * 64}], grpc.StatusCode.INVALID_ARGUMENT),
        ([{}, {"offset": 750, "data": bytes(251)}], grpc.StatusCode.INVALID_ARGUMENT),
        ([{"sha256": "../../pki/ca.key"}], grpc.StatusCode.INVALID_ARGUMENT),
        ([{"lease_id": "no lease"}], grpc.StatusCode.PERMISSION_DENIED),
        ([], grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=[
        "cut",
        "too large",
        "from the middle",
        "gap",
        "twice",
        "two files",
        "too large in the end",
        "path",
        "no lease",
        "nothing",
    ],
)
def test_outputs_that_are_not_as_announced_leave_nothing_behind(
    verifying: Verifying,
    workspace: Workspace,
    changes: list[dict[str, Any]],
    code: grpc.StatusCode,
) -> None:
    before = kept_files(workspace)

    told, sentence = refused(
        lambda: verifying.write_parts(*(verifying.part(**change) for change in changes))
    )

    assert told is code, sentence
    assert kept_files(workspace) == before


def test_outputs_that_break_off_leave_nothing_behind(
    verifying: Verifying, workspace: Workspace
) -> None:
    before = kept_files(workspace)
    sent = threading.Event()
    release = threading.Event()

    def parts() -> Iterator[pb.BlobPart]:
        yield verifying.part(data=OUTPUTS[:10])
        sent.set()
        release.wait(10)

    call = verifying.connected.stub.WriteBlob.future(parts(), timeout=10)
    assert sent.wait(5)
    deadline = time.monotonic() + 5
    while kept_files(workspace) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    partial = kept_files(workspace) - before

    call.cancel()
    release.set()

    while kept_files(workspace) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(partial) == 1
    assert kept_files(workspace) == before


def test_only_the_device_of_a_verify_job_sends_outputs(
    verifying: Verifying, connect: Connect
) -> None:
    press = connect("press")

    code, _ = refused(lambda: press.agent.write(press.stub, verifying.lease, OUTPUTS))

    assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a_measure_job_has_no_outputs_to_send(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, fleet.spec())
    lease = connected.agent.claim(connected.stub).lease

    code, sentence = refused(lambda: connected.agent.write(connected.stub, lease, OUTPUTS))

    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "verify" in sentence


@pytest.mark.parametrize(
    ("size", "send", "because"),
    [(None, False, "not sent before the report"), (749, True, "have 750 bytes")],
)
def test_a_verify_report_needs_its_outputs(
    verifying: Verifying, store: Store, size: int | None, send: bool, because: str
) -> None:
    if send:
        verifying.write()

    code, sentence = refused(
        lambda: verifying.connected.stub.Report(_verified(verifying.lease, size=size), timeout=5)
    )

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert because in sentence
    assert store.jobs.outcome(verifying.lease.job_id) is None


def test_a_probe_is_the_baseline_of_later_verdicts(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, ProbeSpec(), priority=1)
    job = store.jobs.submit(connected.device.id, fleet.spec())
    probe = connected.agent.claim(connected.stub).lease
    reference = pb.ReferenceRun(
        runtime="onnx",
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        latency_seconds=[0.0005] * 3,  # the measurement's takes a millisecond
        cpu_seconds=[0.0005] * 3,
        canary_seconds=[0.005],
    )
    result = pb.ProbeResult(preflight=pb.Preflight(canary_seconds=0.005), references=[reference])
    request = pb.ReportRequest(
        job_id=probe.job_id, attempt=probe.attempt, idempotency_key="k", probe=result
    )
    connected.stub.Report(request, timeout=5)

    connected.agent.report(connected.stub, connected.agent.claim(connected.stub).lease)

    outcome = store.jobs.outcome(job.id)
    assert isinstance(outcome, Measurement)
    assert outcome.verdict.level == "REJECT"
    assert "DEVICE_CHANGED" in outcome.verdict.codes


def test_a_message_over_the_cap_is_refused(connect: Connect) -> None:
    connected = connect("kiosk")
    request = pb.ClaimRequest(session_id="x" * (1024 * 1024 + 1))

    code, _ = refused(lambda: connected.stub.Claim(request, timeout=5))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_job_of_another_process_wakes_the_device(
    connect: Connect,
    workspace: Workspace,
    store_place: str | Path,
    fleet: "Fleet",
    watch: Callable[["ConnectedDevice"], Watching],
) -> None:
    connected = connect("kiosk")
    watching = watch(connected)
    spec = fleet.spec()

    with Store.open(store_place, blobs_folder=workspace.blobs_folder) as other:
        other.jobs.submit(connected.device.id, spec)

    event = watching.next()
    assert isinstance(event, pb.Event)
    assert event.kind == pb.Event.KIND_JOB_READY


def test_a_device_that_works_is_left_in_peace(
    connect: Connect, store: Store, fleet: "Fleet", watch: Callable[["ConnectedDevice"], Watching]
) -> None:
    connected = connect("kiosk")
    for model in (b"one", b"two"):
        store.jobs.submit(connected.device.id, fleet.spec(model))
    connected.agent.claim(connected.stub)

    watching = watch(connected)

    with pytest.raises(queue.Empty):
        watching.next(seconds=0.3)


def test_a_cancelled_job_stops_the_device(
    connect: Connect, store: Store, fleet: "Fleet", watch: Callable[["ConnectedDevice"], Watching]
) -> None:
    connected = connect("kiosk")
    job = store.jobs.submit(connected.device.id, fleet.spec())
    lease = connected.agent.claim(connected.stub).lease
    watching = watch(connected)

    store.jobs.cancel([job.id])

    event = watching.next()
    assert isinstance(event, pb.Event)
    assert (event.kind, event.job_id) == (pb.Event.KIND_CANCEL, job.id)
    reply = connected.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id), timeout=5)
    assert reply.cancel


def test_a_live_lease_is_renewed(connect: Connect, store: Store, fleet: "Fleet") -> None:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, fleet.spec())
    lease = connected.agent.claim(connected.stub).lease

    reply = connected.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id), timeout=5)

    assert not reply.cancel
    assert reply.lease_seconds == 60


def test_an_older_session_of_the_same_key_is_refused(
    connect: Connect, store: Store, fleet: "Fleet"
) -> None:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, fleet.spec())
    connected.agent.claim(connected.stub)
    old_session = connected.agent.session_id
    connected.agent.session_id = "restarted"
    connected.agent.hello(connected.stub)

    again = connected.agent.claim(connected.stub)

    assert again.lease.attempt == 2
    connected.agent.session_id = old_session
    code, sentence = refused(lambda: connected.agent.claim(connected.stub))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "another session" in sentence


def test_a_device_that_speaks_to_another_gateway_is_watched_here_no_longer(
    connect: Connect, store: Store, watch: Callable[["ConnectedDevice"], Watching]
) -> None:
    connected = connect("kiosk")
    watching = watch(connected)
    facts = store.devices.by_name("kiosk").facts
    assert facts is not None

    store.devices.open_session(connected.device.id, "there", agent_version="1", facts=facts)

    error: Any = watching.next()
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "another session" in error.details()
    code, _ = refused(lambda: connected.agent.claim(connected.stub))
    assert code is grpc.StatusCode.FAILED_PRECONDITION


def test_without_hello_nothing_is_watched(connect: Connect) -> None:
    connected = connect("kiosk")
    request = pb.WatchRequest(session_id="another")

    code, sentence = refused(lambda: next(connected.stub.Watch(request)))

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "another session" in sentence


def test_a_device_is_woken_for_every_new_job_without_delay(
    connect: Connect, store: Store, fleet: "Fleet", watch: Callable[["ConnectedDevice"], Watching]
) -> None:
    connected = connect("kiosk")
    watching = watch(connected)
    for model in (b"one", b"two", b"three"):
        store.jobs.submit(connected.device.id, fleet.spec(model))
        asked = time.monotonic()

        event = watching.next()

        assert isinstance(event, pb.Event)
        assert event.kind == pb.Event.KIND_JOB_READY
        assert time.monotonic() - asked < 0.8, "not only when it is reminded"
        connected.agent.report(connected.stub, connected.agent.claim(connected.stub).lease)
        connected.agent.claim(connected.stub)


def test_a_job_cancelled_twice_stops_the_device_twice(
    connect: Connect, store: Store, fleet: "Fleet", watch: Callable[["ConnectedDevice"], Watching]
) -> None:
    connected = connect("kiosk")
    job = store.jobs.submit(connected.device.id, fleet.spec())
    watching = watch(connected)
    for _ in range(2):
        lease = connected.agent.claim(connected.stub).lease
        store.jobs.cancel([job.id])

        kinds = []
        while pb.Event.KIND_CANCEL not in kinds:
            event = watching.next()
            assert isinstance(event, pb.Event)
            kinds.append(event.kind)
        stopped = pb.Failure(kind=pb.Failure.KIND_CANCELLED, message="stopped")
        request = pb.ReportRequest(
            job_id=job.id, attempt=lease.attempt, idempotency_key="k", failure=stopped
        )
        connected.stub.Report(request, timeout=5)
        time.sleep(0.1)
        store.jobs.submit(connected.device.id, fleet.spec())


def test_a_stopping_gateway_tells_the_devices_and_ends_at_once(
    connect: Connect,
    store: Store,
    fleet: "Fleet",
    gateway: RunningGateway,
    watch: Callable[["ConnectedDevice"], Watching],
) -> None:
    connected = connect("kiosk")
    store.jobs.submit(connected.device.id, fleet.spec())
    watching = watch(connected)
    watching.next()  # it is connected

    gateway.stop()

    event = watching.next()
    assert isinstance(event, pb.Event)
    assert event.kind == pb.Event.KIND_DRAIN
    assert watching.next() is None


def test_a_port_in_use_is_named(
    workspace: Workspace, store: Store, gateway: RunningGateway
) -> None:
    taken = Listen("127.0.0.1", gateway.gateway_port, 0)

    with pytest.raises(GatewayError, match=f"127.0.0.1:{gateway.gateway_port}"):
        start_in_thread(workspace, store, taken)


def test_one_gateway_serves_a_workspace(workspace: Workspace, store: Store) -> None:
    with workspace.gateway_lock():
        assert workspace.gateway_runs()
        with pytest.raises(GatewayRunsError, match="runs already"), workspace.gateway_lock():
            pass
        with ensure_gateway(workspace, store) as running:
            assert running is None

    assert not workspace.gateway_runs()
