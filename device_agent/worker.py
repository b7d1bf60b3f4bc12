"""The child process: one measurement, or one probe of a runtime, and one line of JSON.

    worker measure REQUEST     REQUEST is the JSON of a device_agent.work.Request
    worker probe RUNTIME

A crash here is a result, not the agent's end.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Callable

from device_agent import system
from device_agent.confine import confine, forbid_core_dumps
from device_agent.errors import (
    AgentError,
    ModelRejectedError,
    NoRuntimeError,
    ResourceError,
    SensorUnavailableError,
)
from device_agent.measuring import MAX_SAMPLES, Clock, TimeBudget, time_runs
from device_agent.model_scan import scan_file
from device_agent.runtimes.base import LoadedModel, Runtime, RuntimeFacts
from device_agent.runtimes.catalogue import LIBRARIES, open_runtime
from device_agent.sensors.memory import MemoryReader, ProcessMemory
from device_agent.sensors.power import (
    BUSY_SECONDS,
    IDLE_SECONDS,
    SOURCES,
    Opener,
    measure_power,
    open_power_source,
)
from device_agent.sensors.thermal import cpu_temperature_celsius
from device_agent.work import (
    PROTOCOL,
    Failure,
    FailureKind,
    MeasuredSamples,
    MeasureSpec,
    Outcome,
    PowerReading,
    Request,
    outcome_to_json,
)

_NANO = 1e-9
_SEED = 20_240_229
_KINDS = {
    ModelRejectedError: FailureKind.MODEL_REJECTED,
    NoRuntimeError: FailureKind.NO_RUNTIME,
    ResourceError: FailureKind.RESOURCE,
}


@dataclasses.dataclass(frozen=True)
class Instruments:
    """What a measurement reads; clocks count nanoseconds."""

    clock: Clock = time.perf_counter_ns
    cpu_clock: Clock = time.process_time_ns
    memory: MemoryReader = dataclasses.field(default_factory=ProcessMemory)
    power_sources: Mapping[str, Opener] = dataclasses.field(default_factory=lambda: SOURCES)
    sleep: Callable[[float], None] = time.sleep
    roots: system.Roots = system.LIVE


def main(
    argv: Sequence[str] | None = None,
    *,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
    memory: MemoryReader | None = None,
) -> int:
    """Do what the arguments say and write the answer to the original standard output.

    Returns the exit status. Raises BadAnswerError for a request that cannot be read and
    SensorUnavailableError where the memory reader fails.
    """
    answer = _take_stdout()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 2 or arguments[0] not in ("measure", "probe"):
        sys.stderr.write("usage: worker measure REQUEST | worker probe RUNTIME\n")
        return 2
    if arguments[0] == "probe":
        forbid_core_dumps()
        line = json.dumps(dataclasses.asdict(probe(arguments[1])))
    else:
        request = Request.from_json(arguments[1])
        confine(address_space_bytes=request.address_space_bytes, parent_pid=request.parent_pid)
        # The collector runs at moments of its own choice, which must not fall into a sample.
        gc.disable()
        instruments = Instruments(clock, cpu_clock, memory or ProcessMemory())
        line = outcome_to_json(attempt(request, instruments))
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        stream.write(line + "\n")
    return 0


def probe(name: str) -> RuntimeFacts:
    """Import the runtime and run a tiny model; what does not work says why."""
    library = LIBRARIES.get(name, "")
    version = _installed_version(library)
    try:
        runtime = open_runtime(name)
        runtime.self_test()
    except NoRuntimeError as error:
        return RuntimeFacts(name, library, version, works=False, why_not=str(error))
    return RuntimeFacts(name, runtime.library, runtime.version, works=True, why_not="")


def attempt(request: Request, instruments: Instruments) -> Outcome:
    """Measure, or say as a Failure why there is nothing to measure."""
    try:
        return _measure(request, instruments)
    except MemoryError:
        return Failure(FailureKind.RESOURCE, "the model needs more memory than it may have")
    except tuple(_KINDS) as error:
        return Failure(_KINDS[type(error)], str(error))


def _measure(request: Request, instruments: Instruments) -> MeasuredSamples:
    spec, clock, memory = request.spec, instruments.clock, instruments.memory
    budget = TimeBudget(clock(), spec.timeout_seconds)
    _check(spec)
    scan_file(request.model_path)
    runtime = open_runtime(spec.runtime)
    temperature_start = cpu_temperature_celsius(instruments.roots.sys)
    load_average = system.read_load_average(instruments.roots)
    base_rss = memory.rss_bytes()
    model, load_seconds = _load(runtime, request, clock)
    load_rss = memory.rss_bytes()
    model.make_inputs(_SEED)
    started = clock()
    model.run()
    first_inference_seconds = (clock() - started) * _NANO
    timings = time_runs(
        model.run, spec, clock=clock, cpu_clock=instruments.cpu_clock, budget=budget
    )
    peak_rss = memory.peak_rss_bytes()
    temperature_end = cpu_temperature_celsius(instruments.roots.sys)
    power, power_absent_because = _power(model, instruments, budget, max(timings.latency_seconds))
    return MeasuredSamples(
        protocol=spec.protocol,
        runtime=spec.runtime,
        runtime_library=runtime.library,
        runtime_version=runtime.version,
        threads=spec.threads,
        latency_seconds=timings.latency_seconds,
        runs_per_sample=timings.runs_per_sample,
        warmup_runs=timings.warmup_runs,
        load_seconds=load_seconds,
        first_inference_seconds=first_inference_seconds,
        base_rss_bytes=base_rss,
        load_rss_bytes=load_rss,
        peak_rss_bytes=peak_rss,
        power=power,
        power_absent_because=power_absent_because,
        temperature_start_celsius=temperature_start,
        temperature_end_celsius=temperature_end,
        governor=system.read_governor(instruments.roots),
        load_average_start=load_average,
        runtime_options=model.options,
        cpu_seconds=timings.cpu_seconds,
    )


def _check(spec: MeasureSpec) -> None:
    if spec.protocol != PROTOCOL:
        raise NoRuntimeError(
            f"this agent measures by {PROTOCOL}, not by {spec.protocol}: update the agent"
        )
    if spec.threads < 1:
        raise ResourceError(f"a model runs on at least one thread, not on {spec.threads}")
    if spec.min_samples > MAX_SAMPLES:
        raise ResourceError(f"{spec.min_samples} samples are too many: at most {MAX_SAMPLES}")


def _load(runtime: Runtime, request: Request, clock: Clock) -> tuple[LoadedModel, float]:
    started = clock()
    model = runtime.load(request.model_path, request.spec.threads)
    return model, (clock() - started) * _NANO


def _power(
    model: LoadedModel, instruments: Instruments, budget: TimeBudget, longest_run_seconds: float
) -> tuple[PowerReading | None, str]:
    try:
        sensor = open_power_source(instruments.power_sources)
        needed = IDLE_SECONDS + BUSY_SECONDS + 2 * longest_run_seconds
        if budget.left_seconds(instruments.clock()) < needed:
            return None, f"the job's timeout leaves less than the {needed:.1f} s that power takes"
        reading = measure_power(model.run, sensor, clock=instruments.clock, sleep=instruments.sleep)
    except SensorUnavailableError as error:
        return None, str(error)
    return reading, ""


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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AgentError as problem:
        sys.exit(str(problem))
