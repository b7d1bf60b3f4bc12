"""Bytes, messages and streams that no device of ours sends."""

import contextlib
import hashlib
import os
import random
import socket
import ssl
import time
import uuid
from typing import Any

import grpc
import pytest

from host.measurement import VerifySpec
from protos import genba_agent_pb2 as pb
from tests.faults.plant import HOST, RPC_SECONDS, measured_report

MIB = 1 << 20
METHODS = ["Hello", "Claim", "Renew", "Report", "Watch", "ReadBlob", "WriteBlob"]


def new_name(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def agent(plant):
    """A device whose calls the test makes; afterwards the gateway still works for it."""
    with plant.simulated(new_name("rough")) as (made,):
        yield made
        (job,) = plant.ask(made.device)
        made.hello()
        assert made.report(made.claim())
        plant.measured([job])
    assert plant.gateway.runs


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code()


def say(port, data):
    """What a server answers to these bytes, until it hangs up or is silent for a second."""
    answer = b""
    with socket.create_connection((HOST, port), 5.0) as opened, contextlib.suppress(OSError):
        opened.settimeout(1.0)
        opened.sendall(data)
        while piece := opened.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize("listener", ["port", "enrolment_port"])
def test_random_bytes_to_a_port_end_that_connection_and_nothing_else(plant, agent, listener):
    rng = random.Random(7)

    for size in (1, 5, 100, 20_000):
        say(getattr(plant, listener), rng.randbytes(size))


@pytest.mark.parametrize("listener", ["port", "enrolment_port"])
def test_http_without_tls_is_not_answered(plant, agent, listener):
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()

    assert b"HTTP/1.1 200" not in say(getattr(plant, listener), request)


def test_http_1_over_tls_is_not_answered_with_anything_of_ours(plant, agent):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])

    with (
        contextlib.suppress(OSError),
        socket.create_connection((HOST, plant.enrolment_port), 5.0) as opened,
        context.wrap_socket(opened, server_hostname="genba-host") as secured,
    ):
        secured.settimeout(1.0)
        secured.sendall(b"GET / HTTP/1.1\r\nHost: genba-host\r\n\r\n")
        assert b"200 OK" not in secured.recv(65_536)


def test_a_caller_without_a_certificate_hears_nothing(plant, agent):
    credentials = grpc.ssl_channel_credentials(agent.credentials.ca_pem)
    options = [("grpc.ssl_target_name_override", "genba-host"), ("grpc.enable_http_proxy", 0)]

    with grpc.secure_channel(f"{HOST}:{plant.port}", credentials, options) as channel:
        hello: Any = channel.unary_unary("/genba.v1.Fleet/Hello")
        assert refusal(lambda: hello(b"", timeout=5.0)) is grpc.StatusCode.UNAVAILABLE


def test_a_caller_in_plaintext_hears_nothing(plant, agent):
    with grpc.insecure_channel(f"{HOST}:{plant.port}") as channel:
        hello: Any = channel.unary_unary("/genba.v1.Fleet/Hello")
        assert refusal(lambda: hello(b"", timeout=5.0)) is grpc.StatusCode.UNAVAILABLE


def call_raw(agent, method, data):
    """Call with bytes instead of a message."""
    path = f"/{pb.DESCRIPTOR.package}.Fleet/{method}"
    channel = agent.channel
    if method == "WriteBlob":
        return channel.stream_unary(path)(iter([data]), timeout=RPC_SECONDS)
    if method in ("Watch", "ReadBlob"):
        return list(channel.unary_stream(path)(data, timeout=RPC_SECONDS))
    return channel.unary_unary(path)(data, timeout=RPC_SECONDS)


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_are_refused(agent, method):
    rng = random.Random(METHODS.index(method))

    for size in (3, 50, 5000):
        garbage = b"\xff" + rng.randbytes(size)
        code = refusal(lambda garbage=garbage: call_raw(agent, method, garbage))
        assert code is not grpc.StatusCode.OK


def test_a_method_that_there_is_not_is_refused(agent):
    assert refusal(lambda: call_raw(agent, "Shutdown", b"")) is grpc.StatusCode.UNIMPLEMENTED


def test_a_report_over_the_limit_is_refused_and_the_job_can_still_be_reported(plant, agent):
    (job,) = plant.ask(agent.device)
    lease = agent.claim()
    huge = measured_report(lease)
    huge.measured.governor = "x" * 2 * MIB

    code = refusal(lambda: agent.stub.Report(huge, timeout=RPC_SECONDS))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert plant.outcomes([job]) == [None]
    assert agent.report(lease)
    plant.measured([job])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report: report.measured.processes[0].blocks[0].latency_ticks.extend([1 << 62] * 20),
        lambda report: setattr(report.measured.processes[0], "load_seconds", float("nan")),
        lambda report: report.measured.ClearField("processes"),
        lambda report: report.ClearField("measured"),
        lambda report: setattr(report, "attempt", 4_000_000_000),
        lambda report: setattr(report, "attempt", 0),
    ],
    ids=["overflow", "nan", "nothing measured", "no outcome", "attempt to come", "no attempt"],
)
def test_a_report_that_makes_no_sense_leaves_the_job_as_it_was(plant, agent, spoil):
    (job,) = plant.ask(agent.device)
    lease = agent.claim()
    report = measured_report(lease)
    spoil(report)

    code = refusal(lambda: agent.stub.Report(report, timeout=RPC_SECONDS))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert agent.report(lease)
    plant.measured([job])


