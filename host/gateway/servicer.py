"""The service of enrolled devices. Who may do what is decided here, at every call."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from host.device import Device
from host.gateway.callers import Callers
from host.gateway.checks import MessageError, identifier, session_id, sha256, text
from host.gateway.gate import Bounds, Gate
from host.gateway.ledger import Ledger
from host.gateway.messages import facts_from_pb, lease_to_pb
from host.gateway.refusals import (
    BlobForbiddenError,
    Context,
    OffsetError,
    OutputsForbiddenError,
    ProtocolMismatchError,
    SessionError,
    streaming,
    unary,
)
from host.gateway.reports import Reports, measures_energy
from host.gateway.watch import FleetWatch, WatchEvent
from host.job import Job, Lease
from host.measurement import VerifySpec
from host.pki import CertificateAuthority
from host.store import (
    Blob,
    Claim,
    Renewal,
    SessionSupersededError,
    Store,
    UnknownJobError,
)
from protos import genba_agent_pb2 as pb

PROTOCOL_MIN, PROTOCOL_MAX = 2, 3
CHUNK_BYTES = 256 * 1024
REPORT_BOUNDS = Bounds(inside=100, waiting=2000, waiting_bytes=64 * 1024 * 1024, of_one=4)
"""Reports; those that wait are in memory."""
TRANSFER_BOUNDS = Bounds(inside=128, waiting=2000, waiting_bytes=0, of_one=4)
"""Files under way; each has about two chunks in memory."""

_log = logging.getLogger("genba.gateway")
_EVENT_KINDS = {
    "job_ready": pb.Event.KIND_JOB_READY,
    "cancel": pb.Event.KIND_CANCEL,
    "drain": pb.Event.KIND_DRAIN,
}


@dataclass
class _Held:
    """The lease that a device was given last, and whether it has shown that it knows of it."""

    lease: Lease
    known: bool = False


@dataclass(frozen=True)
class Host:
    """What the service is made of."""

    store: Store
    ledger: Ledger
    callers: Callers
    watch: FleetWatch
    reports: Reports
    authority: CertificateAuthority
    version: str
    lease_seconds: float


class FleetServicer:
    """Every later contact, each call on behalf of the device whose key the caller proved."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._store, self._ledger = host.store, host.ledger
        self._callers, self._watch, self._reports = host.callers, host.watch, host.reports
        self._held: dict[str, _Held] = {}  # by device
        self._sent: dict[str, tuple[str, str]] = {}  # the lease and the file, by device
        self._keeping: set[asyncio.Task[bool]] = set()
        self._reporting = Gate("reports", REPORT_BOUNDS)
        self._transfers = Gate("transfers of files", TRANSFER_BOUNDS)

    async def finish(self) -> None:
        """Wait until every report that was begun is kept, whoever still waits for the answer."""
        await asyncio.gather(*self._keeping, return_exceptions=True)

    @unary
    async def Hello(  # noqa: N802 - named by the protocol
        self, request: pb.HelloRequest, context: Context
    ) -> pb.HelloReply:
        device = await self._callers.device(context)
        session = session_id(request.session_id)
        _require_protocol(request)
        released = await self._ledger.write(
            self._store.devices.open_session,
            device.id,
            session,
            agent_version=text(request.agent_version),
            facts=facts_from_pb(request.facts),
        )
        self._reports.connected(device.id)
        self._held.pop(device.id, None)
        if released:
            self._reports.left(device.id)
        _log.info("%s connected, %d of its leases ended", device.name, released)
        return pb.HelloReply(
            protocol=min(request.protocol_max, PROTOCOL_MAX),
            host_version=self._host.version,
            device_name=device.name,
            server_unix_seconds=self._store.now().timestamp(),
        )

    @streaming
    async def Watch(  # noqa: N802 - named by the protocol
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncGenerator[pb.Event]:
        device = await self._callers.device(context)
        session = session_id(request.session_id)
        await self._require_session(device, session)
        async with aclosing(self._watch.events(device, session)) as events:
            async for event in events:
                yield _event_to_pb(event)
        if not self._watch.draining:
            await self._callers.device(context)  # says so where it was shut out
            await self._require_session(device, session)

    @unary
    async def Claim(  # noqa: N802 - named by the protocol
        self, request: pb.ClaimRequest, context: Context
    ) -> pb.ClaimReply:
        device = await self._callers.device(context)
        session = session_id(request.session_id)
        if self._watch.draining:
            return pb.ClaimReply()
        held = self._held.get(device.id)
        given_up = held.lease.lease_id if held is not None and held.known else None
        lease = await self._ledger.claim(
            Claim(device.id, session, self._host.lease_seconds, given_up)
        )
        self._watch.settled(device.id)
        if lease is None:
            return pb.ClaimReply()
        if held is None or held.lease.lease_id != lease.lease_id:
            await self._begun(device, lease)
        message = lease_to_pb(lease)
        content = message.SerializeToString()
        signature = self._host.authority.sign_lease(content)
        return pb.ClaimReply(
            lease=message, signed=pb.SignedLease(lease=content, signature=signature)
        )

    @unary
    async def Renew(  # noqa: N802 - named by the protocol
        self, request: pb.RenewRequest, context: Context
    ) -> pb.RenewReply:
        device = await self._callers.device(context)
        lease_id = identifier("lease_id", request.lease_id)
        self._knows(device, lease_id=lease_id)
        cancel = await self._ledger.renew(Renewal(device.id, lease_id))
        if cancel:
            self._reports.left(device.id)
        return pb.RenewReply(cancel=cancel, lease_seconds=self._host.lease_seconds)

    @streaming
    async def ReadBlob(  # noqa: N802 - named by the protocol
        self, request: pb.BlobRequest, context: Context
    ) -> AsyncGenerator[pb.Chunk]:
        device = await self._callers.device(context)
        wanted = sha256("sha256", request.sha256)
        async with self._transfers.pass_through(device.id):
            allowed = await self._ledger.read(self._store.jobs.leased_blobs, device.id)
            if wanted not in allowed:
                raise BlobForbiddenError(f"{device.name} holds no lease that names this file")
            self._knows(device)
            path = self._store.blobs.path(wanted)
            size = path.stat().st_size
            if request.offset > size:
                raise OffsetError(f"the file has {size} bytes, so none at offset {request.offset}")
            offset = request.offset
            with path.open("rb") as file:
                file.seek(offset)
                while data := await self._ledger.read(file.read, CHUNK_BYTES):
                    await self._callers.device(context)  # it may be shut out meanwhile
                    yield pb.Chunk(offset=offset, data=data)
                    offset += len(data)

    @unary
    async def WriteBlob(  # noqa: N802 - named by the protocol
        self, parts: AsyncIterator[pb.BlobPart], context: Context
    ) -> pb.WriteBlobReply:
        device = await self._callers.device(context)
        async with self._transfers.pass_through(device.id):
            first = await anext(parts, None)
            if first is None:
                raise MessageError("no part of a file came")
            spec = await self._may_send(device, first)
            self._knows(device, lease_id=first.lease_id)
            # Before they are all there: several at once must not be several files.
            self._sent[device.id] = first.lease_id, first.sha256
            blob = await self._receive(context, first, parts, spec.max_output_bytes)
        _log.info("%s sent %d bytes of outputs", device.name, blob.size_bytes)
        return pb.WriteBlobReply(size_bytes=blob.size_bytes)

    @unary
    async def Report(  # noqa: N802 - named by the protocol
        self, request: pb.ReportRequest, context: Context
    ) -> pb.ReportReply:
        device = await self._callers.device(context)
        job = await self._job(device, identifier("job_id", request.job_id), request.attempt)
        if job.state == "done":
            return pb.ReportReply(stored=False)
        if self._reports.is_metered(job):
            # Before any wait: the moment of reception tells how the two clocks differ.
            await self._ledger.read(self._reports.end_metering, request, job)
        # Shielded: a device that stops waiting for the answer must not undo the work on it.
        keeping = asyncio.create_task(self._keep(device, job, request))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        return pb.ReportReply(stored=await asyncio.shield(keeping))

    async def _keep(self, device: Device, job: Job, request: pb.ReportRequest) -> bool:
        """Everything that follows from a report, and the report itself, into the store."""
        # Until it is kept, whoever waits for it: what the gate bounds is the work and its memory.
        async with self._reporting.pass_through(device.id, request.ByteSize()):
            report, said = await self._ledger.calculate(
                self._reports.report, request, job, self._store.now()
            )
            stored = await self._ledger.report(report)
        held = self._held.get(device.id)
        if held is not None and held.lease.job.id == job.id:
            del self._held[device.id]
        kept = "" if stored else " (not kept)"
        _log.info("%s reported job %s: %s%s", device.name, job.id, said, kept)
        return stored

    async def _begun(self, device: Device, lease: Lease) -> None:
        self._held[device.id] = _Held(lease)
        _log.info("%s leased job %s, attempt %d", device.name, lease.job.id, lease.attempt)
        self._reports.left(device.id)
        if measures_energy(lease.job):
            await self._ledger.read(self._reports.claimed, lease.job)

    def _knows(self, device: Device, *, lease_id: str | None = None) -> None:
        """The device works under this lease, so it has heard of it: should it claim again, it has
        given up the job.
        """
        held = self._held.get(device.id)
        if held is not None and lease_id in (None, held.lease.lease_id):
            held.known = True

    async def _job(self, device: Device, job_id: str, attempt: int) -> Job:
        """A job of the device. Raises UnknownJobError."""
        held = self._held.get(device.id)
        # Another gateway may have given the job out again since.
        if held is not None and held.lease.job.id == job_id and held.lease.attempt >= attempt:
            held.known = True
            return held.lease.job
        job = await self._ledger.read(self._store.jobs.get, job_id)
        if job.device_id != device.id:
            raise UnknownJobError(job_id)
        return job

    async def _require_session(self, device: Device, session: str) -> None:
        """See that this is the session that the device opened last."""
        last = await self._ledger.read(self._store.devices.session_of, device.id)
        if last is None:
            raise SessionError(f"{device.name} has not said hello since it was enrolled")
        if last != session:
            raise SessionSupersededError(device.name)

    async def _may_send(self, device: Device, part: pb.BlobPart) -> VerifySpec:
        """The spec of the job that these outputs are of."""
        identifier("lease_id", part.lease_id)
        wanted = sha256("sha256", part.sha256)
        job = await self._ledger.read(self._store.jobs.leased, device.id, part.lease_id)
        if job is None or not isinstance(job.spec, VerifySpec):
            raise OutputsForbiddenError(
                f"{device.name} holds no such lease of a job to verify a model"
            )
        lease_id, sent = self._sent.get(device.id, ("", ""))
        if lease_id == part.lease_id and sent != wanted:
            raise OutputsForbiddenError(f"{device.name} has sent other outputs of this job already")
        return job.spec

    async def _receive(
        self,
        context: Context,
        first: pb.BlobPart,
        parts: AsyncIterator[pb.BlobPart],
        max_bytes: int,
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
                await self._callers.device(context)  # it may be shut out meanwhile
                await self._ledger.read(incoming.write, part.data)
                part = await anext(parts, None)
            return await self._ledger.write(incoming.keep, first.sha256)


def _require_protocol(request: pb.HelloRequest) -> None:
    """See that both sides speak a common version. Raises ProtocolMismatchError."""
    theirs = f"protocol {request.protocol_min} to {request.protocol_max}"
    ours = f"{PROTOCOL_MIN} to {PROTOCOL_MAX}"
    if request.protocol_max < PROTOCOL_MIN:
        raise ProtocolMismatchError(
            f"the agent is too old: it speaks {theirs}, this host {ours}: update genba on the"
            " device"
        )
    if request.protocol_min > PROTOCOL_MAX:
        raise ProtocolMismatchError(
            f"the host is too old: it speaks protocol {ours}, this agent {theirs}: update genba on"
            " the host"
        )


def _event_to_pb(event: WatchEvent) -> pb.Event:
    return pb.Event(kind=_EVENT_KINDS[event.kind], job_id=event.job_id)
