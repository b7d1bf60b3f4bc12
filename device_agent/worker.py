"""The child process: one piece of work, answered by one line of JSON.

    worker measure|energy|verify|profile|reference|guards REQUEST     REQUEST: device_agent.requests
    worker probe RUNTIME

Marks of its stages come before the answer, and it stands still between timed blocks until it hears
a byte on standard input (device_agent.stages).

A crash here is a result, not the agent's end.
"""

from __future__ import annotations

import dataclasses
import errno
import gc
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from device_agent.cage.confine import confine
from device_agent.cage.limits import forbid_core_dumps
from device_agent.codec import from_json, to_tagged_json
from device_agent.errors import AgentError, ModelRejectedError, NoRuntimeError, ResourceError
from device_agent.instruments import LIVE, Instruments
from device_agent.measuring import MAX_SAMPLES, Share, time_alone, time_blocks, warm_up
from device_agent.requests import (
    Answer,
    EnergyPhases,
    EnergyRequest,
    Guards,
    GuardsRequest,
    MeasuredProcess,
    MeasureRequest,
    ProfileRequest,
    ReferenceRequest,
    Request,
    RuntimeSetup,
    VerifiedFile,
    VerifyRequest,
)
from device_agent.runtimes.base import LoadedModel, Runtime, RuntimeFacts
from device_agent.runtimes.catalogue import LIBRARIES
from device_agent.stages import Line, Stage
from device_agent.work import (
    Failure,
    FailureKind,
    Memory,
    ModelRun,
    Phase,
    PhaseKind,
    ProcessRun,
    Profile,
    ReferenceRun,
)

_NANO = 1e-9
_SEED = 20_240_229
# The peak of a model's memory is reached in its first runs.
_RUNS_TO_PEAK, _PEAK_SHARE = 3, 0.1  # where they fit in that share of the budget
_OVERHEAD_SAMPLES = 20
_REFERENCE_SAMPLES, _REFERENCE_WARMUP_RUNS, _CANARIES = 30, 20, 5
_KINDS = {
    ModelRejectedError: FailureKind.MODEL_REJECTED,
    NoRuntimeError: FailureKind.NO_RUNTIME,
    ResourceError: FailureKind.RESOURCE,
}
_NO_ROOM = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def main(argv: Sequence[str] | None = None, instruments: Instruments = LIVE) -> int:
    """Do what the arguments say and write the answer to the original standard output.

    Returns the exit status. Raises BadAnswerError for a request that cannot be read and
    SensorUnavailableError where the memory of this process cannot be read.
    """
    answer = _take_stdout()
    line = Line(answer, _take_stdin())
    tools = dataclasses.replace(instruments, begin=line.begin, pause=line.pause)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 2 or arguments[0] not in (*_TASKS, "probe"):
        sys.stderr.write(f"usage: worker {'|'.join(_TASKS)} REQUEST | worker probe RUNTIME\n")
        return 2
    if arguments[0] == "probe":
        forbid_core_dumps()
        text = json.dumps(dataclasses.asdict(probe(arguments[1], tools)))
    else:
        request_class, task = _TASKS[arguments[0]]
        request = from_json(request_class, arguments[1])
        text = to_tagged_json(_confined(request, task, tools))
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
    return 0


def probe(name: str, instruments: Instruments = LIVE) -> RuntimeFacts:
    """Import the runtime and run a tiny model; what does not work says why."""
    library = LIBRARIES.get(name, "")
    version = _installed_version(library)
    try:
        runtime = instruments.open_runtime(name)
        runtime.self_test()
    except NoRuntimeError as error:
        return RuntimeFacts(name, library, version, works=False, why_not=str(error))
    return RuntimeFacts(name, runtime.library, runtime.version, works=True, why_not="")


def attempt(request: Request, instruments: Instruments = LIVE) -> Answer:
    """Do what a request asks, or say as a Failure why it cannot be done."""
    task = next(do for known, do in _TASKS.values() if known is type(request))
    return _answer(lambda: task(request, instruments))


def _confined(
    request: Any, task: Callable[[Any, Instruments], Answer], tools: Instruments
) -> Answer:
    def work() -> Answer:
        if not isinstance(request, GuardsRequest):
            confine(request.confinement)
        # The collector runs at moments of its own choice, which must not fall into a sample.
        gc.disable()
        return task(request, tools)

    return _answer(work)


