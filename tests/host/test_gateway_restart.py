"""The gateway stops, dies and comes back, and reports are evaluated in a process that may die."""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest

from host.gateway.calculator import Calculators
from host.gateway.checks import MessageError
from host.gateway.evaluation import Arrived, Evaluation
from host.gateway.server import Listen, Pace, RunningGateway, start_in_thread
from host.measurement import Measurement
from host.pki import Token, read_csr, spki_sha256
from host.store import Store, StoreError
from host.workspace import GatewaySettings, Workspace
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet, ScriptedAgent

Connect = Callable[[str], Any]
MakeAgent = Callable[[], "ScriptedAgent"]
PACE = Pace(poll_seconds=0.02, grace_seconds=2.0)


@dataclass
class Member:
    """An agent with its device and what it holds."""

    agent: "ScriptedAgent"
    device_id: str
    lease: pb.Lease | None = None

    def connect(self, gateway: RunningGateway) -> pb_grpc.FleetStub:
        stub = self.agent.fleet(gateway.gateway_port)
        self.agent.hello(stub)
        return stub


@pytest.fixture
def members(
    workspace: Workspace, store: Store, fleet: "Fleet", make_agent: MakeAgent
) -> Callable[[int], list[Member]]:
    """Enrols agents without any network."""
    authority = workspace.authority()

    def make(count: int) -> list[Member]:
        made = []
        for number in range(count):
            agent = make_agent()
            csr = read_csr(agent.csr_pem())
            device = fleet.device(f"d{number}", spki_sha256(csr))
            agent.certificate_pem = authority.sign_device(csr, device.name)
            agent.ca_pem = authority.certificate_pem
            made.append(Member(agent, device.id))
        return made

    return make


@pytest.fixture
def serve(workspace: Workspace, store: Store) -> Iterator[Callable[[], RunningGateway]]:
    """Starts gateways, one after the other, each on a port of its own."""
    with ExitStack() as stack:

        def start() -> RunningGateway:
            running = start_in_thread(workspace, store, Listen("127.0.0.1", 0, 0), PACE)
            stack.callback(running.stop)
            return running

        yield start


def test_a_restart_with_fifty_leases_out_loses_nothing(
    store: Store,
    fleet: "Fleet",
    members: Callable[[int], list[Member]],
    serve: Callable[[], RunningGateway],
    report_of: Callable[[pb.Lease], pb.ReportRequest],
) -> None:
    some = members(50)
    for number, member in enumerate(some):
        for model in (f"a {number}", f"b {number}"):
            store.jobs.submit(member.device_id, fleet.spec(model.encode()))
    first = serve()
    for member in some:
        member.lease = member.agent.claim(member.connect(first)).lease

    first.stop()
    second = serve()

    for number, member in enumerate(some):
        assert member.lease is not None
        stub = member.connect(second)
        if number % 2:  # half of them did not hear which job they got
            again = member.agent.claim(stub).lease
            assert again == member.lease
        renewed = stub.Renew(pb.RenewRequest(lease_id=member.lease.lease_id), timeout=5)
        assert not renewed.cancel
        for stored in (True, False):
            assert stub.Report(report_of(member.lease), timeout=10).stored is stored
        following = member.agent.claim(stub).lease
        assert following.job_id != member.lease.job_id
        assert following.attempt == 1
    kept = [store.measurements.of_device(member.device_id) for member in some]
    assert [len(one) for one in kept] == [1] * 50


