"""The connection to the host: channels, TLS, and messages to and from the agent's own values.

The only file that sees generated messages. Every call raises one of three errors: HostAwayError
(may succeed another time), HostRefusedError (a person must act), RequestRefusedError (this one
request will never succeed).
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Callable

import grpc

from device_agent.errors import HostAwayError, HostRefusedError, RequestRefusedError
from device_agent.runtimes.base import RuntimeFacts
from device_agent.sensors.base import PowerSourceFacts
from device_agent.state import Identity
from device_agent.system import DeviceFacts
from device_agent.work import (
    Failure,
    FailureKind,
    Lease,
    MeasuredSamples,
    MeasureSpec,
    Outcome,
    PowerReading,
)
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as rpc

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
SERVER_NAME = "genba-host"
"""The name in every certificate of the host, whatever address it is reached at."""

_UNARY_SECONDS = 20.0
# A pull that takes longer is cut and goes on at its offset, so a stalled stream cannot hang.
_BLOB_SECONDS = 300.0
_MAX_MESSAGE_BYTES = 1 << 20
_REFUSALS = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_NEVER = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_OPTIONS = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Otherwise a new channel inherits the back-off of an old one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class Enrolled:
    """The host's answer to a one-time token."""

    device_id: str
    device_name: str
    certificate_pem: bytes
    ca_pem: bytes
    gateway_port: int


@dataclass(frozen=True)
class Welcome:
    """The host's answer to Hello."""

    protocol: int
    host_version: str
    device_name: str


class EventKind(enum.Enum):
    """What the host tells a watching agent."""

    JOB_READY = pb.Event.KIND_JOB_READY
    CANCEL = pb.Event.KIND_CANCEL
    DRAIN = pb.Event.KIND_DRAIN


@dataclass(frozen=True)
class Event:
    """`job_id` is empty except for CANCEL."""

    kind: EventKind
    job_id: str


class Watch:
    """The host's stream of events; iterating blocks until the next one."""

    def __init__(self, messages: Iterable[pb.Event], cancel: Callable[[], object]) -> None:
        self._messages = messages
        self.cancel = cancel

    def __iter__(self) -> Iterator[Event]:
        with _translated():
            for message in self._messages:
                # A newer host may have more kinds; they mean nothing to this agent.
                if message.kind in {kind.value for kind in EventKind}:
                    yield Event(EventKind(message.kind), message.job_id)
        raise HostAwayError("ENDED", "the host closed the connection")


class Link:
    """One connection to the service Fleet. Calls may come from several threads."""

    def __init__(self, identity: Identity) -> None:
        credentials = grpc.ssl_channel_credentials(
            identity.ca_pem, identity.key_pem, identity.certificate_pem
        )
        self._channel = grpc.secure_channel(identity.address, credentials, options=_OPTIONS)
        self._fleet = rpc.FleetStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def hello(self, session_id: str, agent_version: str, facts: DeviceFacts) -> Welcome:
        request = pb.HelloRequest(
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            agent_version=agent_version,
            session_id=session_id,
            facts=_facts_message(facts),
        )
        with _translated():
            reply = self._fleet.Hello(request, timeout=_UNARY_SECONDS)
        return Welcome(reply.protocol, reply.host_version, reply.device_name)

    def watch(self, session_id: str) -> Watch:
        call = self._fleet.Watch(pb.WatchRequest(session_id=session_id))
        return Watch(call, call.cancel)

    def claim(self, session_id: str) -> Lease | None:
        """The next job, or None where nothing waits for this device."""
        with _translated():
            reply = self._fleet.Claim(
                pb.ClaimRequest(session_id=session_id), timeout=_UNARY_SECONDS
            )
        return _lease(reply.lease) if reply.HasField("lease") else None

    def renew(self, lease_id: str) -> bool:
        """Keep a lease alive; True where the host wants its job cancelled."""
        with _translated():
            reply = self._fleet.Renew(pb.RenewRequest(lease_id=lease_id), timeout=_UNARY_SECONDS)
        return reply.cancel

    def read_blob(self, sha256: str, offset: int) -> Iterator[tuple[int, bytes]]:
        """The blob from `offset` to its end, as (offset, bytes)."""
        with _translated():
            request = pb.BlobRequest(sha256=sha256, offset=offset)
            for chunk in self._fleet.ReadBlob(request, timeout=_BLOB_SECONDS):
                yield chunk.offset, chunk.data

    def report(self, job_id: str, attempt: int, idempotency_key: str, outcome: Outcome) -> bool:
        """Hand over an outcome; False where the job had its result already."""
        request = pb.ReportRequest(job_id=job_id, attempt=attempt, idempotency_key=idempotency_key)
        if isinstance(outcome, Failure):
            request.failure.CopyFrom(_failure_message(outcome))
        else:
            request.measured.CopyFrom(_samples_message(outcome))
        with _translated():
            return self._fleet.Report(request, timeout=_UNARY_SECONDS).stored


