"""One job at a time: a spec and its files in, an outcome out, whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent.asking import WorkerFailedError, Workers
from device_agent.attention import Attention
from device_agent.errors import (
    AgentError,
    JobCancelledError,
    JobTimeoutError,
    ModelRejectedError,
    NoRuntimeError,
    NotReadyError,
    ResourceError,
    WorkerCrashedError,
)
from device_agent.files import remove_tree, sync_folder
from device_agent.preflight import Ready, become_ready
from device_agent.probing import probe_runtimes
from device_agent.processes import Cancellation
from device_agent.requests import (
    EnergyPhases,
    EnergyRequest,
    MeasuredProcess,
    MeasureRequest,
    ProfileRequest,
    ReferenceRequest,
    VerifiedFile,
    VerifyRequest,
)
from device_agent.runtimes.base import RuntimeFacts
from device_agent.scan_limits import ScanLimits
from device_agent.sensors.sampling import sampling
from device_agent.sensors.thermal_watch import ThermalWatch
from device_agent.spec_checks import check_spec
from device_agent.stages import Stage, StageTimeoutError
from device_agent.surroundings import Deadline, Surroundings
from device_agent.system import is_emulated, read_governor, read_load_average, total_ram_bytes
from device_agent.turn import machine_turn
from device_agent.work import (
    EnergyRun,
    Failure,
    FailureKind,
    MeasuredSamples,
    MeasureSpec,
    Outcome,
    ProbeResult,
    ProbeSpec,
    Profile,
    ProfileSpec,
    ReferenceRun,
    Spec,
    VerifiedOutputs,
    VerifySpec,
)

_GIB = 1 << 30
_LARGEST_ADDRESS_32 = (1 << 32) - 1
# Below this no runtime can be loaded together with numpy.
_SMALL_BYTES = 512 << 20
# A runtime's trace has a few hundred bytes for every operator of every run.
_TRACE_BYTES = 128 << 20
# An emulator plays /proc/cpuinfo through a file of the process that reads it, and libraries crash
# where that file stays empty.
_EMULATOR_FILE_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_COOLED_ABOVE_START_CELSIUS = 3.0
_COOLING_SECONDS = 120.0
_COOLING_LOOK_SECONDS = 1.0
# What a worker takes beside its budget: start, import, load; seconds on a Raspberry Pi.
_PROCESS_SECONDS = 15.0
_STEP_SECONDS = 11.0
# A small board imports a runtime in some ten seconds.
_START_SECONDS = 120.0
# Loading may take this share of the job, so that an endless one leaves time for others to try.
_LOAD_SHARE, _LEAST_STAGE_SECONDS = 0.25, 30.0
_RSS_SHARE = 0.8

_KINDS: Mapping[type[AgentError], FailureKind] = {
    JobCancelledError: FailureKind.CANCELLED,
    JobTimeoutError: FailureKind.TIMEOUT,
    ModelRejectedError: FailureKind.MODEL_REJECTED,
    NoRuntimeError: FailureKind.NO_RUNTIME,
    NotReadyError: FailureKind.NOT_READY,
    ResourceError: FailureKind.RESOURCE,
    StageTimeoutError: FailureKind.TIMEOUT,
    WorkerCrashedError: FailureKind.WORKER_CRASHED,
}


def default_address_space_bytes(ram_bytes: int) -> int:
    """What a worker may map where nobody set a limit: all memory, and never less than 2 GiB,
    because libraries reserve address space that they never touch.
    """
    wanted = max(ram_bytes, 2 * _GIB)
    # To a 32-bit kernel a limit above its addresses is no limit at all.
    return wanted if sys.maxsize > _LARGEST_ADDRESS_32 else min(wanted, _LARGEST_ADDRESS_32)


def default_rss_bytes() -> int:
    """What a worker may hold in memory where nobody set a limit: the plant's own programs must not
    have to go to swap for it.
    """
    return int(total_ram_bytes() * _RSS_SHARE)


@dataclass(frozen=True)
class Bench:
    """What every job of this agent is worked on with. `spool` is a folder for what workers
    write, and `hidden` what they must not read; a worker that holds more than `rss_bytes` in memory
    is killed.
    """

    worker_command: Sequence[str]
    address_space_bytes: int
    spool: Path
    surroundings: Surroundings = dataclasses.field(default_factory=Surroundings)
    scan: ScanLimits = dataclasses.field(default_factory=ScanLimits)
    rss_bytes: int = dataclasses.field(default_factory=default_rss_bytes)
    hidden: tuple[Path, ...] = ()


def run_job(
    spec: Spec,
    blobs: Mapping[str, Path],
    bench: Bench,
    cancellation: Cancellation,
    attention: Attention | None = None,
) -> Outcome:
    """Do the job in fresh processes; `blobs` are its files by their sha256. `attention` is called
    from this thread meanwhile.

    Every way in which a worker can end is an outcome. Must be called from the main thread.
    """
    try:
        if cancellation.requested:
            raise JobCancelledError
        check_spec(spec)
        deadline = Deadline(bench.surroundings, spec.timeout_seconds, cancellation, attention)
        with machine_turn(deadline.pause):
            return _Job(bench, blobs, deadline, stage_seconds(spec)).run(spec)
    except WorkerFailedError as error:
        return _with_limit(error.failure, bench.address_space_bytes)
    except tuple(_KINDS) as error:
        kind = next(kind for cls, kind in _KINDS.items() if isinstance(error, cls))
        return Failure(kind, str(error))
    except OSError as error:
        # A full disk, no free descriptor: the next job may find it otherwise.
        return Failure(FailureKind.RESOURCE, f"the device refuses the agent something: {error}")


def _with_limit(failure: Failure, address_space_bytes: int) -> Failure:
    """A library that finds no room to be loaded in does not say so: the limit has to be named."""
    if failure.kind is not FailureKind.NO_RUNTIME or address_space_bytes >= _SMALL_BYTES:
        return failure
    text = (
        f"{failure.message} (workers may map {address_space_bytes >> 20} MiB here: perhaps too"
        " little, see limits.worker_address_space_bytes in the agent's config.json)"
    )
    return replace(failure, message=text)


class _Job:
    """One job from its first to its last process."""

    def __init__(
        self,
        bench: Bench,
        blobs: Mapping[str, Path],
        deadline: Deadline,
        stages: Mapping[Stage, float],
    ) -> None:
        self._bench = bench
        self._blobs = blobs
        self._around = bench.surroundings
        self._deadline = deadline
        self._workers = Workers(
            bench.worker_command,
            bench.address_space_bytes,
            self._around.pid,
            self._deadline,
            bench.scan,
            bench.rss_bytes,
            bench.hidden,
            stages,
            _EMULATOR_FILE_BYTES if is_emulated() else 0,
        )

    def run(self, spec: Spec) -> Outcome:
        if isinstance(spec, MeasureSpec):
            return self._measure(spec)
        if isinstance(spec, VerifySpec):
            return self._verify(spec)
        if isinstance(spec, ProfileSpec):
            return self._profile(spec)
        return self._probe(spec)

    def _measure(self, spec: MeasureSpec) -> MeasuredSamples:
        load_average = read_load_average(self._around.roots)
        ready = become_ready(spec.readiness, spec.run.threads, self._around, self._deadline)
        thermal = self._around.thermal_watch()
        with thermal.looking():
            processes, cooled = self._measure_processes(spec, ready, thermal)
            energy, why_no_energy = None, "no energy run was asked for"
            if spec.plan.energy_windows > 0:
                cooled += self._cool(thermal, _energy_seconds(spec))
                energy, why_no_energy = self._energy(spec, ready)
        setup = processes[0].setup
        return MeasuredSamples(
            protocol=spec.protocol,
            runtime=spec.run.runtime,
            runtime_library=setup.library,
            runtime_version=setup.version,
            threads=spec.run.threads,
            runtime_options=setup.options,
            cpus=ready.cpus,
            preflight=ready.preflight,
            processes=tuple(process.run for process in processes),
            thermal=thermal.finish(cooled),
            governor=read_governor(self._around.roots),
            load_average_start=load_average,
            energy=energy,
            energy_absent_because=why_no_energy,
        )

    def _measure_processes(
        self, spec: MeasureSpec, ready: Ready, thermal: ThermalWatch
    ) -> tuple[list[MeasuredProcess], float]:
        """The answers of the fresh workers, and the seconds of cooling down between them."""
        plan = spec.plan
        share_seconds = plan.budget_seconds / plan.processes
        request = MeasureRequest(
            self._workers.confinement(ready.cpus),
            self._blobs[spec.run.model_sha256],
            spec.run,
            plan,
            min_samples=-(-plan.min_samples // plan.processes),
            budget_seconds=share_seconds,
        )
        answers: list[MeasuredProcess] = []
        cooled = 0.0
        for left in range(plan.processes, 0, -1):
            if answers:
                needed = left * (share_seconds + _PROCESS_SECONDS) + _energy_seconds(spec)
                cooled += self._cool(thermal, needed)
            try:
                answers.append(self._workers.ask("measure", request, MeasuredProcess))
            except (JobTimeoutError, ResourceError, StageTimeoutError):
                if not answers:
                    raise
                # The host sees fewer processes than it asked for; what was measured counts.
                break
        return answers, cooled

    def _cool(self, thermal: ThermalWatch, needed_seconds: float) -> float:
        """Wait until the CPU is about as cool as at the start, but leave the time that the rest
        of the job needs; the seconds that it took.
        """
        if thermal.start_celsius is None:
            return 0.0
        began = self._around.clock()
        spare = self._deadline.left_seconds() - needed_seconds
        until = began + min(_COOLING_SECONDS, spare)
        while self._around.clock() < until:
            celsius = thermal.look()
            if celsius is None or celsius <= thermal.start_celsius + _COOLED_ABOVE_START_CELSIUS:
                break
            self._deadline.pause(_COOLING_LOOK_SECONDS)
        return self._around.clock() - began

    def _energy(self, spec: MeasureSpec, ready: Ready) -> tuple[EnergyRun | None, str]:
        """The energy run, or None and why there is none: the samples that were taken before
        count all the same. Raises JobCancelledError.
        """
        plan = spec.plan
        request = EnergyRequest(
            self._workers.confinement(ready.cpus),
            self._blobs[spec.run.model_sha256],
            spec.run,
            plan.energy_windows,
            plan.energy_window_seconds,
            plan.paced_hertz,
        )
        sources = self._around.power_sources()
        start_celsius = self._around.temperature_celsius()
        try:
            with sampling(sources) as recorders:
                phases = self._workers.ask("energy", request, EnergyPhases)
        except JobCancelledError:
            raise
        except (AgentError, ArithmeticError, ValueError) as error:
            return None, f"the energy run failed: {error}"
        run = EnergyRun(
            phases=phases.phases,
            series=tuple(recorder.series() for recorder in recorders),
            temperature_start_celsius=start_celsius,
            temperature_end_celsius=self._around.temperature_celsius(),
            cpu_utilisation=phases.cpu_utilisation,
        )
        return run, ""

    def _verify(self, spec: VerifySpec) -> VerifiedOutputs:
        with self._scratch() as scratch:
            written = scratch / "outputs.npz"
            request = VerifyRequest(
                self._workers.confinement(max_file_bytes=spec.max_output_bytes, scratch=scratch),
                self._blobs[spec.run.model_sha256],
                spec.run,
                self._blobs[spec.inputs_sha256],
                written,
            )
            answer = self._workers.ask("verify", request, VerifiedFile)
            outputs = self._bench.spool / f"outputs-{os.urandom(8).hex()}.npz"
            sha256, size_bytes = _keep(written, outputs, spec.max_output_bytes)
        return VerifiedOutputs(
            runtime=spec.run.runtime,
            runtime_library=answer.setup.library,
            runtime_version=answer.setup.version,
            runtime_options=answer.setup.options,
            outputs_sha256=sha256,
            outputs_size_bytes=size_bytes,
            examples=answer.examples,
            outputs_path=outputs,
        )

    def _profile(self, spec: ProfileSpec) -> Profile:
        with self._scratch() as scratch:
            request = ProfileRequest(
                self._workers.confinement(max_file_bytes=_TRACE_BYTES, scratch=scratch),
                self._blobs[spec.run.model_sha256],
                spec.run,
                spec.runs,
            )
            return self._workers.ask("profile", request, Profile)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """The one folder that a worker may write to; whatever is left in it goes with it."""
        folder = self._bench.spool / f"scratch-{os.urandom(8).hex()}"
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise ResourceError(f"{folder} cannot be made: {error.strerror}") from error
        try:
            yield folder
        finally:
            # What a model made there on purpose costs room, and not the outcome.
            with contextlib.suppress(OSError):
                remove_tree(folder)

    def _probe(self, spec: ProbeSpec) -> ProbeResult:
        ready = become_ready(spec.readiness, 1, self._around, self._deadline)
        thermal = self._around.thermal_watch()
        with thermal.looking():
            runtimes = probe_runtimes(self._bench.worker_command, self._deadline)
            references = [self._reference(facts, ready) for facts in runtimes]
        return ProbeResult(
            preflight=ready.preflight,
            references=tuple(references),
            thermal=thermal.finish(),
            governor=read_governor(self._around.roots),
        )

    def _reference(self, facts: RuntimeFacts, ready: Ready) -> ReferenceRun:
        """The reference model of one runtime, or why there are no figures."""
        if not facts.works:
            return _no_reference(facts, facts.why_not)
        request = ReferenceRequest(self._workers.confinement(ready.cpus), facts.name)
        try:
            return self._workers.ask("reference", request, ReferenceRun)
        except (JobCancelledError, JobTimeoutError):
            raise
        except AgentError as error:
            return _no_reference(facts, str(error))


def stage_seconds(spec: Spec) -> Mapping[Stage, float]:
    """How long each stage of a worker may take; without a bound of its own, as long as the job."""
    load = max(_LEAST_STAGE_SECONDS, spec.timeout_seconds * _LOAD_SHARE)
    bounds = {Stage.START: _START_SECONDS, Stage.SCAN: load, Stage.LOAD: load}
    if isinstance(spec, MeasureSpec):
        # One run may last as long as the first, and the budget is looked at between runs.
        budget = spec.plan.budget_seconds / spec.plan.processes
        bounds[Stage.FIRST_INFERENCE] = load
        bounds[Stage.WARM_UP] = bounds[Stage.MEASURE] = budget + load
        bounds[Stage.ENERGY] = 2 * _energy_seconds(spec) + load
    return bounds


def _no_reference(facts: RuntimeFacts, why: str) -> ReferenceRun:
    return ReferenceRun(
        runtime=facts.name,
        runtime_library=facts.library,
        runtime_version=facts.version,
        latency_seconds=(),
        cpu_seconds=(),
        canary_seconds=(),
        failed_because=why or "it does not work",
    )


def _energy_seconds(spec: MeasureSpec) -> float:
    """How long the energy run will take, about."""
    plan = spec.plan
    if plan.energy_windows == 0:
        return 0.0
    windows = 2 * plan.energy_windows + 1 + (0 if plan.paced_hertz is None else 2)
    return windows * plan.energy_window_seconds + _STEP_SECONDS + _PROCESS_SECONDS


def _keep(written: Path, outputs: Path, max_bytes: int) -> tuple[str, int]:
    """Digest and size of what a worker left, once it is on the disk as `outputs`.

    Raises WorkerCrashedError where it left nothing, ResourceError where it left too much.
    """
    digest, size_bytes = hashlib.sha256(), 0
    try:
        # A worker may leave anything here: nothing that blocks is opened as a file.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(written, flags)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise WorkerCrashedError("the worker left something that is no file")
            for block in iter(lambda: file.read(_READ_BYTES), b""):
                digest.update(block)
                size_bytes += len(block)
            if size_bytes > max_bytes:
                raise ResourceError(
                    f"the outputs have {size_bytes} bytes and may have {max_bytes}: verify with"
                    " fewer examples"
                )
            os.fsync(file.fileno())
        written.rename(outputs)
        sync_folder(outputs.parent)
    except OSError as error:
        problem = error.strerror or str(error)
        raise WorkerCrashedError(f"the worker left no outputs: {problem}") from error
    return digest.hexdigest(), size_bytes
