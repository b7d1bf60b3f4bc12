"""Two gateways on one PostgreSQL: a device may go from one to the other, and no job comes twice."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from host.gateway.server import Listen, Pace, RunningGateway, start_in_thread
from host.pki import Token
from host.store import Store, utc_now
from host.workspace import Workspace
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from tests.host.conftest import Fleet, ScriptedAgent

ReportOf = Callable[[pb.Lease], pb.ReportRequest]


@dataclass(frozen=True)
class Pair:
    """Two gateways with stores of their own on the same database, keys and files."""

    workspace: Workspace
    stores: tuple[Store, Store]
    gateways: tuple[RunningGateway, RunningGateway]

    def enrol(self, agent: "ScriptedAgent", name: str) -> str:
        """At the first gateway; the id of the device."""
        fingerprint = self.workspace.authority().fingerprint
        token = Token.make("127.0.0.1", self.gateways[0].enrolment_port, fingerprint)
        expires_at = utc_now() + timedelta(hours=1)
        self.stores[0].devices.add_token(name, token.secret_sha256, expires_at)
        return str(agent.enrol(token).device_id)

    def connect(self, agent: "ScriptedAgent", which: int) -> pb_grpc.FleetStub:
        stub = agent.fleet(self.gateways[which].gateway_port)
        agent.hello(stub)
        return stub


@pytest.fixture
def pair(workspace: Workspace, postgresql_url: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        stores, gateways = [], []
        for _ in range(2):
            store = Store.open(postgresql_url, blobs_folder=workspace.blobs_folder)
            stores.append(stack.enter_context(store))
            pace = Pace(poll_seconds=0.02, grace_seconds=1.0)
            running = start_in_thread(workspace, store, Listen("127.0.0.1", 0, 0), pace)
            stack.callback(running.stop)
            gateways.append(running)
        yield Pair(workspace, (stores[0], stores[1]), (gateways[0], gateways[1]))


@pytest.fixture
def fleet_here(pair: Pair) -> "Fleet":
    from tests.host.conftest import Fleet

    return Fleet(pair.stores[0])


def test_a_device_goes_from_one_gateway_to_the_other_with_its_job(
    pair: Pair,
    fleet_here: "Fleet",
    make_agent: Callable[[], "ScriptedAgent"],
    report_of: ReportOf,
) -> None:
    agent = make_agent()
    device_id = pair.enrol(agent, "kiosk")
    job = pair.stores[1].jobs.submit(device_id, fleet_here.spec())
    lease = agent.claim(pair.connect(agent, 0)).lease

    other = pair.connect(agent, 1)
    again = agent.claim(other).lease
    content = agent.read(other, lease.measure.run.model_sha256)
    stored = [other.Report(report_of(again), timeout=10).stored]
    stored.append(pair.connect(agent, 0).Report(report_of(lease), timeout=10).stored)

    assert again == lease
    assert content == b"a model"
    assert stored == [True, False]
    assert pair.stores[0].jobs.get(job.id).state == "done"


def test_a_restarted_agent_at_the_other_gateway_replaces_the_session_at_the_first(
    pair: Pair, fleet_here: "Fleet", make_agent: Callable[[], "ScriptedAgent"]
) -> None:
    agent = make_agent()
    device_id = pair.enrol(agent, "kiosk")
    pair.stores[0].jobs.submit(device_id, fleet_here.spec())
    here = pair.connect(agent, 0)
    watching = here.Watch(pb.WatchRequest(session_id=agent.session_id), timeout=20)
    assert next(watching).kind == pb.Event.KIND_JOB_READY
    assert agent.claim(here).lease.attempt == 1

    before, agent.session_id = agent.session_id, "restarted"
    there = pair.connect(agent, 1)

    with pytest.raises(grpc.RpcError) as ended:
        list(watching)
    error: Any = ended.value
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert agent.claim(there).lease.attempt == 2
    with pytest.raises(grpc.RpcError, match="another session"):
        here.Claim(pb.ClaimRequest(session_id=before), timeout=10)


def test_a_device_revoked_at_one_gateway_is_refused_at_the_other(
    pair: Pair, make_agent: Callable[[], "ScriptedAgent"]
) -> None:
    agent = make_agent()
    pair.enrol(agent, "kiosk")
    stub = pair.connect(agent, 1)
    watching = stub.Watch(pb.WatchRequest(session_id=agent.session_id), timeout=20)

    pair.stores[0].devices.revoke("kiosk")

    with pytest.raises(grpc.RpcError) as ended:
        list(watching)
    error: Any = ended.value
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_at_two_gateways_at_once_every_job_is_given_and_kept_once(
    pair: Pair,
    fleet_here: "Fleet",
    make_agent: Callable[[], "ScriptedAgent"],
    report_of: ReportOf,
) -> None:
    agents = [make_agent() for _ in range(4)]
    devices = [pair.enrol(agent, f"d{n}") for n, agent in enumerate(agents)]
    jobs = {
        pair.stores[0].jobs.submit(device_id, fleet_here.spec(bytes([number]))).id
        for device_id in devices
        for number in range(6)
    }
    given: Counter[tuple[str, int]] = Counter()
    stored: Counter[str] = Counter()
    lock = threading.Lock()

    def work(agent: "ScriptedAgent", which: int) -> None:
        stubs = [pair.connect(agent, which), pair.connect(agent, 1 - which)]
        for turn in range(20):
            stub, other = stubs[turn % 2], stubs[1 - turn % 2]
            lease = agent.claim(stub).lease
            if not lease.job_id:
                return
            kept = other.Report(report_of(lease), timeout=20).stored
            with lock:
                given[lease.job_id, lease.attempt] += 1
                stored[lease.job_id] += kept

    threads = [
        threading.Thread(target=work, args=(agent, number % 2))
        for number, agent in enumerate(agents)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert given == Counter({(job_id, 1): 1 for job_id in jobs})
    assert stored == Counter(dict.fromkeys(jobs, 1))
