"""The connection to the host: channels, TLS, and messages to and from the agent's own values.

The only file that sees generated messages. Every call has a deadline and raises one of three
errors: HostAwayError (may succeed another time), HostRefusedError (a person must act),
RequestRefusedError (this one request will never succeed).
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable

import grpc
from google.protobuf.message import DecodeError

from device_agent.backoff import Backoff, system_uniform
from device_agent.errors import (
    AgentError,
    HostAwayError,
    HostBusyError,
    HostRefusedError,
    MessageTooLargeError,
    ProtocolMismatchError,
    RequestRefusedError,
    UnprovenLeaseError,
)
from device_agent.lease_proof import prove_lease
from device_agent.outbox import Letter
from device_agent.runtimes.base import RuntimeFacts
from device_agent.sensors.base import PowerSourceFacts
from device_agent.state import Identity
from device_agent.system import DeviceFacts
from device_agent.work import (
    Block,
    EnergyRun,
    Failure,
    FailureKind,
    InputShape,
    Lease,
    MeasuredSamples,
    MeasureSpec,
    ModelRun,
    Phase,
    PhaseKind,
    Plan,
    PowerSeries,
    Preflight,
    ProbeResult,
    ProbeSpec,
    ProcessRun,
    Profile,
    ProfileSpec,
    Readiness,
    ReferenceRun,
    Spec,
    Thermal,
    VerifiedOutputs,
    VerifySpec,
)
from protos import genba_agent_pb2 as pb
from protos import genba_agent_pb2_grpc as rpc

PROTOCOL_MIN = 3
PROTOCOL_MAX = 3
SERVER_NAME = "genba-host"
"""The name in every certificate of the host, whatever address it is reached at."""

# An upload starts anew when it is cut, so it gets the time that a very slow line needs.
_UPLOAD_SECONDS = 300.0
_SLOWEST_BYTES_PER_SECOND = 20_000
_MAX_MESSAGE_BYTES = 1 << 20
_PART_BYTES = 1 << 18
_TICK_SECONDS = 1e-7
_SHORTEST_LEASE_SECONDS, _LONGEST_LEASE_SECONDS = 0.1, 86_400.0
# Tries of one call at a host that is busy, over half a minute at most.
_BUSY_TRIES = 7
_REFUSALS = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAUTHENTICATED,
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
# gRPC tells a message over a size limit by these words alone: its status is that of a busy host.
_TOO_LARGE = "larger than max"


@dataclass(frozen=True)
class Pace:
    """How long the agent waits for a host that says nothing. A connection that is half open is
    noticed after the sum of the first two. The host lets agents ping every 20 s.
    """

    keepalive_seconds: float = 60.0
    keepalive_timeout_seconds: float = 20.0
    unary_seconds: float = 20.0
    renew_seconds: float = 5.0
    blob_seconds: float = 60.0


_PACE = Pace()


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

    def __init__(
        self,
        identity: Identity,
        pace: Pace = _PACE,
        *,
        uniform: Callable[[float, float], float] = system_uniform,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        credentials = grpc.ssl_channel_credentials(
            identity.ca_pem, identity.key_pem, identity.certificate_pem
        )
        self._identity = identity
        self._pace = pace
        self._uniform = uniform
        self._sleep = sleep
        self._channel = grpc.secure_channel(identity.address, credentials, options=_options(pace))
        self._fleet = rpc.FleetStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def hello(self, session_id: str, agent_version: str, facts: DeviceFacts) -> Welcome:
        """Open the session. Raises also ProtocolMismatchError."""
        request = pb.HelloRequest(
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            agent_version=agent_version,
            session_id=session_id,
            facts=_facts_message(facts),
        )
        reply = self._ask(self._fleet.Hello, request)
        if not PROTOCOL_MIN <= reply.protocol <= PROTOCOL_MAX:
            raise ProtocolMismatchError(reply.protocol, PROTOCOL_MIN, PROTOCOL_MAX)
        return Welcome(reply.protocol, reply.host_version, reply.device_name)

    def watch(self, session_id: str) -> Watch:
        """Without a deadline: keepalive notices where nobody is there any more."""
        call = self._fleet.Watch(pb.WatchRequest(session_id=session_id))
        return Watch(call, call.cancel)

    def claim(self, session_id: str) -> Lease | None:
        """The next job, or None where nothing waits for this device.

        Raises also UnprovenLeaseError; then nothing of what came was used.
        """
        reply = self._ask(self._fleet.Claim, pb.ClaimRequest(session_id=session_id))
        if reply.HasField("signed"):
            return _proven_lease(reply.signed, self._identity)
        if reply.HasField("lease"):
            raise UnprovenLeaseError("it sends jobs without a signature: update genba on the host")
        return None

    def renew(self, lease_id: str) -> bool:
        """Keep a lease alive; True where the host wants its job cancelled. Tried once, and soon
        over: a worker may be waiting for it.
        """
        with _translated():
            reply = self._fleet.Renew(
                pb.RenewRequest(lease_id=lease_id), timeout=self._pace.renew_seconds
            )
        return reply.cancel

    def read_blob(self, sha256: str, offset: int) -> Iterator[tuple[int, bytes]]:
        """The blob from `offset` to its end, as (offset, bytes). A slow line gets all the time
        that it needs, as long as something comes.
        """
        while True:
            began = offset
            request = pb.BlobRequest(sha256=sha256, offset=offset)
            call = self._fleet.ReadBlob(request, timeout=self._pace.blob_seconds)
            try:
                with _translated():
                    for chunk in call:
                        offset += len(chunk.data)
                        yield chunk.offset, chunk.data
            except HostAwayError as error:
                if error.code != grpc.StatusCode.DEADLINE_EXCEEDED.name or offset == began:
                    raise
            else:
                return
            finally:
                call.cancel()

    def write_blob(
        self, lease_id: str, sha256: str, file: BinaryIO, alive: Callable[[], None]
    ) -> None:
        """Send a file of the job of that lease, in parts; `alive` is called at each of them.

        Raises OSError where the file cannot be read.
        """
        size_bytes = os.fstat(file.fileno()).st_size
        seconds = max(_UPLOAD_SECONDS, size_bytes / _SLOWEST_BYTES_PER_SECOND)
        upload = _Upload(lease_id, sha256, file, alive)
        try:
            with _translated():
                self._fleet.WriteBlob(upload.parts(), timeout=seconds)
        except AgentError as error:
            if upload.trouble is None:
                raise
            raise upload.trouble from error

    def report(self, letter: Letter, sent_monotonic_seconds: float | None) -> bool:
        """Hand over an outcome; False where the job had its result already.

        `sent_monotonic_seconds` is CLOCK_MONOTONIC now, or None for an outcome of another boot. An
        outcome that no message can hold is reported as a failure that says so.
        """
        try:
            request = _report_message(letter, sent_monotonic_seconds)
        except (OverflowError, TypeError, ValueError) as error:
            raise RequestRefusedError(
                "UNSENDABLE", f"no message can hold this result ({error})"
            ) from error
        size_bytes = request.ByteSize()
        if size_bytes > _MAX_MESSAGE_BYTES:
            text = (
                f"the result has {size_bytes} bytes and a report may have {_MAX_MESSAGE_BYTES}:"
                " ask for fewer samples, energy windows or operators"
            )
            too_large = dataclasses.replace(letter, outcome=Failure(FailureKind.RESOURCE, text))
            request = _report_message(too_large, sent_monotonic_seconds)
        return bool(self._ask(self._fleet.Report, request).stored)

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        """The reply; while the host is busy, tried again over this same connection."""
        backoff = Backoff(self._uniform)
        for _ in range(_BUSY_TRIES - 1):
            with contextlib.suppress(HostBusyError):
                return self._ask_once(method, request)
            self._sleep(backoff.next_seconds())
        return self._ask_once(method, request)

    def _ask_once(self, method: Callable[..., Any], request: Any) -> Any:
        with _translated():
            return method(request, timeout=self._pace.unary_seconds)


def enroll(
    address: str, ca_pem: bytes, *, token_secret: str, csr_pem: bytes, facts: DeviceFacts
) -> Enrolled:
    """Trade a one-time token for a certificate, with a host that owns the key of `ca_pem`."""
    credentials = grpc.ssl_channel_credentials(ca_pem)
    request = pb.EnrollRequest(
        token_secret=token_secret, csr_pem=csr_pem, facts=_facts_message(facts)
    )
    options = _options(_PACE)
    with grpc.secure_channel(address, credentials, options=options) as channel, _translated():
        reply = rpc.EnrolmentStub(channel).Enroll(request, timeout=_PACE.unary_seconds)
    return Enrolled(
        device_id=reply.device_id,
        device_name=reply.device_name,
        certificate_pem=reply.certificate_pem,
        ca_pem=reply.ca_pem,
        gateway_port=reply.gateway_port,
    )


def _options(pace: Pace) -> list[tuple[str, Any]]:
    return [
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", round(pace.keepalive_seconds * 1e3)),
        ("grpc.keepalive_timeout_ms", round(pace.keepalive_timeout_seconds * 1e3)),
        # Otherwise gRPC gives every ping a minute, whatever the keepalive timeout says.
        ("grpc.http2.ping_timeout_ms", round(pace.keepalive_timeout_seconds * 1e3)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Otherwise a new channel inherits the back-off of an old one to the same address.
        ("grpc.use_local_subchannel_pool", 1),
    ]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        raise _error_of(code, error.details() or code.name.lower()) from error


def _error_of(code: grpc.StatusCode, detail: str) -> AgentError:
    if code in _REFUSALS:
        return HostRefusedError(code.name, detail)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        detail = f"it does not know a call of this agent ({detail}): update the older of the two"
        return HostRefusedError(code.name, detail)
    if code in _NEVER:
        return RequestRefusedError(code.name, detail)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        error = MessageTooLargeError if _TOO_LARGE in detail else HostBusyError
        return error(code.name, detail)
    return HostAwayError(code.name, detail)


class _Upload:
    """A file on its way. gRPC reads it in a thread of its own, where nobody hears of an error:
    that is kept in `trouble`.
    """

    def __init__(
        self, lease_id: str, sha256: str, file: BinaryIO, alive: Callable[[], None]
    ) -> None:
        self.trouble: OSError | None = None
        self._lease_id = lease_id
        self._sha256 = sha256
        self._file = file
        self._alive = alive

    def parts(self) -> Iterator[pb.BlobPart]:
        offset = 0
        # A file of no bytes is one part too, or nobody would know of which file.
        while (data := self._read()) or offset == 0:
            self._alive()
            yield pb.BlobPart(
                lease_id=self._lease_id, sha256=self._sha256, offset=offset, data=data
            )
            if not data:
                return
            offset += len(data)

    def _read(self) -> bytes:
        try:
            return self._file.read(_PART_BYTES)
        except OSError as error:
            self.trouble = error
            raise


def _proven_lease(signed: pb.SignedLease, identity: Identity) -> Lease:
    prove_lease(signed.lease, signed.signature, identity.ca_pem)
    try:
        message = pb.Lease.FromString(signed.lease)
    except DecodeError as error:
        raise UnprovenLeaseError("the bytes that it signed are no job") from error
    if message.device_id != identity.device_id:
        raise UnprovenLeaseError(
            f"it handed out a job that was signed for another device ({message.device_id}): only"
            " one device may have the keys of this one"
        )
    return _lease(message)


def _lease(message: pb.Lease) -> Lease:
    if not _SHORTEST_LEASE_SECONDS <= message.lease_seconds <= _LONGEST_LEASE_SECONDS:
        raise UnprovenLeaseError(f"its lease lasts {message.lease_seconds} s")
    return Lease(
        id=message.lease_id,
        job_id=message.job_id,
        attempt=message.attempt,
        seconds=message.lease_seconds,
        spec=_spec(message),
    )


def _spec(message: pb.Lease) -> Spec:
    task = message.WhichOneof("task")
    if task == "measure":
        return _measure_spec(message.measure)
    if task == "verify":
        return _verify_spec(message.verify)
    if task == "profile":
        return _profile_spec(message.profile)
    if task == "probe":
        return _probe_spec(message.probe)
    # Both ends agreed on a version of the protocol, so this is no matter of an older agent.
    raise UnprovenLeaseError(f"the lease {message.lease_id} holds none")


def _measure_spec(message: pb.MeasureSpec) -> MeasureSpec:
    return MeasureSpec(
        protocol=message.protocol,
        run=_model_run(message.run),
        readiness=_readiness(message.readiness),
        plan=_plan(message.plan),
        timeout_seconds=message.timeout_seconds,
    )


def _verify_spec(message: pb.VerifySpec) -> VerifySpec:
    return VerifySpec(
        protocol=message.protocol,
        run=_model_run(message.run),
        inputs_sha256=message.inputs_sha256,
        inputs_size_bytes=message.inputs_size_bytes,
        max_output_bytes=message.max_output_bytes,
        timeout_seconds=message.timeout_seconds,
    )


def _profile_spec(message: pb.ProfileSpec) -> ProfileSpec:
    return ProfileSpec(
        protocol=message.protocol,
        run=_model_run(message.run),
        runs=message.runs,
        timeout_seconds=message.timeout_seconds,
    )


def _probe_spec(message: pb.ProbeSpec) -> ProbeSpec:
    return ProbeSpec(
        protocol=message.protocol,
        readiness=_readiness(message.readiness),
        timeout_seconds=message.timeout_seconds,
    )


def _model_run(message: pb.ModelRun) -> ModelRun:
    return ModelRun(
        model_sha256=message.model_sha256,
        model_size_bytes=message.model_size_bytes,
        runtime=message.runtime,
        threads=message.threads,
        input_shapes=tuple(
            InputShape(shape.name, tuple(shape.sizes)) for shape in message.input_shapes
        ),
        options=tuple(message.options),
    )


def _readiness(message: pb.Readiness) -> Readiness:
    return Readiness(
        observe_seconds=message.observe_seconds,
        max_foreign_cpu=message.max_foreign_cpu,
        min_free_ram_bytes=message.min_free_ram_bytes,
        max_start_celsius=(
            message.max_start_celsius if message.HasField("max_start_celsius") else None
        ),
        wait_seconds=message.wait_seconds,
        measure_when_busy=message.measure_when_busy,
    )


def _plan(message: pb.Plan) -> Plan:
    return Plan(
        processes=message.processes,
        warmup_runs=message.warmup_runs,
        warmup_seconds=message.warmup_seconds,
        min_blocks=message.min_blocks,
        block_runs=message.block_runs,
        block_seconds=message.block_seconds,
        min_samples=message.min_samples,
        half_width=message.half_width,
        budget_seconds=message.budget_seconds,
        energy_windows=message.energy_windows,
        energy_window_seconds=message.energy_window_seconds,
        paced_hertz=message.paced_hertz if message.HasField("paced_hertz") else None,
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
        emulated=facts.emulated,
        runtimes=_runtime_messages(facts.runtimes),
        power_sources=_power_source_messages(facts.power_sources),
        guards=[
            pb.GuardFacts(name=guard.name, works=guard.works, how=guard.how, why_not=guard.why_not)
            for guard in facts.guards
        ],
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
    FailureKind.NOT_READY: pb.Failure.KIND_NOT_READY,
}
_PHASE_KINDS = {
    PhaseKind.IDLE: pb.Phase.KIND_IDLE,
    PhaseKind.STEP: pb.Phase.KIND_STEP,
    PhaseKind.BUSY: pb.Phase.KIND_BUSY,
    PhaseKind.PACED: pb.Phase.KIND_PACED,
}


def _report_message(letter: Letter, sent_monotonic_seconds: float | None) -> pb.ReportRequest:
    outcome = letter.outcome
    request = pb.ReportRequest(
        job_id=letter.job_id,
        attempt=letter.attempt,
        idempotency_key=letter.idempotency_key,
        sent_monotonic_seconds=sent_monotonic_seconds,
    )
    if isinstance(outcome, MeasuredSamples):
        request.measured.CopyFrom(_samples_message(outcome))
    elif isinstance(outcome, VerifiedOutputs):
        request.verified.CopyFrom(_verified_message(outcome))
    elif isinstance(outcome, Profile):
        request.profile.CopyFrom(_profile_message(outcome))
    elif isinstance(outcome, ProbeResult):
        request.probe.CopyFrom(_probe_message(outcome))
    else:
        request.failure.CopyFrom(
            pb.Failure(kind=_FAILURE_KINDS[outcome.kind], message=outcome.message)
        )
    return request


def _samples_message(samples: MeasuredSamples) -> pb.MeasuredSamples:
    return pb.MeasuredSamples(
        protocol=samples.protocol,
        runtime=samples.runtime,
        runtime_library=samples.runtime_library,
        runtime_version=samples.runtime_version,
        threads=samples.threads,
        runtime_options=samples.runtime_options,
        cpus=samples.cpus,
        preflight=_preflight_message(samples.preflight),
        processes=[_process_message(run) for run in samples.processes],
        thermal=_thermal_message(samples.thermal),
        governor=samples.governor,
        load_average_start=samples.load_average_start,
        energy=None if samples.energy is None else _energy_message(samples.energy),
        energy_absent_because=samples.energy_absent_because,
    )


def _preflight_message(preflight: Preflight) -> pb.Preflight:
    return pb.Preflight(
        foreign_cpu=preflight.foreign_cpu,
        swapped_in_pages=preflight.swapped_in_pages,
        free_ram_bytes=preflight.free_ram_bytes,
        temperature_celsius=preflight.temperature_celsius,
        throttled=preflight.throttled,
        canary_seconds=preflight.canary_seconds,
        waited_seconds=preflight.waited_seconds,
        problems=preflight.problems,
    )


def _thermal_message(thermal: Thermal) -> pb.Thermal:
    return pb.Thermal(
        start_celsius=thermal.start_celsius,
        end_celsius=thermal.end_celsius,
        max_celsius=thermal.max_celsius,
        throttle_events=thermal.throttle_events,
        cooled_seconds=thermal.cooled_seconds,
        throttled=thermal.throttled,
    )


def _process_message(run: ProcessRun) -> pb.ProcessRun:
    memory = run.memory
    return pb.ProcessRun(
        memory=pb.Memory(
            base_rss_bytes=memory.base_rss_bytes,
            load_rss_bytes=memory.load_rss_bytes,
            peak_rss_bytes=memory.peak_rss_bytes,
            uss_bytes=memory.uss_bytes,
            pss_bytes=memory.pss_bytes,
            base_uss_bytes=memory.base_uss_bytes,
        ),
        load_seconds=run.load_seconds,
        first_inference_seconds=run.first_inference_seconds,
        warmup_runs=run.warmup_runs,
        steady=run.steady,
        runs_per_sample=run.runs_per_sample,
        blocks=[_block_message(block, run.runs_per_sample) for block in run.blocks],
        call_overhead_seconds=run.call_overhead_seconds,
    )


def _block_message(block: Block, runs_per_sample: int) -> pb.Block:
    return pb.Block(
        latency_ticks=_ticks([value * runs_per_sample for value in block.latency_seconds]),
        cpu_ticks=_ticks([value * runs_per_sample for value in block.cpu_seconds]),
        run_delay_ticks=_ticks(block.run_delay_seconds or ()),
        reference_ticks=_ticks(block.reference_seconds),
        reference_cpu_ticks=_ticks(block.reference_cpu_seconds),
        involuntary_switches=block.involuntary_switches,
        steal_seconds=block.steal_seconds,
        canary_seconds=block.canary_seconds,
        started_monotonic_seconds=block.started_monotonic_seconds,
        lasted_seconds=block.lasted_seconds,
    )


def _ticks(seconds: Sequence[float]) -> list[int]:
    """Differences between neighbours, the first against 0, in units of 100 ns. Whole values are
    rounded before they are subtracted, so no error adds up.
    """
    values = [round(value / _TICK_SECONDS) for value in seconds]
    return [value - before for before, value in zip([0, *values], values)]


def _energy_message(run: EnergyRun) -> pb.EnergyRun:
    return pb.EnergyRun(
        phases=[_phase_message(phase) for phase in run.phases],
        series=[_series_message(series) for series in run.series],
        temperature_start_celsius=run.temperature_start_celsius,
        temperature_end_celsius=run.temperature_end_celsius,
        cpu_utilisation=run.cpu_utilisation,
    )


def _phase_message(phase: Phase) -> pb.Phase:
    return pb.Phase(
        kind=_PHASE_KINDS[phase.kind],
        started_monotonic_seconds=phase.started_monotonic_seconds,
        ended_monotonic_seconds=phase.ended_monotonic_seconds,
        inferences=phase.inferences,
    )


def _series_message(series: PowerSeries) -> pb.PowerSeries:
    return pb.PowerSeries(
        source=series.source,
        scope=series.scope,
        kind=series.kind,
        max_watts=series.max_watts,
        monotonic_seconds=series.monotonic_seconds,
        energy_joules=series.energy_joules,
        power_watts=series.power_watts,
        broken_because=series.broken_because,
    )


def _verified_message(outputs: VerifiedOutputs) -> pb.VerifiedOutputs:
    return pb.VerifiedOutputs(
        runtime=outputs.runtime,
        runtime_library=outputs.runtime_library,
        runtime_version=outputs.runtime_version,
        outputs_sha256=outputs.outputs_sha256,
        outputs_size_bytes=outputs.outputs_size_bytes,
        examples=outputs.examples,
        runtime_options=outputs.runtime_options,
    )


def _profile_message(profile: Profile) -> pb.Profile:
    return pb.Profile(
        runtime=profile.runtime,
        runtime_library=profile.runtime_library,
        runtime_version=profile.runtime_version,
        threads=profile.threads,
        runs=profile.runs,
        run_seconds=profile.run_seconds,
        operators=[
            pb.OperatorTime(name=operator.name, kind=operator.kind, seconds=operator.seconds)
            for operator in profile.operators
        ],
        runtime_options=profile.runtime_options,
    )


def _probe_message(probe: ProbeResult) -> pb.ProbeResult:
    return pb.ProbeResult(
        preflight=_preflight_message(probe.preflight),
        references=[_reference_message(run) for run in probe.references],
        thermal=_thermal_message(probe.thermal),
        governor=probe.governor,
    )


def _reference_message(run: ReferenceRun) -> pb.ReferenceRun:
    return pb.ReferenceRun(
        runtime=run.runtime,
        runtime_library=run.runtime_library,
        runtime_version=run.runtime_version,
        latency_seconds=run.latency_seconds,
        cpu_seconds=run.cpu_seconds,
        canary_seconds=run.canary_seconds,
        failed_because=run.failed_because,
    )
