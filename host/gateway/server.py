"""The gateway: two listeners over one store, in a process of its own or in a thread of another."""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

import grpc
import grpc.aio

from host.device import Device
from host.errors import GenbaError
from host.gateway.calculator import Calculators
from host.gateway.callers import Callers
from host.gateway.enrolment import EnrolmentServicer
from host.gateway.ledger import Ledger
from host.gateway.metering import Metering
from host.gateway.reports import Reports
from host.gateway.servicer import CHUNK_BYTES, FleetServicer, Host
from host.gateway.watch import POLL_SECONDS, FleetWatch
from host.job import LEASE_SECONDS
from host.pki import ServerIdentity
from host.store import Store
from host.workspace import GatewayRunsError, Workspace
from protos import genba_agent_pb2_grpc as pb_grpc

GRACE_SECONDS = 5.0
MESSAGE_MAX_BYTES = 4 * CHUNK_BYTES
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    # Agents ping once a minute; without this the host would end such a connection.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Finds out within a minute that a device was unplugged.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Newer versions of grpcio give every ping a minute unless this is set too.
    ("grpc.http2.ping_timeout_ms", 20_000),
    # A device has one stream that lasts, and a few calls beside it.
    ("grpc.max_concurrent_streams", 32),
    # A second process must not share the port unnoticed.
    ("grpc.so_reuseport", 0),
)
# Two even for one core: while one hands over a report, the other works.
_CALCULATORS = max(2, min(4, os.cpu_count() or 1))
_log = logging.getLogger("genba.gateway")


class GatewayError(GenbaError):
    """The gateway cannot run."""


@dataclass(frozen=True)
class Listen:
    """Where a gateway listens; port 0 takes any free one."""

    bind: str
    gateway_port: int
    enrolment_port: int

    @classmethod
    def of(cls, workspace: Workspace) -> "Listen":
        """As the settings of the workspace say."""
        gateway = workspace.settings.gateway
        return cls(gateway.bind, gateway.gateway_port, gateway.enrolment_port)


@dataclass(frozen=True)
class Pace:
    """How often the gateway looks into the store, and how long leases last without renewal."""

    poll_seconds: float = POLL_SECONDS
    lease_seconds: float = LEASE_SECONDS
    grace_seconds: float = GRACE_SECONDS


@dataclass(frozen=True)
class Gateway:
    """A built gateway whose ports are bound; `run` serves."""

    gateway_port: int
    enrolment_port: int
    pace: Pace
    _servers: tuple[grpc.aio.Server, ...]
    _host: Host
    _fleet: FleetServicer
    _calculators: Calculators | None

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until `stop` is set. Then no job is given any more and the devices are told to go;
        what they report meanwhile is still kept. Leases live on: the next gateway takes the rest.
        """
        for server in self._servers:
            await server.start()
        polling = asyncio.create_task(self._host.watch.run())
        try:
            ready()
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((stopping, polling), return_when=asyncio.FIRST_COMPLETED)
            if polling.done():
                polling.result()  # a gateway that no longer looks into the store must not go on
        finally:
            self._host.watch.drain()
            await asyncio.gather(
                *(server.stop(self.pace.grace_seconds) for server in self._servers)
            )
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            await self._fleet.finish()
            await asyncio.to_thread(self._host.ledger.close)
            self._host.reports.close()
            if self._calculators is not None:
                await asyncio.to_thread(self._calculators.close)


def make_gateway(
    workspace: Workspace,
    store: Store,
    listen: Listen,
    pace: Pace = Pace(),
    *,
    calculators: int = 0,
) -> Gateway:
    """Build a gateway inside the running event loop; nothing is served yet.

    Reports are evaluated in so many processes of their own, or in a thread. Raises GatewayError
    where a port cannot be had, and PkiError.
    """
    authority = workspace.authority()
    ledger = Ledger(store, max(1, calculators))
    children = Calculators(workspace.store_place, workspace.blobs_folder) if calculators else None

    async def look_up(spki_sha256: str) -> Device | None:
        return await ledger.read(store.devices.by_spki, spki_sha256)

    callers = Callers(look_up, asyncio.get_running_loop().time)
    host = Host(
        store=store,
        ledger=ledger,
        callers=callers,
        watch=FleetWatch(store, ledger, callers, pace.poll_seconds),
        reports=Reports(store, Metering(store), None if children is None else children.evaluated),
        authority=authority,
        version=version("genba"),
        lease_seconds=pace.lease_seconds,
    )
    fleet_server = grpc.aio.server(options=_OPTIONS)
    fleet = FleetServicer(host)
    # The generated stubs are typed for the other, synchronous kind of server.
    cast("Any", pb_grpc.add_FleetServicer_to_server)(fleet, fleet_server)
    mutual = _credentials(authority.issue_server(), authority.certificate_pem)
    gateway_port = _bind(fleet_server, listen.bind, listen.gateway_port, mutual)

    enrolment_server = grpc.aio.server(options=_OPTIONS)
    enrolment = EnrolmentServicer(store, ledger, authority, gateway_port)
    cast("Any", pb_grpc.add_EnrolmentServicer_to_server)(enrolment, enrolment_server)
    one_sided = _credentials(authority.as_server, None)
    enrolment_port = _bind(enrolment_server, listen.bind, listen.enrolment_port, one_sided)
    servers = (fleet_server, enrolment_server)
    return Gateway(gateway_port, enrolment_port, pace, servers, host, fleet, children)


def serve(
    workspace: Workspace, store: Store, listen: Listen, on_ready: Callable[[Gateway], None]
) -> None:
    """Be the gateway of the workspace until SIGTERM or Ctrl-C.

    Call it in the main thread. Raises GatewayRunsError, GatewayError and PkiError.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        gateway = make_gateway(workspace, store, listen, calculators=_CALCULATORS)
        await gateway.run(stop, lambda: on_ready(gateway))

    with workspace.gateway_lock():
        asyncio.run(main())