def verify_job(plant, agent, max_output_bytes):
    """A lease under which outputs may be sent."""
    spec = plant.spec(plant.model())
    inputs = plant.store.blobs.put(b"inputs")
    job = plant.store.jobs.submit(
        agent.device.id,
        VerifySpec(spec.run, inputs.sha256, inputs.size_bytes, max_output_bytes=max_output_bytes),
    )
    return job, agent.claim()


def give_up(agent, lease):
    agent.stub.Report(
        pb.ReportRequest(
            job_id=lease.job_id,
            attempt=lease.attempt,
            idempotency_key="given up",
            failure=pb.Failure(kind=pb.Failure.KIND_RESOURCE, message="given up"),
        ),
        timeout=RPC_SECONDS,
    )


def parts_left(plant):
    return list(plant.workspace.blobs_folder.rglob(".part-*"))


def test_a_part_over_the_limit_of_a_message_is_refused(plant, agent):
    _, lease = verify_job(plant, agent, 8 * MIB)
    data = bytes(2 * MIB)
    part = pb.BlobPart(
        lease_id=lease.lease_id, sha256=hashlib.sha256(data).hexdigest(), offset=0, data=data
    )

    code = refusal(lambda: agent.stub.WriteBlob(iter([part]), timeout=RPC_SECONDS))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    give_up(agent, lease)
    assert not parts_left(plant)


def test_a_stream_without_end_is_stopped_at_the_size_that_the_job_allows(plant, agent):
    _, lease = verify_job(plant, agent, MIB)
    sent = 0

    def endless():
        nonlocal sent
        while True:
            yield pb.BlobPart(
                lease_id=lease.lease_id, sha256="0" * 64, offset=sent, data=bytes(65_536)
            )
            sent += 65_536

    code = refusal(lambda: agent.stub.WriteBlob(endless(), timeout=RPC_SECONDS))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sent < 64 * MIB
    give_up(agent, lease)
    assert not parts_left(plant)


def test_outputs_that_are_not_what_was_announced_are_not_kept(plant, agent):
    _, lease = verify_job(plant, agent, MIB)
    part = pb.BlobPart(lease_id=lease.lease_id, sha256="0" * 64, offset=0, data=b"other bytes")

    code = refusal(lambda: agent.stub.WriteBlob(iter([part]), timeout=RPC_SECONDS))

    assert code is grpc.StatusCode.DATA_LOSS
    give_up(agent, lease)
    assert not parts_left(plant)


def test_a_stream_of_outputs_that_breaks_off_leaves_nothing_behind(plant, agent):
    _, lease = verify_job(plant, agent, MIB)

    def broken():
        yield pb.BlobPart(lease_id=lease.lease_id, sha256="0" * 64, offset=0, data=bytes(1000))
        time.sleep(0.2)
        raise ConnectionError

    with pytest.raises(grpc.RpcError):
        agent.stub.WriteBlob(broken(), timeout=RPC_SECONDS)

    give_up(agent, lease)
    deadline = time.monotonic() + 5.0
    while parts_left(plant) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not parts_left(plant)


def test_many_connections_that_say_nothing_keep_nobody_out(plant, agent):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection((HOST, plant.port), 5.0))
        (job,) = plant.ask(agent.device)
        began = time.monotonic()
        assert agent.report(agent.claim())
        took = time.monotonic() - began

        plant.measured([job])
        assert took < 5.0


def test_a_hello_that_lies_about_everything_harms_only_its_own_device(plant, agent):
    facts = pb.DeviceFacts(
        hostname="\x1b[2J" * 1000,
        cpu_model="\x00" * 10_000,
        cpu_flags=[os.urandom(10).hex()] * 20_000,
        ram_bytes=(1 << 64) - 1,
        pointer_bits=(1 << 32) - 1,
        temperature_celsius=float("nan"),
    )

    with contextlib.suppress(grpc.RpcError):
        agent.stub.Hello(
            pb.HelloRequest(
                protocol_min=2, protocol_max=3, session_id=agent.session_id, facts=facts
            ),
            timeout=RPC_SECONDS,
        )

    assert plant.store.devices.by_name(agent.device.name).id == agent.device.id
