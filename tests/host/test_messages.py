"""What devices send becomes plain values, or is refused with the name of what is wrong."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.gateway.checks import MessageError, seconds_of_ticks
from host.gateway.messages import lease_to_pb, outcome_from_pb
from host.job import Job, Lease
from host.measurement import (
    PRESETS,
    EnergyRun,
    InputShape,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    OperatorTime,
    Phase,
    PowerSeries,
    ProbeResult,
    ProbeSpec,
    Profile,
    ProfileSpec,
    Readiness,
    ReferenceRun,
    Spec,
    VerifiedOutputs,
    VerifySpec,
)
from protos import genba_agent_pb2 as pb

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SHA = "ab" * 32
RUN = ModelRun(
    SHA, 7, "onnx", 1, input_shapes=(InputShape("x", (1, 3, 8, 8)),), options=("graph=all",)
)
MEASURE = MeasureSpec(RUN, PRESETS["quick"].with_energy())
VERIFY = VerifySpec(RUN, "cd" * 32, 9, max_output_bytes=100)
PROFILE = ProfileSpec(RUN, runs=7)
PROBE = ProbeSpec()

Spoil = Callable[[Any], None]


def job(spec: Spec) -> Job:
    return Job("j", "k", "device", spec, "leased", 1, None, "measure", NOON)


def read(spec: Spec, **outcome: Any) -> Any:
    return outcome_from_pb(pb.ReportRequest(job_id="j", **outcome), job(spec), NOON)


def lease(spec: Spec) -> pb.Lease:
    return lease_to_pb(Lease("l", job(spec), 3, 60.0))


def energy_message() -> pb.EnergyRun:
    return pb.EnergyRun(
        phases=[
            pb.Phase(
                kind=kind,
                started_monotonic_seconds=float(i),
                ended_monotonic_seconds=i + 1.0,
                inferences=9 * (kind > pb.Phase.KIND_STEP),
            )
            for i, kind in enumerate(
                (
                    pb.Phase.KIND_IDLE,
                    pb.Phase.KIND_STEP,
                    pb.Phase.KIND_BUSY,
                    pb.Phase.KIND_PACED,
                )
            )
        ],
        series=[
            pb.PowerSeries(
                source="rapl",
                scope="package",
                kind="measured",
                max_watts=100.0,
                monotonic_seconds=[0.0, 1.0, 1.0],
                energy_joules=[0.0, 2.5, 2.5],
            ),
            pb.PowerSeries(
                source="ina\x1b226",
                scope="board",
                kind="measured",
                max_watts=20.0,
                broken_because="it was pulled out",
            ),
        ],
        temperature_start_celsius=-3.0,
        cpu_utilisation=0.25,
    )


def test_a_measure_job_goes_out_whole() -> None:
    readiness = Readiness(max_start_celsius=60.0, measure_when_busy=True)
    plan = PRESETS["thorough"].with_energy(windows=7, paced_hertz=5.0)

    message = lease(MeasureSpec(RUN, plan, readiness, 99.0, "p/1"))

    assert message.WhichOneof("task") == "measure"
    assert (message.lease_id, message.job_id, message.attempt) == ("l", "j", 3)
    sent = message.measure
    assert (sent.protocol, sent.timeout_seconds) == ("p/1", 99.0)
    assert sent.run == pb.ModelRun(
        model_sha256=SHA,
        model_size_bytes=7,
        runtime="onnx",
        threads=1,
        input_shapes=[pb.InputShape(name="x", sizes=[1, 3, 8, 8])],
        options=["graph=all"],
    )
    for value, told in ((plan, sent.plan), (readiness, sent.readiness)):
        assert {f.name: getattr(told, f.name) for f in told.DESCRIPTOR.fields} == vars(value)


def test_what_is_absent_goes_out_unset() -> None:
    message = lease(MEASURE).measure

    assert not message.plan.HasField("paced_hertz")
    assert not message.readiness.HasField("max_start_celsius")


def test_the_other_jobs_go_out_whole() -> None:
    verify, profile, probe = (lease(spec) for spec in (VERIFY, PROFILE, PROBE))

    assert verify.WhichOneof("task") == "verify"
    assert verify.verify.inputs_sha256 == "cd" * 32
    assert (verify.verify.inputs_size_bytes, verify.verify.max_output_bytes) == (9, 100)
    assert verify.verify.run.model_sha256 == SHA
    assert profile.profile.runs == 7
    assert profile.profile.timeout_seconds == 300.0
    assert probe.WhichOneof("task") == "probe"
    assert probe.probe.readiness.observe_seconds == 2.0


@given(st.lists(st.integers(min_value=1, max_value=10**10), min_size=1))
def test_ticks_become_the_seconds_that_they_were(values: list[int]) -> None:
    deltas = [b - a for a, b in zip([0, *values], values, strict=False)]

    seconds = seconds_of_ticks("t", deltas, least=1)

    assert [round(s * 1e7) for s in seconds] == values
    assert seconds == tuple(value / 1e7 for value in values)


def test_samples_come_in_as_they_were_measured(make_samples: Callable[[], Any]) -> None:
    message = make_samples()

    measurement = read(MEASURE, measured=message)

    assert isinstance(measurement, Measurement)
    assert (measurement.run, measurement.plan) == (RUN, MEASURE.plan)
    assert (measurement.device_id, measurement.measured_at) == ("device", NOON)
    assert measurement.cpus == (1,)
    [process] = measurement.processes
    first, second, closing = process.blocks
    assert first.latency_seconds[:3] == (0.01, 0.010001, 0.010002)
    assert second.latency_seconds[-1] == 0.009986
    assert first.cpu_seconds == first.latency_seconds
    assert first.run_delay_seconds == (0.0,) * 15
    assert first.reference_seconds == (0.001, 0.0011, 0.001)
    assert (closing.latency_seconds, closing.run_delay_seconds) == ((), ())
    assert process.memory.uss_bytes is None
    assert measurement.thermal.start_celsius == 40.0
    assert measurement.thermal.throttle_events is None
    assert measurement.governor is None
    assert measurement.energy_run is None
    assert measurement.energy_absent_because == "no powercap zone"


def test_a_list_that_is_not_known_is_none(make_samples: Callable[[], Any]) -> None:
    message = make_samples()
    for block in message.processes[0].blocks:
        del block.run_delay_ticks[:]
        del block.cpu_ticks[:]

    blocks = read(MEASURE, measured=message).processes[0].blocks

    assert [block.run_delay_seconds for block in blocks] == [None, None, ()]
    assert [block.cpu_seconds for block in blocks] == [()] * 3


def test_an_energy_run_comes_in_with_its_series(make_samples: Callable[[], Any]) -> None:
    message = make_samples()
    message.energy.CopyFrom(energy_message())
    message.energy_absent_because = ""

    run = read(MEASURE, measured=message).energy_run

    assert run == EnergyRun(
        phases=(
            Phase("idle", 0.0, 1.0, 0),
            Phase("step", 1.0, 2.0, 0),
            Phase("busy", 2.0, 3.0, 9),
            Phase("paced", 3.0, 4.0, 9),
        ),
        series=(
            PowerSeries("rapl", "package", "measured", 100.0, (0.0, 1.0, 1.0), (0.0, 2.5, 2.5)),
            PowerSeries("ina 226", "board", "measured", 20.0, (), (), (), "it was pulled out"),
        ),
        temperature_start_celsius=-3.0,
        temperature_end_celsius=None,
        cpu_utilisation=0.25,
    )


def _first_block(message: Any) -> Any:
    return message.processes[0].blocks[0]


def _spoil(path: str, value: Any) -> Spoil:
    def spoil(message: Any) -> None:
        *steps, last = path.split(".")
        for step in steps:
            message = message[int(step)] if step.isdigit() else getattr(message, step)
        setattr(message, last, value)

    return spoil


def _extend(path: str, values: Sequence[Any]) -> Spoil:
    def spoil(message: Any) -> None:
        for step in path.split("."):
            message = message[int(step)] if step.isdigit() else getattr(message, step)
        message.extend(values)

    return spoil


def _no_samples(message: Any) -> None:
    del message.processes[0].blocks[:]


def _no_process(message: Any) -> None:
    del message.processes[:]


def _no_preflight(message: Any) -> None:
    message.ClearField("preflight")


def _negative_sample(message: Any) -> None:
    _first_block(message).latency_ticks[3] = -(10**9)


def _zero_sample(message: Any) -> None:
    _first_block(message).latency_ticks[0] = 0


def _endless_sample(message: Any) -> None:
    _first_block(message).latency_ticks[0] = 2**62


def _joules_and_watts(message: Any) -> None:
    message.energy.series[0].power_watts.append(1.0)


def _swapped_phases(message: Any) -> None:
    message.energy.phases[0].started_monotonic_seconds = 1.5
    message.energy.phases[0].ended_monotonic_seconds = 1.6


BLOCK = "processes.0.blocks.0"


@pytest.mark.parametrize(
    ("spoil", "because"),
    [
        (_no_samples, "holds 0"),
        (_no_process, "holds 0"),
        (_no_preflight, "no preflight"),
        (_negative_sample, "latency_ticks"),
        (_zero_sample, "latency_ticks"),
        (_endless_sample, "latency_ticks"),
        (_extend(f"{BLOCK}.cpu_ticks", [1]), "cpu_ticks has 16 entries"),
        (_extend(f"{BLOCK}.run_delay_ticks", [1]), "run_delay_ticks has 16"),
        (_extend(f"{BLOCK}.reference_cpu_ticks", [1]), "reference_cpu_ticks has 4"),
        (_extend(f"{BLOCK}.reference_ticks", [1] * 1001), "reference_ticks has 1004"),
        (_spoil(f"{BLOCK}.canary_seconds", math.nan), "canary_seconds"),
        (_spoil(f"{BLOCK}.steal_seconds", -1.0), "steal_seconds"),
        (_spoil(f"{BLOCK}.lasted_seconds", 1e9), "lasted_seconds"),
        (_spoil(f"{BLOCK}.involuntary_switches", 2**63), "involuntary_switches"),
        (_spoil("processes.0.load_seconds", -1.0), "load_seconds"),
        (_spoil("processes.0.runs_per_sample", 0), "runs_per_sample"),
        (_spoil("processes.0.memory.peak_rss_bytes", 2**64 - 1), "peak_rss_bytes"),
        (_spoil("preflight.foreign_cpu", math.inf), "foreign_cpu"),
        (_spoil("thermal.max_celsius", math.nan), "max_celsius"),
        (_spoil("load_average_start", -0.1), "load_average_start"),
        (_spoil("protocol", "other/1"), "'other/1'"),
        (_spoil("runtime", "tflite\x1b"), "'tflite'"),
        (_spoil("threads", 4), "4 threads"),
        (_extend("cpus", range(5000)), "cpus has 5001"),
        (_extend("runtime_options", ["a"] * 1001), "runtime_options"),
        (_joules_and_watts, "joules or watts, not both"),
        (_extend("energy.series.0.monotonic_seconds", [5.0]), "4 entries"),
        (_spoil("energy.series.0.scope", "room"), "package, board, wall"),
        (_spoil("energy.series.0.kind", "guessed"), "measured, derived, estimated"),
        (_spoil("energy.series.0.max_watts", 0.0), "max_watts"),
        (_spoil("energy.phases.1.kind", 77), "phase.kind"),
        (_spoil("energy.phases.1.kind", 0), "phase.kind"),
        (_spoil("energy.phases.1.ended_monotonic_seconds", 0.5), "length of a phase"),
        (_swapped_phases, "phases must not fall"),
        (_spoil("energy.cpu_utilisation", -1.0), "cpu_utilisation"),
    ],
)
def test_samples_that_make_no_sense_are_refused(
    make_samples: Callable[[], Any], spoil: Spoil, because: str
) -> None:
    message = make_samples()
    message.energy.CopyFrom(energy_message())
    spoil(message)

    with pytest.raises(MessageError, match=because):
        read(MEASURE, measured=message)


def test_readings_out_of_order_are_refused(make_samples: Callable[[], Any]) -> None:
    message = make_samples()
    message.energy.CopyFrom(energy_message())
    message.energy.series[0].monotonic_seconds[:] = [0.0, 2.0, 1.0]

    with pytest.raises(MessageError, match="must not fall"):
        read(MEASURE, measured=message)


def verified(**changes: Any) -> pb.VerifiedOutputs:
    values: dict[str, Any] = {
        "runtime": "onnx",
        "runtime_library": "onnxruntime",
        "runtime_version": "1.23.2",
        "outputs_sha256": SHA,
        "outputs_size_bytes": 100,
        "examples": 3,
        "runtime_options": ["a=1"],
    }
    return pb.VerifiedOutputs(**values | changes)


def test_verified_outputs_come_in() -> None:
    assert read(VERIFY, verified=verified()) == VerifiedOutputs(
        "device", RUN, "cd" * 32, "onnxruntime", "1.23.2", ("a=1",), SHA, 100, 3, NOON
    )


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"runtime": "tflite"}, "'tflite'"),
        ({"outputs_sha256": "../../x"}, "outputs_sha256"),
        ({"outputs_size_bytes": 101}, "may have 100"),
        ({"examples": 0}, "examples"),
    ],
)
def test_verified_outputs_that_make_no_sense_are_refused(
    changes: dict[str, Any], because: str
) -> None:
    with pytest.raises(MessageError, match=because):
        read(VERIFY, verified=verified(**changes))


def profile(**changes: Any) -> pb.Profile:
    values: dict[str, Any] = {
        "runtime": "onnx",
        "runtime_library": "onnxruntime",
        "runtime_version": "1.23.2",
        "threads": 1,
        "runs": 7,
        "run_seconds": 0.5,
        "operators": [
            pb.OperatorTime(name="r", kind="Relu", seconds=0.1),
            pb.OperatorTime(name="c", kind="Conv", seconds=0.4),
        ],
    }
    return pb.Profile(**values | changes)


def test_a_profile_comes_in_with_the_slowest_operator_first() -> None:
    outcome = read(PROFILE, profile=profile())

    assert isinstance(outcome, Profile)
    assert outcome.operators == (OperatorTime("c", "Conv", 0.4), OperatorTime("r", "Relu", 0.1))
    assert (outcome.runs, outcome.run_seconds, outcome.profiled_at) == (7, 0.5, NOON)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"threads": 2}, "2 threads"),
        ({"runs": 0}, "runs"),
        ({"run_seconds": 0.0}, "run_seconds"),
        ({"operators": [pb.OperatorTime(seconds=math.nan)]}, "operators.seconds"),
        ({"operators": [pb.OperatorTime()] * 20_001}, "operators has 20001"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(changes: dict[str, Any], because: str) -> None:
    with pytest.raises(MessageError, match=because):
        read(PROFILE, profile=profile(**changes))


def reference(**changes: Any) -> pb.ReferenceRun:
    values: dict[str, Any] = {
        "runtime": "onnx",
        "runtime_library": "onnxruntime",
        "runtime_version": "1.23.2",
        "latency_seconds": [0.002, 0.003],
        "cpu_seconds": [0.002, 0.002],
        "canary_seconds": [0.005],
    }
    return pb.ReferenceRun(**values | changes)


PREFLIGHT = pb.Preflight(canary_seconds=0.005, problems=["busy: 30 %"], throttled=["hot"])


def test_a_probe_comes_in() -> None:
    failed = pb.ReferenceRun(runtime="tflite", failed_because="SIGILL")
    message = pb.ProbeResult(
        preflight=PREFLIGHT, references=[reference(), failed], governor="powersave"
    )

    outcome = read(PROBE, probe=message)

    assert isinstance(outcome, ProbeResult)
    assert outcome.references == (
        ReferenceRun("onnx", "onnxruntime", "1.23.2", (0.002, 0.003), (0.002, 0.002), (0.005,)),
        ReferenceRun("tflite", "", "", (), (), (), "SIGILL"),
    )
    assert outcome.preflight.problems == ("busy: 30 %",)
    assert (outcome.governor, outcome.probed_at) == ("powersave", NOON)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"cpu_seconds": [0.1]}, "cpu_seconds has 1"),
        ({"latency_seconds": [], "cpu_seconds": []}, "neither samples"),
        ({"latency_seconds": [0.0, 1.0]}, "latency_seconds must be above 0"),
        ({"canary_seconds": [math.inf]}, "canary_seconds"),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused(changes: dict[str, Any], because: str) -> None:
    message = pb.ProbeResult(preflight=PREFLIGHT, references=[reference(**changes)])

    with pytest.raises(MessageError, match=because):
        read(PROBE, probe=message)


def test_a_probe_without_preflight_is_refused() -> None:
    with pytest.raises(MessageError, match="no preflight"):
        read(PROBE, probe=pb.ProbeResult())


@pytest.mark.parametrize(
    ("spec", "outcome", "because"),
    [
        (MEASURE, {"verified": verified()}, "holds verified, but the job is to measure"),
        (VERIFY, {"profile": profile()}, "holds profile, but the job is to verify"),
        (PROFILE, {"probe": pb.ProbeResult()}, "holds probe, but the job is to profile"),
        (PROBE, {"measured": pb.MeasuredSamples()}, "holds measured, but the job is to probe"),
        (MEASURE, {}, "neither a result nor a failure"),
        (MEASURE, {"failure": pb.Failure(message="what?")}, "failure.kind"),
    ],
)
def test_an_outcome_that_was_not_asked_for_is_refused(
    spec: Spec, outcome: dict[str, Any], because: str
) -> None:
    with pytest.raises(MessageError, match=because):
        read(spec, **outcome)


@pytest.mark.parametrize("kind", pb.Failure.Kind.values()[1:])
def test_every_failure_is_known(kind: pb.Failure.Kind.ValueType) -> None:
    outcome = read(VERIFY, failure=pb.Failure(kind=kind, message="because\x07"))

    assert isinstance(outcome, MeasurementFailure)
    assert outcome.kind == pb.Failure.Kind.Name(kind).removeprefix("KIND_").lower()
    assert (outcome.message, outcome.model_sha256) == ("because", SHA)


def test_a_failed_probe_has_no_model() -> None:
    outcome = read(PROBE, failure=pb.Failure(kind=pb.Failure.KIND_TIMEOUT))

    assert outcome.model_sha256 is None
    assert outcome.message == "the agent gave no reason"
