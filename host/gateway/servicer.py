"""The two services, as agents call them. Who may do what is decided here, at every call."""

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Never, Protocol, TypeVar

from grpc import StatusCode

from host.device import Device
from host.errors import GenbaError
from host.gateway.checks import MessageError, session_id, sha256, text
from host.gateway.messages import facts_from_pb, lease_to_pb
from host.gateway.reports import Reports
from host.gateway.watch import FleetWatch, WatchEvent
from host.job import LEASE_SECONDS, Job
from host.measurement import Measurement, MeasurementFailure, Outcome, VerifySpec
from host.pki import (
    CertificateAuthority,
    CsrError,
    hash_secret,
    read_csr,
    spki_sha256,
    spki_sha256_of_pem,
)
from host.store import (
    Blob,
    BlobMismatchError,
    KeyInUseError,
    Store,
    TokenError,
    UnknownBlobError,
    UnknownJobError,
)
from protos import genba_agent_pb2 as pb

PROTOCOL_MIN = PROTOCOL_MAX = 2
CHUNK_BYTES = 256 * 1024

_log = logging.getLogger("genba.gateway")
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
    """That offset is not where the file goes on."""


class OutputsForbiddenError(GenbaError):
    """The caller holds no lease under which it may send this file."""


_STATUS: dict[type[GenbaError], StatusCode] = {
    NotEnrolledError: StatusCode.UNAUTHENTICATED,
    TokenError: StatusCode.UNAUTHENTICATED,
    KeyInUseError: StatusCode.ALREADY_EXISTS,
    CsrError: StatusCode.INVALID_ARGUMENT,
    MessageError: StatusCode.INVALID_ARGUMENT,
    ProtocolMismatchError: StatusCode.FAILED_PRECONDITION,
    SessionError: StatusCode.FAILED_PRECONDITION,
    BlobForbiddenError: StatusCode.PERMISSION_DENIED,
    OutputsForbiddenError: StatusCode.PERMISSION_DENIED,
    OffsetError: StatusCode.OUT_OF_RANGE,
    BlobMismatchError: StatusCode.DATA_LOSS,
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
        reports: Reports,
        host_version: str,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._watch = watch
        self._reports = reports
        self._sent: dict[str, tuple[str, str]] = {}  # the lease and the file, by device
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
        if released:
            await asyncio.to_thread(self._reports.left, device.id)
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
        await asyncio.to_thread(self._reports.claimed, lease.job)
        return pb.ClaimReply(lease=lease_to_pb(lease))

    @_unary
    async def Renew(  # noqa: N802 - named by the protocol
        self, request: pb.RenewRequest, context: Context
    ) -> pb.RenewReply:
        device = await self._caller(context)
        cancel = await asyncio.to_thread(self._store.jobs.renew, device.id, request.lease_id)
        if cancel:
            await asyncio.to_thread(self._reports.left, device.id)
        return pb.RenewReply(cancel=cancel, lease_seconds=self._lease_seconds)

    @_streaming
    async def ReadBlob(  # noqa: N802 - named by the protocol
        self, request: pb.BlobRequest, context: Context
    ) -> AsyncGenerator[pb.Chunk]:
        device = await self._caller(context)
        wanted = sha256("sha256", request.sha256)
        allowed = await asyncio.to_thread(self._store.jobs.leased_blobs, device.id)
        if wanted not in allowed:
            raise BlobForbiddenError(f"{device.name} holds no lease that names this file")
        path = self._store.blobs.path(wanted)
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
    async def WriteBlob(  # noqa: N802 - named by the protocol
        self, parts: AsyncIterator[pb.BlobPart], context: Context
    ) -> pb.WriteBlobReply:
        device = await self._caller(context)
        first = await anext(parts, None)
        if first is None:
            raise MessageError("no part of a file came")
        spec = await self._may_send(device, first)
        blob = await self._receive(first, parts, spec.max_output_bytes)
        self._sent[device.id] = first.lease_id, blob.sha256
        _log.info("%s sent %d bytes of outputs", device.name, blob.size_bytes)
        return pb.WriteBlobReply(size_bytes=blob.size_bytes)

    @_unary
    async def Report(  # noqa: N802 - named by the protocol
        self, request: pb.ReportRequest, context: Context
    ) -> pb.ReportReply:
        device = await self._caller(context)
        job = await asyncio.to_thread(self._store.jobs.get, request.job_id)
        if job.device_id != device.id:
            raise UnknownJobError(job.id)
        if job.state in ("done", "failed"):
            return pb.ReportReply(stored=False)
        # Shielded: a device that stops waiting for the answer must not undo the work on it.
        stored = await asyncio.shield(asyncio.to_thread(self._keep, device, job, request))
        return pb.ReportReply(stored=stored)

    def _keep(self, device: Device, job: Job, request: pb.ReportRequest) -> bool:
        """Everything that follows from a report, and the report itself, into the store."""
        outcome = self._reports.outcome(request, job, self._store.now())
        key = text(request.idempotency_key)[:100]
        stored = self._store.jobs.report(device.id, job.id, request.attempt, key, outcome)
        kept = "" if stored else " (not kept)"
        _log.info("%s reported job %s: %s%s", device.name, job.id, _said(outcome), kept)
        return stored

    async def _may_send(self, device: Device, part: pb.BlobPart) -> VerifySpec:
        """The spec of the job that these outputs are of."""
        wanted = sha256("sha256", part.sha256)
        job = await asyncio.to_thread(self._store.jobs.leased, device.id, part.lease_id)
        if job is None or not isinstance(job.spec, VerifySpec):
            raise OutputsForbiddenError(
                f"{device.name} holds no such lease of a job to verify a model"
            )
        lease_id, sent = self._sent.get(device.id, ("", ""))
        if lease_id == part.lease_id and sent != wanted:
            raise OutputsForbiddenError(f"{device.name} has sent other outputs of this job already")
        return job.spec

    async def _receive(
        self, first: pb.BlobPart, parts: AsyncIterator[pb.BlobPart], max_bytes: int
    ) -> Blob:
        with self._store.blobs.incoming() as incoming:
            part: pb.BlobPart | None = first
            while part is not None:
                if (part.lease_id, part.sha256) != (first.lease_id, first.sha256):
                    raise MessageError("the parts must be of one file")
                if part.offset != incoming.size_bytes:
                    raise OffsetError(
                        f"the file goes on at offset {incoming.size_bytes}, not at {part.offset}"
                    )
                if part.offset + len(part.data) > max_bytes:
                    raise MessageError(f"the outputs may have at most {max_bytes} bytes")
                await asyncio.to_thread(incoming.write, part.data)
                part = await anext(parts, None)
            return await asyncio.to_thread(incoming.keep, first.sha256)

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


def _said(outcome: Outcome) -> str:
    if isinstance(outcome, Measurement):
        return f"measured, {outcome.verdict.level}"
    if isinstance(outcome, MeasurementFailure):
        return outcome.kind
    return type(outcome).__name__