def enroll(
    address: str, ca_pem: bytes, *, token_secret: str, csr_pem: bytes, facts: DeviceFacts
) -> Enrolled:
    """Trade a one-time token for a certificate, with a host that owns the key of `ca_pem`."""
    credentials = grpc.ssl_channel_credentials(ca_pem)
    request = pb.EnrollRequest(
        token_secret=token_secret, csr_pem=csr_pem, facts=_facts_message(facts)
    )
    with grpc.secure_channel(address, credentials, options=_OPTIONS) as channel, _translated():
        reply = rpc.EnrolmentStub(channel).Enroll(request, timeout=_UNARY_SECONDS)
    return Enrolled(
        device_id=reply.device_id,
        device_name=reply.device_name,
        certificate_pem=reply.certificate_pem,
        ca_pem=reply.ca_pem,
        gateway_port=reply.gateway_port,
    )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        detail = error.details() or code.name.lower()
        if code in _REFUSALS:
            raise HostRefusedError(code.name, detail) from error
        if code in _NEVER:
            raise RequestRefusedError(code.name, detail) from error
        raise HostAwayError(code.name, detail) from error


def _lease(message: pb.Lease) -> Lease:
    spec = message.spec
    return Lease(
        id=message.lease_id,
        job_id=message.job_id,
        attempt=message.attempt,
        seconds=message.lease_seconds,
        spec=MeasureSpec(
            protocol=spec.protocol,
            runtime=spec.runtime,
            model_sha256=spec.model_sha256,
            model_size_bytes=spec.model_size_bytes,
            threads=spec.threads,
            warmup_runs=spec.warmup_runs,
            warmup_seconds=spec.warmup_seconds,
            min_samples=spec.min_samples,
            min_seconds=spec.min_seconds,
            timeout_seconds=spec.timeout_seconds,
        ),
    )


def _facts_message(facts: DeviceFacts) -> pb.DeviceFacts:
    return pb.DeviceFacts(
        hostname=facts.hostname,
        machine=facts.machine,
        pointer_bits=facts.pointer_bits,
        cpu_model=facts.cpu_model,
        cpu_flags=facts.cpu_flags,
        cpu_cores_physical=facts.cpu_cores_physical,
        cpu_cores_logical=facts.cpu_cores_logical,
        ram_bytes=facts.ram_bytes,
        os_name=facts.os_name,
        kernel=facts.kernel,
        python_version=facts.python_version,
        governor=facts.governor,
        temperature_celsius=facts.temperature_celsius,
        cpu_max_hertz=facts.cpu_max_hertz,
        runtimes=_runtime_messages(facts.runtimes),
        power_sources=_power_source_messages(facts.power_sources),
    )


def _runtime_messages(runtimes: Sequence[RuntimeFacts]) -> list[pb.RuntimeFacts]:
    return [
        pb.RuntimeFacts(
            name=runtime.name,
            library=runtime.library,
            version=runtime.version,
            works=runtime.works,
            why_not=runtime.why_not,
        )
        for runtime in runtimes
    ]


def _power_source_messages(sources: Sequence[PowerSourceFacts]) -> list[pb.PowerSourceFacts]:
    return [
        pb.PowerSourceFacts(name=source.name, works=source.works, why_not=source.why_not)
        for source in sources
    ]


_FAILURE_KINDS = {
    FailureKind.MODEL_REJECTED: pb.Failure.KIND_MODEL_REJECTED,
    FailureKind.WORKER_CRASHED: pb.Failure.KIND_WORKER_CRASHED,
    FailureKind.TIMEOUT: pb.Failure.KIND_TIMEOUT,
    FailureKind.RESOURCE: pb.Failure.KIND_RESOURCE,
    FailureKind.NO_RUNTIME: pb.Failure.KIND_NO_RUNTIME,
    FailureKind.CANCELLED: pb.Failure.KIND_CANCELLED,
}


def _failure_message(failure: Failure) -> pb.Failure:
    return pb.Failure(kind=_FAILURE_KINDS[failure.kind], message=failure.message)


def _samples_message(samples: MeasuredSamples) -> pb.MeasuredSamples:
    return pb.MeasuredSamples(
        protocol=samples.protocol,
        runtime=samples.runtime,
        runtime_library=samples.runtime_library,
        runtime_version=samples.runtime_version,
        threads=samples.threads,
        latency_seconds=samples.latency_seconds,
        runs_per_sample=samples.runs_per_sample,
        warmup_runs=samples.warmup_runs,
        load_seconds=samples.load_seconds,
        first_inference_seconds=samples.first_inference_seconds,
        base_rss_bytes=samples.base_rss_bytes,
        load_rss_bytes=samples.load_rss_bytes,
        peak_rss_bytes=samples.peak_rss_bytes,
        power=None if samples.power is None else _power_message(samples.power),
        power_absent_because=samples.power_absent_because,
        temperature_start_celsius=samples.temperature_start_celsius,
        temperature_end_celsius=samples.temperature_end_celsius,
        governor=samples.governor,
        load_average_start=samples.load_average_start,
        runtime_options=samples.runtime_options,
        cpu_seconds=samples.cpu_seconds,
    )


def _power_message(power: PowerReading) -> pb.PowerReading:
    return pb.PowerReading(
        source=power.source,
        scope=power.scope,
        kind=power.kind,
        energy_joules=power.energy_joules,
        window_seconds=power.window_seconds,
        inferences=power.inferences,
        idle_watts=power.idle_watts,
    )
