"""The two services, as agents call them. Who may do what is decided here, at every call."""

import asyncio
import functools
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Never, Protocol, TypeVar

from grpc import StatusCode

from host.device import Device
from host.errors import GenbaError
from host.gateway.messages import (
    MessageError,
    facts_from_pb,
    lease_to_pb,
    outcome_from_pb,
    session_id,
    text,
)
from host.gateway.watch import FleetWatch, WatchEvent
from host.job import LEASE_SECONDS
from host.measurement import Measurement
from host.pki import (
    CertificateAuthority,
    CsrError,
    hash_secret,
    read_csr,
    spki_sha256,
    spki_sha256_of_pem,
)
from host.store import KeyInUseError, Store, TokenError, UnknownBlobError, UnknownJobError
from protos import genba_agent_pb2 as pb

PROTOCOL_MIN = PROTOCOL_MAX = 1
CHUNK_BYTES = 256 * 1024

_log = logging.getLogger("genba.gateway")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EVENT_KINDS = {
    "job_ready": pb.Event.KIND_JOB_READY,
    "cancel": pb.Event.KIND_CANCEL,
    "drain": pb.Event.KIND_DRAIN,
}


class NotEnrolledError(GenbaError):
    """The caller's key is not, or no longer, on the list."""


class ProtocolMismatchError(GenbaError):
    """Agent and host have no protocol version in common."""


class SessionError(GenbaError):
    """The session of the caller was replaced by a newer one."""


class BlobForbiddenError(GenbaError):
    """The caller holds no lease that names this file."""


class OffsetError(GenbaError):
    """The file ends before that offset."""


_STATUS: dict[type[GenbaError], StatusCode] = {
    NotEnrolledError: StatusCode.UNAUTHENTICATED,
    TokenError: StatusCode.UNAUTHENTICATED,
    KeyInUseError: StatusCode.ALREADY_EXISTS,
    CsrError: StatusCode.INVALID_ARGUMENT,
    MessageError: StatusCode.INVALID_ARGUMENT,
    ProtocolMismatchError: StatusCode.FAILED_PRECONDITION,
    SessionError: StatusCode.FAILED_PRECONDITION,
    BlobForbiddenError: StatusCode.PERMISSION_DENIED,
    OffsetError: StatusCode.OUT_OF_RANGE,
    UnknownJobError: StatusCode.NOT_FOUND,
    UnknownBlobError: StatusCode.NOT_FOUND,
}


def status_of(error: GenbaError) -> StatusCode:
    """How an error is told to an agent; what is not listed may pass, so it may try again."""
    kinds = (_STATUS.get(kind) for kind in type(error).__mro__)
    return next((status for status in kinds if status is not None), StatusCode.UNAVAILABLE)


class Context(Protocol):
    """What the services use of gRPC's context of a call."""

    def auth_context(self) -> Any: ...
    def peer(self) -> str: ...
    async def abort(self, code: StatusCode, details: str = "") -> Never: ...


Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Reply = TypeVar("Reply")


def _unary(
    method: Callable[[Servicer, Request, Context], Awaitable[Reply]],
) -> Callable[[Servicer, Request, Context], Awaitable[Reply]]:
    @functools.wraps(method)
    async def answered(self: Servicer, request: Request, context: Context) -> Reply:
        try:
            return await method(self, request, context)
        except GenbaError as error:
            await _refuse(context, error, method.__name__)

    return answered


def _streaming(
    method: Callable[[Servicer, Request, Context], AsyncGenerator[Reply]],
) -> Callable[[Servicer, Request, Context], AsyncGenerator[Reply]]:
    @functools.wraps(method)
    async def answered(self: Servicer, request: Request, context: Context) -> AsyncGenerator[Reply]:
        try:
            async with aclosing(method(self, request, context)) as replies:
                async for reply in replies:
                    yield reply
        except GenbaError as error:
            await _refuse(context, error, method.__name__)

    return answered


async def _refuse(context: Context, error: GenbaError, method: str) -> Never:
    status = status_of(error)
    _log.warning("%s refused to %s: %s: %s", method, context.peer(), status.name, error)
    await context.abort(status, str(error))


class EnrolmentServicer:
    """First contact: a token for a certificate."""

    def __init__(self, store: Store, authority: CertificateAuthority, gateway_port: int) -> None:
        self._store = store
        self._authority = authority
        self._gateway_port = gateway_port

    @_unary
    async def Enroll(  # noqa: N802 - named by the protocol
        self, request: pb.EnrollRequest, context: Context
    ) -> pb.EnrollReply:
        csr = read_csr(request.csr_pem)
        facts = facts_from_pb(request.facts)
        device = await asyncio.to_thread(
            self._store.devices.enrol,
            hash_secret(request.token_secret),
            spki_sha256(csr),
            facts,
        )
        _log.info("%s enrolled from %s", device.name, context.peer())
        return pb.EnrollReply(
            device_id=device.id,
            device_name=device.name,
            certificate_pem=self._authority.sign_device(csr, device.name),
            ca_pem=self._authority.certificate_pem,
            gateway_port=self._gateway_port,
        )


