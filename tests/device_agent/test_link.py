"""One connection over real mutual TLS, through a proxy that goes silent when a test wants it."""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import grpc
import pytest

from device_agent.errors import (
    AgentError,
    HostAwayError,
    HostBusyError,
    HostRefusedError,
    MessageTooLargeError,
    ProtocolMismatchError,
    UnprovenLeaseError,
)
from device_agent.link import Link, Pace
from device_agent.state import Home
from device_agent.system import read_facts
from protos import genba_agent_pb2 as pb

QUICK = Pace(keepalive_seconds=1.0, keepalive_timeout_seconds=1.0)
KIB = 1024


class Proxy:
    """Forwards every connection to one port, until it is told to go silent: then connections stay
    open and nothing passes, as behind a router that lost its table.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._server]
        self.port = int(self._server.getsockname()[1])
        self.connections = 0
        self.is_silent = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self.connections += 1
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while not self._closed.is_set():
                for key, _ in selector.select(0.05):
                    while self.is_silent.is_set() and not self._closed.wait(0.02):
                        pass
                    data = near.recv(65536) if key.fileobj is near else far.recv(65536)
                    if not data:
                        near.close()
                        far.close()
                        return
                    key.data.sendall(data)


@pytest.fixture
def proxy(host: Any) -> Iterator[Proxy]:
    made = Proxy(host.gateway_port)
    yield made
    made.close()


@pytest.fixture
def connect(enrolled: Home, proxy: Proxy) -> Iterator[Callable[..., Link]]:
    """Links through the proxy that do not sleep."""
    made: list[Link] = []

    def link(pace: Pace = QUICK, **options: Any) -> Link:
        identity = dataclasses.replace(enrolled.identity(), gateway_port=proxy.port)
        made.append(Link(identity, pace, sleep=lambda _: None, **options))
        return made[-1]

    yield link
    for each in made:
        each.close()


def test_a_half_open_connection_is_noticed_after_keepalive_and_its_timeout(
    host: Any, proxy: Proxy, connect: Callable[..., Link]
) -> None:
    watch = connect().watch("session")
    assert host.watching.wait(10)
    proxy.is_silent.set()
    started = time.monotonic()

    with pytest.raises(HostAwayError):
        list(watch)

    assert 0.9 < time.monotonic() - started < 3.5


def test_a_quiet_connection_is_no_dead_one(host: Any, connect: Callable[..., Link]) -> None:
    host.min_ping_seconds = 0.5
    host.stop()
    host.start()
    watch = connect(Pace(keepalive_seconds=0.6, keepalive_timeout_seconds=0.6)).watch("session")
    assert host.watching.wait(10)
    events = iter(watch)

    threading.Timer(2.5, host.events.put, [pb.Event(kind=pb.Event.KIND_DRAIN)]).start()

    assert next(events).kind.name == "DRAIN"


_QUICK_AGENT = """
import sys
from pathlib import Path
from device_agent.link import Pace
from device_agent.processes import default_worker_command
from device_agent.session import run_agent
from device_agent.state import Home
run_agent(
    Home(Path(sys.argv[1])),
    once=False,
    worker_command=default_worker_command(),
    say=print,
    pace=Pace(keepalive_seconds=0.5, keepalive_timeout_seconds=0.5, unary_seconds=1.0),
)
"""


def test_an_agent_whose_connection_was_half_open_comes_back_by_itself(
    host: Any, enrolled: Home, proxy: Proxy, make_model: Callable[..., bytes]
) -> None:
    enrolled.save_identity(dataclasses.replace(enrolled.identity(), gateway_port=proxy.port))
    with subprocess.Popen([sys.executable, "-c", _QUICK_AGENT, str(enrolled.path)]) as agent:
        assert host.watching.wait(20)
        proxy.is_silent.set()
        before = proxy.connections
        limit = time.monotonic() + 10
        while proxy.connections == before:
            assert time.monotonic() < limit, "nobody noticed"
            time.sleep(0.01)
        proxy.is_silent.clear()
        host.offer(make_model())

        (report,) = host.wait_for_reports(1)
        agent.kill()

    assert report.WhichOneof("outcome") == "measured"


def test_a_call_over_a_half_open_connection_ends_at_its_deadline(
    proxy: Proxy, connect: Callable[..., Link]
) -> None:
    link = connect(Pace(unary_seconds=0.5))
    link.claim("session")
    proxy.is_silent.set()
    started = time.monotonic()

    with pytest.raises(HostAwayError, match="DEADLINE_EXCEEDED"):
        link.claim("session")

    assert time.monotonic() - started < 2.0


def test_a_busy_host_is_asked_again_over_the_same_connection(
    host: Any, proxy: Proxy, connect: Callable[..., Link]
) -> None:
    bounds: list[float] = []
    host.busy_claims = 4

    def uniform(_: float, high: float) -> float:
        bounds.append(high)
        return 0.0

    link = connect(uniform=uniform)

    assert link.claim("session") is None
    assert bounds == [0.5, 1.0, 2.0, 4.0]
    assert proxy.connections == 1


def test_a_host_that_stays_busy_is_away(host: Any, connect: Callable[..., Link]) -> None:
    host.busy_claims = 1000

    with pytest.raises(HostBusyError, match="too many devices"):
        connect().claim("session")

    assert host.busy_claims == 1000 - 7


def test_a_message_over_the_limit_is_not_asked_for_again(
    host: Any, connect: Callable[..., Link], make_model: Callable[..., bytes]
) -> None:
    host.offer(make_model())
    host.offer(make_model())
    host.sign = lambda lease: pb.SignedLease(lease=lease + b"\0" * (1 << 20), signature=b"x")

    with pytest.raises(MessageTooLargeError, match="larger than max"):
        connect().claim("session")

    assert len(host.waiting) == 1


def test_a_slow_line_gets_the_time_that_it_needs(host: Any, connect: Callable[..., Link]) -> None:
    blob = bytes(range(256)) * 4 * KIB
    host.blobs["ab"] = blob
    host.chunk_pause_seconds = 0.25

    pieces = list(connect(Pace(blob_seconds=0.6)).read_blob("ab", 0))

    assert b"".join(data for _, data in pieces) == blob
    assert [at for at, _ in pieces] == list(range(0, len(blob), 256 * KIB))
    assert len(host.blob_requests) > 1


def test_a_transfer_that_stands_still_is_given_up(host: Any, connect: Callable[..., Link]) -> None:
    host.blobs["ab"] = bytes(10)
    host.chunk_pause_seconds = 5.0
    started = time.monotonic()

    with pytest.raises(HostAwayError, match="DEADLINE_EXCEEDED"):
        list(connect(Pace(blob_seconds=0.3)).read_blob("ab", 0))

    assert time.monotonic() - started < 2.0
    host.chunk_pause_seconds = 0.0


@pytest.mark.parametrize(
    ("spoken", "words"),
    [
        ((1, 2), "this host 1 to 2: update the older"),
        ((4, 5), "this host 4 to 5: update the older"),
    ],
)
def test_versions_that_do_not_meet_are_told_by_the_host(
    host: Any, connect: Callable[..., Link], spoken: Any, words: str
) -> None:
    host.protocols = spoken

    with pytest.raises(HostRefusedError, match=f"the agent speaks protocol 3 to 3, {words}"):
        connect().hello("session", "0.1.0", read_facts())


@pytest.mark.parametrize(
    ("answered", "mend"), [(2, "update genba on the host"), (4, "update the agent on this device")]
)
def test_a_host_that_answers_in_another_version_is_told_apart(
    host: Any, connect: Callable[..., Link], answered: int, mend: str
) -> None:
    host.answered_protocol = answered

    with pytest.raises(ProtocolMismatchError, match=f"protocol {answered} and this agent.*{mend}"):
        connect().hello("session", "0.1.0", read_facts())


def test_a_host_without_this_service_is_another_version(host: Any, enrolled: Home) -> None:
    """The enrolment port speaks TLS with the same CA, and knows nothing of jobs."""
    identity = dataclasses.replace(enrolled.identity(), gateway_port=host.enrolment_port)
    link = Link(identity)

    with pytest.raises(HostRefusedError, match="update the older of the two"):
        link.claim("session")

    link.close()


def unsigned(host: Any, other: Any) -> None:
    host.sign = lambda _: None


def signed_by_another(host: Any, other: Any) -> None:
    host.sign = lambda lease: pb.SignedLease(lease=lease, signature=other.sign_lease(lease))


def changed_afterwards(host: Any, other: Any) -> None:
    def sign(lease: bytes) -> Any:
        signed = host.signed(lease)
        message = pb.Lease.FromString(lease)
        message.measure.run.model_sha256 = "f" * 64
        return pb.SignedLease(lease=message.SerializeToString(), signature=signed.signature)

    host.sign = sign


def of_another_device(host: Any, other: Any) -> None:
    def sign(lease: bytes) -> Any:
        message = pb.Lease.FromString(lease)
        message.device_id = "another"
        return host.signed(message.SerializeToString())

    host.sign = sign


def no_lease(host: Any, other: Any) -> None:
    host.sign = lambda _: host.signed(b"\xff\xff\xff")


def without_a_job(host: Any, other: Any) -> None:
    host.sign = lambda _: host.signed(
        pb.Lease(lease_id="l", lease_seconds=60.0, device_id="0123abcd").SerializeToString()
    )


def without_an_end(host: Any, other: Any) -> None:
    def sign(lease: bytes) -> Any:
        message = pb.Lease.FromString(lease)
        message.lease_seconds = 0.0
        return host.signed(message.SerializeToString())

    host.sign = sign


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (unsigned, "without a signature: update genba on the host"),
        (signed_by_another, "not signed with the key of the host"),
        (changed_afterwards, "not signed with the key of the host"),
        (of_another_device, "signed for another device"),
        (no_lease, "no job"),
        (without_a_job, "holds none"),
        (without_an_end, "lasts 0.0 s"),
    ],
)
def test_a_lease_that_is_not_proven_is_refused_with_a_sentence(
    host: Any,
    connect: Callable[..., Link],
    another_authority: Any,
    make_model: Callable[..., bytes],
    forge: Callable[..., None],
    words: str,
) -> None:
    host.offer(make_model())
    forge(host, another_authority)

    with pytest.raises(UnprovenLeaseError, match=words) as caught:
        connect().claim("session")

    assert str(caught.value).startswith("no job is taken from the host, because ")


def test_a_proven_lease_is_the_one_that_was_signed(
    host: Any, connect: Callable[..., Link], make_model: Callable[..., bytes]
) -> None:
    lease = host.offer(make_model())

    assert connect().claim("session") == lease


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
)
def test_every_status_of_a_host_is_an_error_of_the_agent(
    host: Any, connect: Callable[..., Link], code: grpc.StatusCode
) -> None:
    host.refuse_hello = (code, "a reason")

    with pytest.raises(AgentError, match="a reason"):
        connect().hello("session", "0.1.0", read_facts())
