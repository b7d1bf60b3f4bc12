"""The wire: what is checked in is what protoc makes of the file, and values survive the trip."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import genba_agent_pb2 as pb

STUBS = Path(pb.__file__).parent
GENERATED = (
    "genba_agent_pb2.py",
    "genba_agent_pb2.pyi",
    "genba_agent_pb2_grpc.py",
    "genba_agent_pb2_grpc.pyi",
)

finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**64 - 1)
ticks = st.integers(-(2**63), 2**63 - 1)
small_counts = st.integers(0, 2**32 - 1)


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="grpcio-tools 1.51.1 has no wheel for this Python"
)
@pytest.mark.skipif(
    importlib.util.find_spec("grpc_tools") is None
    or importlib.util.find_spec("mypy_protobuf") is None,
    reason="grpcio-tools and mypy-protobuf write the stubs and are not installed",
)
def test_the_checked_in_stubs_are_what_protoc_makes_of_the_proto(tmp_path: Path) -> None:
    # grpcio-tools imports pkg_resources, which warns: hence a process without warnings.
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "protos.generate", str(tmp_path)], check=True
    )

    fresh = {name: (tmp_path / "protos" / name).read_text(encoding="utf-8") for name in GENERATED}

    assert fresh == {name: (STUBS / name).read_text(encoding="utf-8") for name in GENERATED}


def all_messages() -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    waiting = list(pb.DESCRIPTOR.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        found[message.full_name] = message
        waiting.extend(message.nested_types)
    return found


def test_no_message_contains_itself_at_any_depth() -> None:
    def reachable(message: Descriptor, above: tuple[str, ...]) -> None:
        assert message.full_name not in above, f"{message.full_name} is recursive"
        for field in message.fields:
            if field.message_type is not None:
                reachable(field.message_type, (*above, message.full_name))

    for message in all_messages().values():
        reachable(message, ())


def test_the_wire_needs_no_other_proto_file() -> None:
    imported = [file.name for file in pb.DESCRIPTOR.dependencies]

    assert imported == []


def test_stubs_demand_no_runtime_version() -> None:
    for name in GENERATED:
        text = (STUBS / name).read_text(encoding="utf-8")

        assert "ValidateProtobufRuntimeVersion" not in text
        assert "_registered_method" not in text


@settings(deadline=None)
@given(st.lists(ticks, max_size=50), finite, st.none() | counts, counts)
def test_samples_survive_the_trip(
    latencies: Any, load_seconds: Any, uss_bytes: Any, peak_rss_bytes: Any
) -> None:
    sent = pb.ProcessRun(
        memory=pb.Memory(peak_rss_bytes=peak_rss_bytes, uss_bytes=uss_bytes),
        load_seconds=load_seconds,
        blocks=[pb.Block(latency_ticks=latencies)],
    )

    came = pb.ProcessRun.FromString(sent.SerializeToString())

    assert list(came.blocks[0].latency_ticks) == latencies
    assert list(came.blocks[0].run_delay_ticks) == []
    assert came.load_seconds == load_seconds
    assert came.memory.peak_rss_bytes == peak_rss_bytes
    assert came.memory.HasField("uss_bytes") == (uss_bytes is not None)
    assert not came.memory.HasField("pss_bytes")


@settings(deadline=None)
@given(st.text(), small_counts, st.none() | finite, st.lists(st.text()))
def test_facts_survive_the_trip_and_absent_is_not_zero(
    hostname: Any, cores: Any, celsius: Any, flags: Any
) -> None:
    sent = pb.DeviceFacts(
        hostname=hostname,
        cpu_cores_logical=cores,
        temperature_celsius=celsius,
        cpu_flags=flags,
    )

    came = pb.DeviceFacts.FromString(sent.SerializeToString())

    assert (came.hostname, came.cpu_cores_logical) == (hostname, cores)
    assert came.HasField("temperature_celsius") == (celsius is not None)
    assert list(came.cpu_flags) == flags
    assert not came.HasField("governor")
    assert not came.HasField("emulated")


def test_a_report_holds_samples_or_a_failure_but_not_both() -> None:
    report = pb.ReportRequest(measured=pb.MeasuredSamples(threads=1))

    report.failure.message = "crashed"

    assert report.WhichOneof("outcome") == "failure"
    assert not report.HasField("measured")


def test_an_empty_claim_differs_from_a_lease_of_zeros() -> None:
    nothing = pb.ClaimReply.FromString(pb.ClaimReply().SerializeToString())
    zeros = pb.ClaimReply.FromString(pb.ClaimReply(lease=pb.Lease()).SerializeToString())

    assert not nothing.HasField("lease")
    assert zeros.HasField("lease")


def test_a_lease_holds_one_job_of_one_kind() -> None:
    lease = pb.Lease(measure=pb.MeasureSpec(timeout_seconds=1.0))

    lease.probe.timeout_seconds = 2.0

    assert lease.WhichOneof("task") == "probe"
    assert not lease.HasField("measure")
    assert pb.Lease().WhichOneof("task") is None


def test_ticks_of_samples_that_are_alike_take_two_bytes_each() -> None:
    samples = pb.Block(latency_ticks=[70_000, *([60, -60] * 500)])

    assert len(samples.SerializeToString()) < 2_100


def test_the_most_samples_that_an_agent_takes_fit_in_one_message_of_a_mebibyte() -> None:
    from device_agent.measuring import MAX_SAMPLES

    # Three lists of differences in the order of a tenth of a millisecond.
    differences = [1_000, -1_000] * (MAX_SAMPLES // 2)
    block = pb.Block(latency_ticks=differences, cpu_ticks=differences, run_delay_ticks=differences)
    samples = pb.MeasuredSamples(
        processes=[pb.ProcessRun(blocks=[block])], runtime_options=["name=value"] * 100
    )

    assert len(pb.ReportRequest(measured=samples).SerializeToString()) < 1 << 20