class RunningGateway:
    """A gateway in a thread of this process."""

    def __init__(
        self, gateway: Gateway, loop: asyncio.AbstractEventLoop, stop: asyncio.Event
    ) -> None:
        self.gateway_port = gateway.gateway_port
        self.enrolment_port = gateway.enrolment_port
        self._loop = loop
        self._stop = stop
        self._thread = threading.current_thread()

    def stop(self) -> None:
        """Tell the devices, give calls a grace, and end the thread."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended in between
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


def start_in_thread(
    workspace: Workspace, store: Store, listen: Listen | None = None, pace: Pace = Pace()
) -> RunningGateway:
    """Serve from a thread of this process; stop it before the process forks or ends.

    Does not look whether another process serves the workspace: `ensure_gateway` does. Raises
    GatewayError and PkiError.
    """
    started: concurrent.futures.Future[RunningGateway] = concurrent.futures.Future()

    async def main() -> None:
        stop = asyncio.Event()
        gateway = make_gateway(workspace, store, listen or Listen.of(workspace), pace)
        running = RunningGateway(gateway, asyncio.get_running_loop(), stop)
        await gateway.run(stop, lambda: started.set_result(running))

    def in_thread() -> None:
        try:
            asyncio.run(main())
        except GenbaError as error:
            if started.done():
                _log.error("%s", error)
            else:
                started.set_exception(error)
        finally:
            if not started.done():
                started.set_exception(GatewayError("the gateway ended before it served"))

    threading.Thread(target=in_thread, name="genba-gateway", daemon=True).start()
    return started.result()


@contextlib.contextmanager
def ensure_gateway(workspace: Workspace, store: Store) -> Iterator[RunningGateway | None]:
    """See to it that a gateway serves the workspace meanwhile.

    Gives None where another process does. Raises GatewayError and PkiError.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(workspace.gateway_lock())
        except GatewayRunsError:
            yield None
            return
        running = start_in_thread(workspace, store)
        stack.callback(running.stop)
        yield running


def _credentials(identity: ServerIdentity, clients_ca_pem: bytes | None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(identity.key_pem, identity.certificate_pem)],
        root_certificates=clients_ca_pem,
        require_client_auth=clients_ca_pem is not None,
    )


def _bind(
    server: grpc.aio.Server, address: str, port: int, credentials: grpc.ServerCredentials
) -> int:
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        bound = server.add_secure_port(place, credentials)
    except RuntimeError as error:
        raise GatewayError(
            f"the gateway cannot listen on {place}: free the port, or change port or bind in"
            " genba.toml"
        ) from error
    if bound == 0:
        raise GatewayError(f"the gateway cannot listen on {place}")
    return bound