def _answer(work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except MemoryError:
        return Failure(FailureKind.RESOURCE, "the model needs more memory than it may have")
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return Failure(FailureKind.RESOURCE, f"the worker hit a limit: {error.strerror}")
    except tuple(_KINDS) as error:
        return Failure(_KINDS[type(error)], str(error))


def _measure(request: MeasureRequest, tools: Instruments) -> MeasuredProcess:
    _check(request)
    # With its scan before the base, so that what that holds is not counted as the model's.
    runtime = _open(request, tools)
    base = tools.memory.now()
    model, load_seconds = _load(runtime, request, tools)
    loaded = tools.memory.now()
    tools.begin(Stage.FIRST_INFERENCE)
    model.make_inputs(_SEED, request.run.input_shapes)
    first_inference_seconds = _seconds(model.run, tools)
    tools.begin(Stage.WARM_UP)
    peak_runs = _run_to_peak(model, tools, request.budget_seconds * _PEAK_SHARE)
    used = tools.memory.now()
    memory = Memory(
        base_rss_bytes=base.rss_bytes,
        load_rss_bytes=loaded.rss_bytes,
        peak_rss_bytes=tools.memory.peak_rss_bytes(),
        uss_bytes=used.uss_bytes,
        pss_bytes=used.pss_bytes,
        base_uss_bytes=base.uss_bytes,
    )
    # What follows holds memory that is not the model's.
    reference = _reference(runtime)
    overhead = _call_overhead_seconds(runtime, tools)
    share = Share(request.plan, request.min_samples, request.budget_seconds, tools.clock())
    warmup = warm_up(model.run, share, tools.clock)
    tools.begin(Stage.MEASURE)
    blocks = time_blocks(
        model.run,
        reference.run,
        share,
        warmup.runs_per_sample,
        instruments=tools,
        cpus=request.confinement.cpus,
    )
    run = ProcessRun(
        memory=memory,
        load_seconds=load_seconds,
        first_inference_seconds=first_inference_seconds,
        warmup_runs=peak_runs + warmup.runs,
        steady=warmup.steady,
        runs_per_sample=warmup.runs_per_sample,
        call_overhead_seconds=overhead,
        blocks=blocks,
    )
    return MeasuredProcess(_setup(runtime, model), run)


def _run_to_peak(model: LoadedModel, tools: Instruments, seconds: float) -> int:
    """Run until memory has reached its peak, or the seconds are over; how many runs it took."""
    until = tools.clock() + int(seconds / _NANO)
    runs = 0
    while runs < _RUNS_TO_PEAK and tools.clock() < until:
        model.run()
        runs += 1
    return runs


def _energy(request: EnergyRequest, tools: Instruments) -> EnergyPhases:
    from device_agent.energy import Timer, run_phases

    runtime = _open(request, tools)
    model, _ = _load(runtime, request, tools)
    tools.begin(Stage.FIRST_INFERENCE)
    model.make_inputs(_SEED, request.run.input_shapes)
    model.run()
    tools.begin(Stage.ENERGY)
    loaded_ns = 0

    def load(seconds: float) -> None:
        nonlocal loaded_ns
        before = tools.process_clock()
        tools.load(seconds)
        loaded_ns += tools.process_clock() - before

    started_ns = tools.process_clock()
    phases = run_phases(
        model.run,
        windows=request.windows,
        window_seconds=request.window_seconds,
        paced_hertz=request.paced_hertz,
        timer=Timer(tools.monotonic_seconds, tools.sleep),
        load=load,
        pause=tools.pause,
    )
    used_ns = tools.process_clock() - started_ns - loaded_ns
    return EnergyPhases(phases, _cpu_utilisation(phases, used_ns * _NANO))


def _cpu_utilisation(phases: Sequence[Phase], cpu_seconds: float) -> float:
    """Share of all cores' time that the model took in the busy windows.

    `cpu_seconds` are those of all inferences, busy or paced: reading a clock at each of them
    would itself need energy.
    """
    busy = [phase for phase in phases if phase.kind is PhaseKind.BUSY]
    lasted = sum(p.ended_monotonic_seconds - p.started_monotonic_seconds for p in busy)
    inferences = sum(phase.inferences for phase in phases)
    if not inferences or lasted <= 0:
        return 0.0
    part = sum(phase.inferences for phase in busy) / inferences
    return max(0.0, cpu_seconds) * part / (lasted * (os.cpu_count() or 1))


def _verify(request: VerifyRequest, tools: Instruments) -> VerifiedFile:
    from device_agent.runtimes.verifying import verify

    runtime = _open(request, tools)
    model, _ = _load(runtime, request, tools)
    tools.begin(Stage.RUN)
    examples = verify(model, request.inputs_path, request.outputs_path)
    return VerifiedFile(_setup(runtime, model), examples)


def _profile(request: ProfileRequest, tools: Instruments) -> Profile:
    scratch = request.confinement.scratch
    if scratch is None:
        raise ResourceError("a profile needs a folder for the runtime's trace")
    runtime = _open(request, tools)
    # Options are set before a model is looked at, so any model tells them as a measurement would.
    plain = dataclasses.replace(request.run, input_shapes=())
    options = runtime.load(runtime.reference_path, plain).options
    tools.begin(Stage.RUN)
    run_seconds, operators = runtime.profile(
        request.model_path, request.run, runs=request.runs, scratch=scratch
    )
    return Profile(
        runtime=request.run.runtime,
        runtime_library=runtime.library,
        runtime_version=runtime.version,
        threads=request.run.threads,
        runtime_options=options,
        runs=request.runs,
        run_seconds=run_seconds,
        operators=operators,
    )


def _guards(request: GuardsRequest, _tools: Instruments) -> Guards:
    from device_agent.cage.trial import try_guards

    return try_guards(request)


def _reference_run(request: ReferenceRequest, tools: Instruments) -> ReferenceRun:
    runtime = tools.open_runtime(request.runtime)
    reference = _reference(runtime)
    for _ in range(_REFERENCE_WARMUP_RUNS):
        reference.run()
    canaries = tuple(tools.canary(tools.clock) for _ in range(_CANARIES))
    samples = time_alone(reference.run, _REFERENCE_SAMPLES, tools)
    return ReferenceRun(
        runtime=request.runtime,
        runtime_library=runtime.library,
        runtime_version=runtime.version,
        latency_seconds=tuple(wall for wall, _ in samples),
        cpu_seconds=tuple(cpu for _, cpu in samples),
        canary_seconds=canaries,
    )


_TASKS: Mapping[str, tuple[type[Any], Callable[[Any, Instruments], Answer]]] = {
    "measure": (MeasureRequest, _measure),
    "energy": (EnergyRequest, _energy),
    "verify": (VerifyRequest, _verify),
    "profile": (ProfileRequest, _profile),
    "reference": (ReferenceRequest, _reference_run),
    "guards": (GuardsRequest, _guards),
}


def _check(request: MeasureRequest) -> None:
    processes = request.plan.processes
    if processes < 1:
        raise ResourceError(f"a model is measured in one process at least, not in {processes}")
    if request.min_samples * processes > MAX_SAMPLES:
        raise ResourceError(
            f"{request.min_samples * processes} samples are too many: at most {MAX_SAMPLES}"
        )


def _open(request: Any, tools: Instruments) -> Runtime:
    """The runtime of a request, which has scanned the request's model once."""
    runtime = tools.open_runtime(request.run.runtime)
    if request.run.threads < 1:
        raise ResourceError(f"a model runs on at least one thread, not on {request.run.threads}")
    tools.begin(Stage.SCAN)
    runtime.scan(request.model_path, request.confinement.scan)
    return runtime


def _load(runtime: Runtime, request: Any, tools: Instruments) -> tuple[LoadedModel, float]:
    """The model of a request, and the seconds that loading it took."""
    tools.begin(Stage.LOAD)
    started = tools.clock()
    model = runtime.load(request.model_path, request.run)
    return model, (tools.clock() - started) * _NANO


def _reference(runtime: Runtime) -> LoadedModel:
    """The model that is shipped with the agent. Where it fails the runtime is broken, not the
    model that a job is about.
    """
    path = runtime.reference_path
    try:
        model = runtime.load(path, ModelRun("", 0, runtime.name, threads=1))
        model.make_inputs(_SEED)
        model.run()
    except ModelRejectedError as error:
        raise NoRuntimeError(f"the reference model {path.name} does not run: {error}") from error
    return model


def _call_overhead_seconds(runtime: Runtime, tools: Instruments) -> float:
    """The median run of a model that computes almost nothing."""
    tiny = runtime.load_tiny()
    tiny.make_inputs(_SEED)
    walls = sorted(wall for wall, _ in time_alone(tiny.run, _OVERHEAD_SAMPLES, tools))
    return walls[len(walls) // 2]


def _seconds(run: Callable[[], None], tools: Instruments) -> float:
    started = tools.clock()
    run()
    return (tools.clock() - started) * _NANO


def _setup(runtime: Runtime, model: LoadedModel) -> RuntimeSetup:
    return RuntimeSetup(runtime.library, runtime.version, model.options)


def _installed_version(library: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(library) if library else ""
    except metadata.PackageNotFoundError:
        return ""


def _take_stdout() -> int:
    """A descriptor of our own for the answer; what libraries print goes to standard error."""
    sys.stdout.flush()
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def _take_stdin() -> int:
    """A descriptor of our own to hear by; libraries find nothing on standard input."""
    ear = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return ear


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AgentError as problem:
        sys.exit(str(problem))
