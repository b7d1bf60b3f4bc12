"""Every way in which a worker can end is an outcome, and every job leaves the agent as it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from device_agent.asking import explain_crash
from device_agent.codec import to_tagged_json
from device_agent.errors import ResourceError
from device_agent.jobs import Bench, default_address_space_bytes, run_job
from device_agent.probing import probe_runtimes
from device_agent.processes import Cancellation, Ended, default_worker_command, run_worker
from device_agent.requests import EnergyPhases, MeasuredProcess, RuntimeSetup, VerifiedFile
from device_agent.sensors.base import Quantity
from device_agent.surroundings import Surroundings
from device_agent.work import (
    PROTOCOL,
    Failure,
    FailureKind,
    MeasuredSamples,
    MeasureSpec,
    ModelRun,
    OperatorTime,
    Phase,
    PhaseKind,
    ProbeResult,
    ProbeSpec,
    ProcessRun,
    Profile,
    ProfileSpec,
    Readiness,
    ReferenceRun,
    VerifiedOutputs,
    VerifySpec,
)

NO_CORE = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
SETUP = RuntimeSetup("onnxruntime", "1.23.2", ("intra_op_num_threads=1",))
INPUTS_SHA256 = "1" * 64
ENERGY = EnergyPhases((Phase(PhaseKind.BUSY, 1.0, 2.0, 7),), 0.5)


def python(code: str) -> list[str]:
    """A worker command that runs this instead of a worker."""
    return [sys.executable, "-c", f"import json, os, signal, sys, time\n{code}"]


def answering(code: str = "", **answers: Any) -> list[str]:
    """A worker command that runs this and gives the answer to what it is asked for."""
    lines = {name: to_tagged_json(answer) for name, answer in answers.items()}
    return python(f"request = json.loads(sys.argv[2])\n{code}\nprint({lines!r}[sys.argv[1]])")


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    (tmp_path / "spool").mkdir()
    return Bench((), 4 << 30, tmp_path / "spool")


@pytest.fixture
def run(spec: MeasureSpec, bench: Bench, tmp_path: Path) -> Any:
    """Run a job on a model file; where no `other` spec is given, the spec with these changes."""
    model, inputs = tmp_path / "model", tmp_path / "inputs"

    def run_it(
        command: Sequence[str],
        model_bytes: bytes = b"",
        cancellation: Any = None,
        *,
        other: Any = None,
        around: Any = None,
        **changes: Any,
    ) -> Any:
        model.write_bytes(model_bytes)
        inputs.write_bytes(b"")
        return run_job(
            other or dataclasses.replace(spec, **changes),
            {spec.run.model_sha256: model, INPUTS_SHA256: inputs},
            dataclasses.replace(
                bench, worker_command=command, surroundings=around or bench.surroundings
            ),
            cancellation or Cancellation(),
        )

    return run_it


@pytest.fixture
def measured(process_run: ProcessRun) -> Any:
    return MeasuredProcess(SETUP, process_run)


def test_the_answers_of_fresh_workers_are_put_together(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess
) -> None:
    plan = dataclasses.replace(spec.plan, processes=3)

    outcome = run(answering(measure=measured), plan=plan)

    assert isinstance(outcome, MeasuredSamples), outcome
    assert outcome.processes == (measured.run,) * 3
    assert outcome.runtime_options == SETUP.options
    assert (outcome.protocol, outcome.threads) == (PROTOCOL, 1)
    assert outcome.energy is None
    assert outcome.energy_absent_because == "no energy run was asked for"
    assert len(outcome.cpus) == 1
    assert set(outcome.cpus) <= os.sched_getaffinity(0)


def test_samples_and_budget_are_shared_among_the_processes(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess, tmp_path: Path
) -> None:
    plan = dataclasses.replace(spec.plan, processes=3, min_samples=100, budget_seconds=6.0)
    log = tmp_path / "requests"
    write = f"open({str(log)!r}, 'a').write(sys.argv[2] + chr(10))"

    outcome = run(answering(write, measure=measured), plan=plan)

    requests = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(requests) == 3
    for request in requests:
        assert request["min_samples"] == 34
        assert request["budget_seconds"] == pytest.approx(2.0)
        confinement = request["confinement"]
        assert confinement["parent_pid"] == os.getpid()
        assert confinement["address_space_bytes"] == 4 << 30
        assert confinement["max_file_bytes"] == 0
        assert confinement["cpus"] == list(outcome.cpus)


def test_an_emulated_worker_may_write_the_little_that_its_emulator_does(
    run: Any, measured: MeasuredProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_EMULATED", "1")
    log = tmp_path / "requests"
    write = f"open({str(log)!r}, 'a').write(sys.argv[2] + chr(10))"

    run(answering(write, measure=measured))

    for line in log.read_text().splitlines():
        assert json.loads(line)["confinement"]["max_file_bytes"] == 1 << 20


def test_a_real_worker_measures_a_real_model(run: Any, conv_model: bytes) -> None:
    pytest.importorskip("onnxruntime")

    assert isinstance(run(default_worker_command(), conv_model), MeasuredSamples)


class Meter:
    """A sensor of the board that always works."""

    name, scope, kind, max_watts = "ina", "board", "measured", 25.0
    quantity, interval_seconds = Quantity.WATTS, 0.01

    def read(self) -> float:
        return 3.5


def test_the_sensors_of_the_board_are_read_while_the_energy_worker_runs(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess
) -> None:
    plan = dataclasses.replace(spec.plan, energy_windows=1, energy_window_seconds=1.0)
    command = answering("time.sleep(0.3)", measure=measured, energy=ENERGY)

    outcome = run(command, plan=plan, around=Surroundings(power_sources=lambda: (Meter(),)))

    assert outcome.energy_absent_because == ""
    assert outcome.energy.phases == ENERGY.phases
    assert outcome.energy.cpu_utilisation == pytest.approx(0.5)
    (series,) = outcome.energy.series
    assert series.source == "ina"
    assert len(series.power_watts) > 10
    assert set(series.power_watts) == {3.5}


def test_without_a_sensor_the_energy_run_is_made_for_a_meter_elsewhere(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess
) -> None:
    plan = dataclasses.replace(spec.plan, energy_windows=1, energy_window_seconds=1.0)
    command = answering(measure=measured, energy=ENERGY)

    outcome = run(command, plan=plan, around=Surroundings(power_sources=tuple))

    assert outcome.energy.phases == ENERGY.phases
    assert outcome.energy.series == ()


def test_an_energy_worker_that_fails_does_not_cost_the_samples(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess
) -> None:
    plan = dataclasses.replace(spec.plan, energy_windows=1, energy_window_seconds=1.0)
    failure = Failure(FailureKind.RESOURCE, "no memory left")

    outcome = run(answering(measure=measured, energy=failure), plan=plan)

    assert outcome.processes == (measured.run,)
    assert outcome.energy is None
    assert outcome.energy_absent_because == "the energy run failed: no memory left"


def test_between_processes_the_cpu_cools_down_to_the_temperature_of_the_start(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess, machine: Any
) -> None:
    machine.set_celsius(40.0)
    machine.cooling_per_second = 0.5
    plan = dataclasses.replace(spec.plan, processes=3)
    heat = f"open({str(machine.zone / 'temp')!r}, 'w').write('55000')"

    outcome = run(
        answering(heat, measure=measured),
        plan=plan,
        around=machine.surroundings(),
        timeout_seconds=600.0,
    )

    # From 55 to 43 degrees at 0.5 in a second, twice.
    assert outcome.thermal.cooled_seconds == pytest.approx(48.0, abs=3.0)
    assert outcome.thermal.start_celsius == pytest.approx(40.0, abs=0.1)
    assert outcome.thermal.max_celsius == pytest.approx(55.0)
    assert outcome.thermal.end_celsius == pytest.approx(55.0)
    assert outcome.cpus == (1,)


def test_cooling_down_leaves_the_time_that_the_rest_of_the_job_needs(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess, machine: Any
) -> None:
    machine.set_celsius(40.0)
    plan = dataclasses.replace(spec.plan, processes=2, budget_seconds=4.0)
    heat = f"open({str(machine.zone / 'temp')!r}, 'w').write('55000')"

    outcome = run(
        answering(heat, measure=measured),
        plan=plan,
        around=machine.surroundings(),
        timeout_seconds=40.0,
    )

    # It never cools down; the second process may take 2 s and some 15 s to start.
    assert 15.0 < outcome.thermal.cooled_seconds < 24.0
    assert len(outcome.processes) == 2


def test_a_device_that_is_not_ready_is_not_measured(
    run: Any, spec: MeasureSpec, machine: Any, tmp_path: Path
) -> None:
    readiness = dataclasses.replace(spec.readiness, min_free_ram_bytes=3 << 30)

    outcome = run(
        python(f"open({str(tmp_path / 'ran')!r}, 'w')"),
        around=machine.surroundings(),
        readiness=readiness,
    )

    assert outcome.kind is FailureKind.NOT_READY
    assert "low memory: 1953 MiB are free and 3072 MiB are needed" in outcome.message
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def verify_spec(quick_run: ModelRun) -> Any:
    return VerifySpec(PROTOCOL, quick_run, INPUTS_SHA256, 0, 1000, timeout_seconds=60.0)


def writing(size_bytes: int) -> list[str]:
    """A worker command that writes outputs of this size."""
    return answering(
        f"open(request['outputs_path'], 'wb').write(b'o' * {size_bytes})",
        verify=VerifiedFile(SETUP, 12),
    )


def test_outputs_are_kept_in_the_spool_and_hashed_by_the_agent(
    run: Any, bench: Bench, verify_spec: VerifySpec
) -> None:
    outcome = run(writing(700), other=verify_spec)

    assert isinstance(outcome, VerifiedOutputs), outcome
    assert outcome.outputs_path.parent == bench.spool
    assert outcome.outputs_path.read_bytes() == b"o" * 700
    assert outcome.outputs_sha256 == hashlib.sha256(b"o" * 700).hexdigest()
    assert (outcome.outputs_size_bytes, outcome.examples) == (700, 12)


@pytest.mark.parametrize(
    ("command", "kind", "words"),
    [
        (writing(1001), FailureKind.RESOURCE, "1001 bytes and may have 1000"),
        (answering(verify=VerifiedFile(SETUP, 12)), FailureKind.WORKER_CRASHED, "no outputs"),
        (
            answering("open(request['outputs_path'], 'w').write('x'); sys.exit(1)"),
            FailureKind.WORKER_CRASHED,
            "status 1",
        ),
        (
            python(
                f"{NO_CORE}; signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"
                " os.kill(os.getpid(), signal.SIGXFSZ)"
            ),
            FailureKind.RESOURCE,
            "more to a file than the job allows",
        ),
        (
            python("raise OSError(27, 'File too large')"),
            FailureKind.RESOURCE,
            "more to a file than the job allows",
        ),
        (
            answering(
                "os.symlink('/etc/hostname', request['outputs_path'])",
                verify=VerifiedFile(SETUP, 12),
            ),
            FailureKind.WORKER_CRASHED,
            "no outputs",
        ),
    ],
    ids=["too large", "none", "a crash", "SIGXFSZ", "EFBIG", "a link"],
)
def test_outputs_that_cannot_be_sent_are_a_failure_and_leave_nothing(
    run: Any, bench: Bench, verify_spec: VerifySpec, command: Any, kind: FailureKind, words: str
) -> None:
    failure = run(command, other=verify_spec)

    assert failure.kind is kind
    assert words in failure.message
    assert list(bench.spool.iterdir()) == []


def test_a_profile_has_a_folder_of_its_own_that_is_gone_afterwards(
    run: Any, bench: Bench, quick_run: ModelRun
) -> None:
    profile = Profile("onnx", "onnxruntime", "1", 1, (), 5, 0.1, (OperatorTime("y", "Conv", 0.1),))
    code = (
        "scratch = request['confinement']['scratch']\n"
        "os.makedirs(scratch + '/deep/er')\n"
        "open(scratch + '/deep/trace', 'w').write('x')"
    )
    spec = ProfileSpec(PROTOCOL, quick_run, 5, timeout_seconds=60.0)

    outcome = run(answering(code, profile=profile), other=spec)

    assert outcome == profile
    assert list(bench.spool.iterdir()) == []


def test_a_profile_that_crashes_leaves_no_folder(
    run: Any, bench: Bench, quick_run: ModelRun
) -> None:
    code = (
        "scratch = json.loads(sys.argv[2])['confinement']['scratch']\n"
        "open(scratch + '/trace', 'w'); sys.exit(1)"
    )
    spec = ProfileSpec(PROTOCOL, quick_run, 5, timeout_seconds=60.0)

    failure = run(python(code), other=spec)

    assert failure.kind is FailureKind.WORKER_CRASHED
    assert list(bench.spool.iterdir()) == []


def test_a_probe_tells_of_every_runtime_and_why_one_has_no_figures(
    run: Any, quick_readiness: Readiness
) -> None:
    facts = {
        "onnx": {"library": "onnxruntime", "version": "1.23.2", "works": True, "why_not": ""},
        "tflite": {"library": "tflite", "version": "", "works": False, "why_not": "not there"},
        "ncnn": {"library": "ncnn", "version": "", "works": False, "why_not": "not there"},
    }
    figures = to_tagged_json(ReferenceRun("onnx", "onnxruntime", "1", (0.1,), (0.1,), (0.1,)))
    code = (
        f"probe = sys.argv[1] == 'probe'\n"
        f"print(json.dumps(dict({facts!r}[sys.argv[2]], name=sys.argv[2])) if probe"
        f" else {figures!r})"
    )
    spec = ProbeSpec(PROTOCOL, quick_readiness, timeout_seconds=60.0)

    outcome = run(python(code), other=spec)

    assert isinstance(outcome, ProbeResult), outcome
    why = {reference.runtime: reference.failed_because for reference in outcome.references}
    assert why == {"onnx": "", "tflite": "not there", "ncnn": "not there"}
    assert outcome.preflight.canary_seconds > 0


def test_a_probe_survives_a_reference_run_that_crashes(
    run: Any, quick_readiness: Readiness
) -> None:
    code = (
        "if sys.argv[1] == 'reference': os.kill(os.getpid(), signal.SIGILL)\n"
        "print(json.dumps(dict(name=sys.argv[2], library='x', version='1', works=True,"
        " why_not='')))"
    )
    spec = ProbeSpec(PROTOCOL, quick_readiness, timeout_seconds=60.0)

    outcome = run(python(f"{NO_CORE}\n{code}"), other=spec)

    assert all("SIGILL" in reference.failed_because for reference in outcome.references)


def test_a_folder_that_cannot_be_written_is_a_failure_and_not_the_agents_end(
    run: Any, bench: Bench, quick_run: ModelRun
) -> None:
    bench.spool.rmdir()
    spec = ProfileSpec(PROTOCOL, quick_run, 5, timeout_seconds=60.0)

    failure = run(python("pass"), other=spec)

    assert failure.kind is FailureKind.RESOURCE
    assert str(bench.spool) in failure.message


def test_a_job_of_another_protocol_is_not_measured_by_ours(run: Any) -> None:
    failure = run(python("pass"), protocol="genba-measure/9")

    assert failure.kind is FailureKind.NO_RUNTIME
    assert "update the older of agent and host" in failure.message


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, "SIGILL (illegal instruction: this build needs a newer CPU)"),
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGABRT, "SIGABRT"),
        (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_a_crash_names_its_signal(run: Any, number: int, words: str) -> None:
    code = f"{NO_CORE}\nos.kill(os.getpid(), {int(number)})"

    failure = run(python(code))

    assert failure.kind is FailureKind.WORKER_CRASHED
    assert words in failure.message


@pytest.mark.parametrize(
    "code",
    [
        "raise MemoryError",
        "print('terminate called: std::bad_alloc', file=sys.stderr); os.abort()",
        "print('OpenBLAS blas_thread_init: pthread_create failed', file=sys.stderr); sys.exit(1)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    ],
    ids=["MemoryError", "bad_alloc", "OpenBLAS", "killed by the kernel"],
)
def test_running_out_of_memory_is_a_matter_of_resources(run: Any, code: str) -> None:
    failure = run(python(f"{NO_CORE}\n{code}"))

    assert failure.kind is FailureKind.RESOURCE
    assert "memory" in failure.message


def test_a_worker_that_never_ends_is_killed_with_its_children(run: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import subprocess; child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(60)"
    )
    started = time.monotonic()

    failure = run(python(code), timeout_seconds=1.0)

    assert failure.kind is FailureKind.TIMEOUT
    assert "within 1 s" in failure.message
    assert time.monotonic() - started < 10
    for pid in pids.read_text().split():
        assert not is_running(int(pid))


def is_running(pid: int) -> bool:
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            if stat.rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        time.sleep(0.01)
    return True


def test_a_job_is_cancelled_while_it_runs(run: Any) -> None:
    cancellation = Cancellation()
    timer = threading.Timer(0.3, cancellation.request)
    timer.start()
    started = time.monotonic()

    failure = run(python("time.sleep(60)"), cancellation=cancellation)

    assert failure.kind is FailureKind.CANCELLED
    assert time.monotonic() - started < 10


def test_a_job_that_was_cancelled_before_never_starts(run: Any, tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.request()

    failure = run(python(f"open({str(tmp_path / 'ran')!r}, 'w')"), cancellation=cancellation)

    assert failure.kind is FailureKind.CANCELLED
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('so what')", "unusable"),
        ("pass", "unusable"),
        ("print('the end is near', file=sys.stderr); sys.exit(3)", "status 3.*the end is near"),
    ],
)
def test_an_answer_that_is_none_is_a_crash(run: Any, code: str, words: str) -> None:
    failure = run(python(code))

    assert failure.kind is FailureKind.WORKER_CRASHED
    assert re.search(words, failure.message)


def test_a_worker_that_cannot_be_started_is_a_crash(run: Any) -> None:
    failure = run(["/no/such/program"])

    assert failure.kind is FailureKind.WORKER_CRASHED
    assert "cannot be started" in failure.message


def test_much_noise_on_standard_error_does_not_block_a_worker(
    run: Any, measured: MeasuredProcess
) -> None:
    command = answering("sys.stderr.write('Schema error' * 1000000)", measure=measured)

    assert run(command).processes == (measured.run,)


def test_a_worker_whose_answer_does_not_end_is_stopped_before_it_fills_the_memory() -> None:
    started = time.monotonic()

    ended = run_worker(
        python("while True: sys.stdout.write('x' * 65536)"),
        timeout_seconds=60.0,
        cancellation=Cancellation(),
    )

    assert ended.status == -signal.SIGKILL
    assert not ended.timed_out
    assert len(ended.stdout) < 1 << 27
    assert time.monotonic() - started < 30


def test_a_child_that_left_the_group_does_not_hold_up_the_agent() -> None:
    code = (
        "import subprocess; subprocess.Popen(['sleep', '8'], start_new_session=True)\n"
        "print('answer')"
    )
    started = time.monotonic()

    ended = run_worker(python(code), timeout_seconds=60.0, cancellation=Cancellation())

    assert ended.status == 0
    assert ended.stdout == "answer\n"
    assert time.monotonic() - started < 6


def test_a_worker_that_closes_its_pipes_and_goes_on_is_timed_out() -> None:
    code = "os.close(1); os.close(2); time.sleep(60)"
    started = time.monotonic()

    ended = run_worker(python(code), timeout_seconds=1.0, cancellation=Cancellation())

    assert ended.timed_out
    assert time.monotonic() - started < 10


def test_the_worker_is_found_from_any_folder_and_without_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    ended = run_worker(
        [*default_worker_command(), "probe", "onnx"],
        timeout_seconds=60,
        cancellation=Cancellation(),
    )

    assert ended.status == 0, ended.stderr


def test_a_runtime_that_kills_its_probe_is_reported_with_the_reason() -> None:
    facts, *_ = probe_runtimes(python(f"{NO_CORE}; os.kill(os.getpid(), signal.SIGILL)"))

    assert (facts.name, facts.library) == ("onnx", "onnxruntime")
    assert not facts.works
    assert "newer CPU" in facts.why_not


@pytest.mark.parametrize("code", ["print('{}')", "print('[]')", "print('no')"])
def test_a_probe_that_answers_nonsense_is_reported(code: str) -> None:
    for facts in probe_runtimes(python(code)):
        assert not facts.works
        assert "unusable" in facts.why_not


def test_a_probe_that_cannot_start_is_reported() -> None:
    for facts in probe_runtimes(["/no/such/program"]):
        assert "cannot be started" in facts.why_not


def test_the_runtimes_of_this_machine_are_probed() -> None:
    probed = probe_runtimes(default_worker_command())

    assert [facts.name for facts in probed] == ["onnx", "tflite", "ncnn"]
    for facts in probed:
        assert facts.works == (facts.why_not == "")


def test_a_small_board_gets_address_space_that_libraries_can_reserve() -> None:
    assert default_address_space_bytes(1 << 30) == 2 << 30
    assert default_address_space_bytes(8 << 30) == 8 << 30


def test_last_words_are_kept_short() -> None:
    error = explain_crash(Ended(1, timed_out=False, stdout="", stderr="x" * 10_000))

    assert len(str(error)) < 600
    assert os.linesep not in str(error)


def test_what_a_worker_said_long_before_its_end_is_not_kept() -> None:
    ended = run_worker(
        python("sys.stderr.write('MemoryError' + 'x' * 100000); sys.exit(1)"),
        timeout_seconds=60.0,
        cancellation=Cancellation(),
    )

    assert len(ended.stderr) < 20_000
    assert not isinstance(explain_crash(ended), ResourceError)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, -1.0])
@pytest.mark.parametrize(
    "name", ["timeout_seconds", "plan.budget_seconds", "readiness.wait_seconds", "plan.half_width"]
)
def test_a_job_that_asks_for_an_impossible_time_is_a_failure_and_not_the_agents_end(
    run: Any, spec: MeasureSpec, name: str, seconds: float
) -> None:
    outcome = run(python("raise SystemExit(3)"), other=changed(spec, name, seconds))

    assert outcome.kind is FailureKind.RESOURCE
    assert name in outcome.message
    assert "86400" in outcome.message


def changed(value: Any, path: str, content: Any) -> Any:
    """The value with another content at the end of a dotted path."""
    name, _, rest = path.partition(".")
    inner = changed(getattr(value, name), rest, content) if rest else content
    return dataclasses.replace(value, **{name: inner})


@pytest.mark.parametrize(
    ("name", "number", "words"),
    [
        ("run.threads", 0, "at least one thread"),
        ("plan.processes", 0, "takes 1 to 64"),
        ("plan.processes", 4_000_000_000, "takes 1 to 64"),
        ("plan.energy_windows", 4_000_000_000, "at most"),
    ],
)
def test_a_job_that_asks_for_impossible_counts_is_a_failure(
    run: Any, spec: MeasureSpec, name: str, number: int, words: str
) -> None:
    outcome = run(python("raise SystemExit(3)"), other=changed(spec, name, number))

    assert outcome.kind is FailureKind.RESOURCE
    assert words in outcome.message


def test_a_measurement_below_zero_degrees_may_be_asked_for(
    run: Any, spec: MeasureSpec, measured: MeasuredProcess
) -> None:
    other = changed(spec, "readiness.max_start_celsius", -5.0)

    outcome = run(answering(measure=measured), other=other)

    assert not isinstance(outcome, Failure) or outcome.kind is FailureKind.NOT_READY
