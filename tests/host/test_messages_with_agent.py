"""The agent's side of the wire and the host's understand each other, both ways."""

import dataclasses
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent import link, work
from device_agent.outbox import Letter
from host.gateway.messages import lease_to_pb, outcome_from_pb
from host.job import Job, Lease
from host.measurement import (
    PRESETS,
    InputShape,
    Measurement,
    MeasureSpec,
    ModelRun,
    ProbeSpec,
    ProfileSpec,
    Readiness,
    Spec,
    VerifySpec,
)

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SHA = "ab" * 32
RUN = ModelRun(
    SHA, 7, "onnx", 2, input_shapes=(InputShape("x", (1, 3, 8, 8)),), options=("graph=all",)
)
PLAN = PRESETS["quick"].with_energy(paced_hertz=5.0)
MEASURE = MeasureSpec(RUN, PLAN, Readiness(max_start_celsius=60.0))
VERIFY = VerifySpec(RUN, "cd" * 32, 9, max_output_bytes=100)
PROFILE = ProfileSpec(RUN, runs=7)
SPECS: list[Spec] = [MEASURE, MeasureSpec(RUN), VERIFY, PROFILE, ProbeSpec()]
SECONDS = st.integers(1, 10**10).map(lambda ticks: ticks / 1e7)

PREFLIGHT = work.Preflight(0.1, 3, 2_000_000, 41.5, ("hot",), 0.005, 1.5, ("busy: 30 %",))
THERMAL = work.Thermal(40.0, 42.0, 45.0, 2, 3.5, ("undervoltage",))


def job(spec: Spec) -> Job:
    return Job("j", "k", "device", spec, "leased", 1, None, "measure", NOON)


def plain(value: Any) -> Any:
    """The same for both sides, which have classes of their own."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def shared(read: Any, told: Any) -> Any:
    """The part of what the host read that the agent knows of: a meter says more than a sensor."""
    if isinstance(read, dict) and isinstance(told, dict):
        return {name: shared(value, told[name]) for name, value in read.items() if name in told}
    if isinstance(read, list) and isinstance(told, list) and len(read) == len(told):
        return [shared(a, b) for a, b in zip(read, told, strict=True)]
    return read


def over_the_wire(spec: Spec, outcome: work.Outcome) -> dict[str, Any]:
    """What the host makes of an outcome, as far as the agent told it."""
    letter = Letter("j:1", "j", 1, "l", "boot", outcome)
    read: Any = plain(outcome_from_pb(link._report_message(letter, 5.0), job(spec), NOON))
    told = plain(outcome)
    return {name: shared(read[name], told[name]) for name in told if name in read}


def told(outcome: work.Outcome, *absent: str) -> dict[str, Any]:
    return {name: value for name, value in plain(outcome).items() if name not in absent}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_every_job_reaches_the_agent_as_it_was_asked(spec: Spec) -> None:
    lease = link._lease(lease_to_pb(Lease("l", job(spec), 3, 60.0)))

    assert plain(lease.spec) == plain(spec)
    assert (lease.id, lease.job_id, lease.attempt, lease.seconds) == ("l", "j", 3, 60.0)


@st.composite
def blocks(draw: st.DrawFn) -> work.Block:
    n, r = draw(st.integers(0, 6)), draw(st.integers(0, 4))
    seconds = st.lists(SECONDS, min_size=n, max_size=n).map(tuple)
    references = st.lists(SECONDS, min_size=r, max_size=r).map(tuple)
    return work.Block(
        started_monotonic_seconds=draw(SECONDS),
        lasted_seconds=draw(st.floats(0, 1000)),
        canary_seconds=draw(SECONDS),
        reference_seconds=draw(references),
        reference_cpu_seconds=draw(references),
        latency_seconds=draw(seconds),
        cpu_seconds=draw(seconds),
        run_delay_seconds=draw(seconds if n == 0 else st.none() | seconds),
        involuntary_switches=draw(st.none() | st.integers(0, 99)),
        steal_seconds=draw(st.none() | SECONDS),
    )


ENERGY = work.EnergyRun(
    phases=(
        work.Phase(work.PhaseKind.IDLE, 1.0, 2.0, 0),
        work.Phase(work.PhaseKind.STEP, 2.0, 3.0, 0),
        work.Phase(work.PhaseKind.BUSY, 3.0, 4.0, 9),
        work.Phase(work.PhaseKind.PACED, 4.0, 5.5, 5),
    ),
    series=(
        work.PowerSeries("rapl", "package", "measured", 65.0, (1.0, 5.0), (0.0, 9.5)),
        work.PowerSeries("pmic", "board", "derived", 25.0, (1.5,), (), (4.5,), "it broke"),
    ),
    temperature_start_celsius=None,
    temperature_end_celsius=44.0,
    cpu_utilisation=0.5,
)


@given(found=st.lists(blocks(), min_size=1, max_size=4), energy=st.none() | st.just(ENERGY))
def test_samples_reach_the_host_as_they_were_measured(
    found: list[work.Block], energy: work.EnergyRun | None
) -> None:
    sample = work.Block(1.0, 1.0, 0.005, (0.001,), (0.001,), (0.01,), (0.01,), (0.0,))
    process = work.ProcessRun(
        work.Memory(1, 2, 3, 4, None, 5), 0.1, 0.2, 6, True, 4, 5e-6, (sample, *found)
    )
    samples = work.MeasuredSamples(
        protocol=MEASURE.protocol,
        runtime="onnx",
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        threads=2,
        runtime_options=("a=1", "b=2"),
        cpus=(0, 3),
        preflight=PREFLIGHT,
        processes=(process, process),
        thermal=THERMAL,
        governor="performance",
        load_average_start=0.5,
        energy=energy,
        energy_absent_because="" if energy else "no sensor",
    )
    letter = Letter("j:1", "j", 1, "l", "boot", samples)

    outcome = outcome_from_pb(link._report_message(letter, 5.0), job(MEASURE), NOON)

    assert isinstance(outcome, Measurement)
    assert shared(plain(outcome.energy_run), plain(energy)) == plain(energy)
    assert over_the_wire(MEASURE, samples) == told(samples, "runtime", "threads", "energy")


def test_the_other_results_reach_the_host_as_they_were_found() -> None:
    outputs = work.VerifiedOutputs(
        "onnx", "onnxruntime", "1.23.2", ("a=1",), SHA, 99, 3, Path("/tmp/outputs.npz")
    )
    profile = work.Profile(
        "onnx",
        "onnxruntime",
        "1.23.2",
        2,
        ("a=1",),
        7,
        0.5,
        (work.OperatorTime("c", "Conv", 0.4), work.OperatorTime("r", "Relu", 0.1)),
    )
    references = (
        work.ReferenceRun("onnx", "onnxruntime", "1", (0.002, 0.003), (0.002, 0.002), (0.005,)),
        work.ReferenceRun("tflite", "", "", (), (), (), "SIGILL"),
    )
    probe = work.ProbeResult(PREFLIGHT, references, THERMAL, None)

    assert over_the_wire(VERIFY, outputs) == told(outputs, "runtime", "outputs_path")
    assert over_the_wire(PROFILE, profile) == told(profile, "runtime", "threads")
    assert over_the_wire(ProbeSpec(), probe) == told(probe)


@pytest.mark.parametrize("kind", work.FailureKind)
def test_every_failure_reaches_the_host(kind: work.FailureKind) -> None:
    failure = work.Failure(kind, "because")

    assert over_the_wire(MEASURE, failure) == told(failure)