def test_a_gateway_that_stops_gives_no_job_and_keeps_what_is_reported(
    store: Store,
    fleet: "Fleet",
    members: Callable[[int], list[Member]],
    serve: Callable[[], RunningGateway],
    report_of: Callable[[pb.Lease], pb.ReportRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (member,) = members(1)
    jobs = [store.jobs.submit(member.device_id, fleet.spec(model)) for model in (b"a", b"b")]
    gateway = serve()
    stub = member.connect(gateway)
    lease = member.agent.claim(stub).lease
    arrived, go = threading.Event(), threading.Event()
    evaluated = Evaluation.evaluated

    def slowly(self: Evaluation, report: Arrived) -> Any:
        arrived.set()
        assert go.wait(10)
        return evaluated(self, report)

    monkeypatch.setattr(Evaluation, "evaluated", slowly)
    # Reports are evaluated by the function that a gateway was made with.
    gateway.stop()
    gateway = serve()
    stub = member.connect(gateway)
    answer = stub.Report.future(report_of(lease), timeout=10)
    assert arrived.wait(5)

    stopping = threading.Thread(target=gateway.stop)
    stopping.start()
    time.sleep(0.2)
    go.set()
    stopping.join()

    assert answer.result().stored
    assert store.jobs.get(jobs[0].id).state == "done"
    assert store.jobs.get(jobs[1].id).state == "queued"


def test_a_report_whose_device_waits_no_longer_is_kept_all_the_same(
    store: Store,
    fleet: "Fleet",
    members: Callable[[int], list[Member]],
    serve: Callable[[], RunningGateway],
    report_of: Callable[[pb.Lease], pb.ReportRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (member,) = members(1)
    job = store.jobs.submit(member.device_id, fleet.spec())
    arrived, go = threading.Event(), threading.Event()
    evaluated = Evaluation.evaluated

    def slowly(self: Evaluation, report: Arrived) -> Any:
        arrived.set()
        assert go.wait(10)
        return evaluated(self, report)

    monkeypatch.setattr(Evaluation, "evaluated", slowly)
    gateway = serve()
    stub = member.connect(gateway)
    answer = stub.Report.future(report_of(member.agent.claim(stub).lease), timeout=10)
    assert arrived.wait(5)

    answer.cancel()
    stopping = threading.Thread(target=gateway.stop)
    stopping.start()
    go.set()
    stopping.join()

    assert store.jobs.get(job.id).state == "done"


@dataclass
class Evaluating:
    """A report, and what evaluates it: here, and in processes."""

    store: Store
    calculators: Calculators
    arrived: Arrived

    def child(self) -> psutil.Process:
        (found,) = [
            child
            for child in psutil.Process().children()
            if "host.gateway.calculator" in child.cmdline()
        ]
        return found


@pytest.fixture
def evaluating(
    workspace: Workspace,
    store: Store,
    fleet: "Fleet",
    make_samples: Callable[[], pb.MeasuredSamples],
) -> Iterator[Evaluating]:
    device = fleet.device()
    store.jobs.submit(device.id, fleet.spec())
    lease = store.jobs.claim(device.id, "s", 60.0)
    assert lease is not None
    job = lease.job
    request = pb.ReportRequest(job_id=job.id, attempt=1, idempotency_key="k")
    request.measured.CopyFrom(make_samples())
    calculators = Calculators(workspace.store_place, workspace.blobs_folder)
    yield Evaluating(store, calculators, Arrived(request.SerializeToString(), job, store.now()))
    calculators.close()
    assert not [c for c in psutil.Process().children() if "calculator" in " ".join(c.cmdline())]


def test_a_process_evaluates_a_report_as_this_one_does(evaluating: Evaluating) -> None:
    there = evaluating.calculators.evaluated(evaluating.arrived)

    assert there == Evaluation(evaluating.store).evaluated(evaluating.arrived)
    (stored,) = evaluating.store.jobs.settle([there.report])
    assert stored is True
    outcome = evaluating.store.jobs.outcome(evaluating.arrived.job.id)
    assert isinstance(outcome, Measurement)
    assert outcome.latency_seconds == pytest.approx(0.010)


def test_a_process_says_what_makes_no_sense_and_goes_on(evaluating: Evaluating) -> None:
    senseless = pb.ReportRequest(job_id="1", attempt=1).SerializeToString()
    job, at = evaluating.arrived.job, evaluating.arrived.received_at

    with pytest.raises(MessageError, match="neither a result nor a failure"):
        evaluating.calculators.evaluated(Arrived(senseless, job, at))

    evaluating.calculators.evaluated(evaluating.arrived)


def test_a_process_that_was_killed_is_replaced(evaluating: Evaluating) -> None:
    evaluating.calculators.evaluated(evaluating.arrived)
    killed = evaluating.child()
    os.kill(killed.pid, signal.SIGKILL)

    evaluating.calculators.evaluated(evaluating.arrived)

    assert evaluating.child().pid != killed.pid


def test_a_process_outlives_the_signals_that_end_a_gateway(evaluating: Evaluating) -> None:
    evaluating.calculators.evaluated(evaluating.arrived)
    child = evaluating.child()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(child.pid, number)

    evaluating.calculators.evaluated(evaluating.arrived)

    assert evaluating.child().pid == child.pid


def test_where_no_process_starts_the_device_tries_again_later(
    tmp_path: Path, evaluating: Evaluating
) -> None:
    calculators = Calculators("postgresql+nodriver://", tmp_path)

    with pytest.raises(StoreError, match="does not start"):
        calculators.evaluated(evaluating.arrived)

    calculators.close()


@pytest.mark.slow
def test_genba_serve_evaluates_in_a_process_and_ends_with_it(
    tmp_path: Path, make_agent: MakeAgent, report_of: Callable[[pb.Lease], pb.ReportRequest]
) -> None:
    import socket
    import subprocess
    import sys

    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        ports = one.getsockname()[1], two.getsockname()[1]
    settings = GatewaySettings(
        address="127.0.0.1", bind="127.0.0.1", gateway_port=ports[0], enrolment_port=ports[1]
    )
    workspace = Workspace.create(tmp_path / "served", settings)
    command = [sys.executable, "-m", "host", "serve", "-w", str(workspace.root)]
    with (
        workspace.open_store() as store,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving,
    ):
        assert serving.stdout is not None
        assert "Serving" in serving.stdout.readline()
        from tests.host.conftest import Fleet

        device = Fleet(store).device("kiosk", "0" * 64)
        assert device.name == "kiosk"
        agent = make_agent()
        token = Token.make("127.0.0.1", ports[1], workspace.authority().fingerprint)
        from datetime import timedelta

        store.devices.add_token("press", token.secret_sha256, store.now() + timedelta(hours=1))
        agent.enrol(token)
        stub = agent.fleet(ports[0])
        agent.hello(stub)
        press = store.devices.by_name("press")
        job = store.jobs.submit(press.id, Fleet(store).spec())

        reply = stub.Report(report_of(agent.claim(stub).lease), timeout=30)

        children = psutil.Process(serving.pid).children(recursive=True)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(20) == 0
        assert reply.stored
        assert isinstance(store.jobs.outcome(job.id), Measurement)
        assert len(children) == max(1, min(4, (os.cpu_count() or 1) - 1)) or children
        assert not [child for child in children if child.is_running()]


def test_the_reports_of_one_device_do_not_hold_up_the_claims_of_others(
    store: Store,
    fleet: "Fleet",
    members: Callable[[int], list[Member]],
    serve: Callable[[], RunningGateway],
    report_of: Callable[[pb.Lease], pb.ReportRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = members(2)
    for member in (one, other):
        store.jobs.submit(member.device_id, fleet.spec())
    arrived, go = threading.Event(), threading.Event()
    evaluated = Evaluation.evaluated

    def slowly(self: Evaluation, report: Arrived) -> Any:
        arrived.set()
        assert go.wait(10)
        return evaluated(self, report)

    monkeypatch.setattr(Evaluation, "evaluated", slowly)
    gateway = serve()
    stub, other_stub = one.connect(gateway), other.connect(gateway)
    lease = one.agent.claim(stub).lease
    answers = [stub.Report.future(report_of(lease), timeout=20) for _ in range(5)]
    assert arrived.wait(5)
    refused = queue.SimpleQueue[Any]()
    for answer in answers:
        answer.add_done_callback(refused.put)

    too_many = refused.get(timeout=10)
    claimed = other.agent.claim(other_stub)
    go.set()

    assert too_many.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4 reports under way" in too_many.details()
    assert claimed.lease.attempt == 1
    stored = [answer.result().stored for answer in answers if answer is not too_many]
    assert sorted(stored) == [False, False, False, True]


def test_the_clock_of_the_host_does_not_end_leases_when_it_is_set(
    store: Store,
    fleet: "Fleet",
    clock: "FakeClock",
    members: Callable[[int], list[Member]],
    serve: Callable[[], RunningGateway],
) -> None:
    (member,) = members(1)
    store.jobs.submit(member.device_id, fleet.spec())
    stub = member.connect(serve())
    lease = member.agent.claim(stub).lease

    clock.advance(-3600)
    again = member.agent.claim(stub).lease
    renewed = stub.Renew(pb.RenewRequest(lease_id=lease.lease_id), timeout=5)

    assert not renewed.cancel
    assert (again.lease_id, again.attempt) == (lease.lease_id, 1)