class FleetServicer:
    """Every later contact, each call on behalf of the device whose key the caller proved."""

    def __init__(
        self,
        store: Store,
        watch: FleetWatch,
        host_version: str,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._watch = watch
        self._host_version = host_version
        self._lease_seconds = lease_seconds

    @_unary
    async def Hello(  # noqa: N802 - named by the protocol
        self, request: pb.HelloRequest, context: Context
    ) -> pb.HelloReply:
        device = await self._caller(context)
        session = session_id(request.session_id)
        if request.protocol_min > PROTOCOL_MAX or request.protocol_max < PROTOCOL_MIN:
            raise ProtocolMismatchError(
                f"the agent speaks protocol {request.protocol_min} to {request.protocol_max}, this"
                f" host {PROTOCOL_MIN} to {PROTOCOL_MAX}: update the older of the two"
            )
        facts = facts_from_pb(request.facts)
        self._watch.open_session(device.id, session)
        await asyncio.to_thread(
            self._store.devices.seen,
            device.id,
            agent_version=text(request.agent_version),
            facts=facts,
        )
        released = await asyncio.to_thread(
            self._store.jobs.release_sessions_before, device.id, session
        )
        _log.info("%s connected, %d of its leases ended", device.name, released)
        return pb.HelloReply(
            protocol=min(request.protocol_max, PROTOCOL_MAX),
            host_version=self._host_version,
            device_name=device.name,
            server_unix_seconds=self._store.now().timestamp(),
        )

    @_streaming
    async def Watch(  # noqa: N802 - named by the protocol
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncGenerator[pb.Event]:
        device = await self._caller(context)
        session = self._current(device, request.session_id)
        async with aclosing(self._watch.events(device.id, session)) as events:
            async for event in events:
                yield _event_to_pb(event)
        await self._caller(context)  # says so where the device was removed meanwhile

    @_unary
    async def Claim(  # noqa: N802 - named by the protocol
        self, request: pb.ClaimRequest, context: Context
    ) -> pb.ClaimReply:
        device = await self._caller(context)
        session = self._current(device, request.session_id)
        lease = await asyncio.to_thread(
            self._store.jobs.claim, device.id, session, self._lease_seconds
        )
        if lease is None:
            return pb.ClaimReply()
        _log.info("%s leased job %s, attempt %d", device.name, lease.job.id, lease.attempt)
        return pb.ClaimReply(lease=lease_to_pb(lease))

    @_unary
    async def Renew(  # noqa: N802 - named by the protocol
        self, request: pb.RenewRequest, context: Context
    ) -> pb.RenewReply:
        device = await self._caller(context)
        cancel = await asyncio.to_thread(self._store.jobs.renew, device.id, request.lease_id)
        return pb.RenewReply(cancel=cancel, lease_seconds=self._lease_seconds)

    @_streaming
    async def ReadBlob(  # noqa: N802 - named by the protocol
        self, request: pb.BlobRequest, context: Context
    ) -> AsyncGenerator[pb.Chunk]:
        device = await self._caller(context)
        if not _SHA256.fullmatch(request.sha256):
            raise MessageError("sha256 must have 64 hexadecimal digits in lower case")
        allowed = await asyncio.to_thread(self._store.jobs.leased_blobs, device.id)
        if request.sha256 not in allowed:
            raise BlobForbiddenError(f"{device.name} holds no lease that names this file")
        path = self._store.blobs.path(request.sha256)
        size = path.stat().st_size
        if request.offset > size:
            raise OffsetError(f"the file has {size} bytes, so none at offset {request.offset}")
        offset = request.offset
        with path.open("rb") as file:
            file.seek(offset)
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield pb.Chunk(offset=offset, data=data)
                offset += len(data)

    @_unary
    async def Report(  # noqa: N802 - named by the protocol
        self, request: pb.ReportRequest, context: Context
    ) -> pb.ReportReply:
        device = await self._caller(context)
        job = await asyncio.to_thread(self._store.jobs.get, request.job_id)
        if job.device_id != device.id:
            raise UnknownJobError(job.id)
        outcome = outcome_from_pb(request, job, self._store.now())
        stored = await asyncio.to_thread(
            self._store.jobs.report,
            device.id,
            job.id,
            request.attempt,
            text(request.idempotency_key)[:100],
            outcome,
        )
        _log.info(
            "%s reported job %s: %s%s",
            device.name,
            job.id,
            "measured" if isinstance(outcome, Measurement) else outcome.kind,
            "" if stored else " (not kept)",
        )
        return pb.ReportReply(stored=stored)

    async def _caller(self, context: Context) -> Device:
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
        if pem is None:
            raise NotEnrolledError("the connection has no client certificate: enrol this device")
        device = await asyncio.to_thread(
            self._store.devices.by_spki, spki_sha256_of_pem(bytes(pem))
        )
        if device is None:
            raise NotEnrolledError(
                "this device is not enrolled here, or was removed: enrol it with a new token from"
                " `genba device enroll NAME`"
            )
        return device

    def _current(self, device: Device, session: str) -> str:
        if self._watch.is_superseded(device.id, session_id(session)):
            raise SessionError(
                f"{device.name} has opened another session since: only one agent may run with its"
                " key"
            )
        return session


def _event_to_pb(event: WatchEvent) -> pb.Event:
    return pb.Event(kind=_EVENT_KINDS[event.kind], job_id=event.job_id)
