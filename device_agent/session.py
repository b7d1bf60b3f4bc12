"""The agent at work: attach to the host, take jobs, bring outcomes back, and come back after every
break.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Union

from device_agent import VERSION
from device_agent.cache import DEFAULT_QUOTA_BYTES, Cache, Pull
from device_agent.errors import (
    AgentError,
    CacheError,
    CorruptBlobError,
    HostAwayError,
    HostRefusedError,
    RequestRefusedError,
    SessionLostError,
)
from device_agent.jobs import Bench, default_address_space_bytes, run_job
from device_agent.link import Event, EventKind, Link, Watch
from device_agent.outbox import Letter, Outbox
from device_agent.probing import probe_runtimes
from device_agent.processes import Cancellation
from device_agent.sensors.power import open_power_sources, power_source_facts, power_sources
from device_agent.spool import sweep
from device_agent.state import Home, Identity
from device_agent.surroundings import Surroundings
from device_agent.system import read_boot_id, read_facts, total_ram_bytes
from device_agent.work import (
    Failure,
    FailureKind,
    Lease,
    MeasuredSamples,
    MeasureSpec,
    Outcome,
    ProbeResult,
    ProbeSpec,
    Profile,
    ProfileSpec,
    Spec,
    VerifiedOutputs,
    VerifySpec,
)

_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0
# A connection that held this long was a good one: the next break starts with short delays again.
_STABLE_SECONDS = 5.0
_REFUSED_SECONDS = 600.0
_DRAINED_SECONDS = 5.0
_JOIN_SECONDS = 2.0
_RENEWALS_PER_LEASE = 3
# Answers of a host that stumbles over what this letter says, or is too slow for it.
_OF_THE_LETTER = ("UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED")

Say = Callable[[str], None]
_Message = Union[Event, AgentError]


class Backoff:
    """Full jitter: uniform between 0 and a bound that doubles up to 30 s
    (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._failures = 0

    def next_seconds(self) -> float:
        bound = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._uniform(0.0, bound)

    def reset(self) -> None:
        self._failures = 0


def _uniform(low: float, high: float) -> float:
    """From the system's randomness: agents that lost their host together do not return together,
    and the module random costs memory.
    """
    return low + (high - low) * int.from_bytes(os.urandom(7), "big") / (1 << 56)


def run_agent(home: Home, *, once: bool, worker_command: Sequence[str], say: Say) -> None:
    """Work for the host for ever, or with `once` until nothing waits for this device.

    Must be called from the main thread. Raises NotEnrolledError, AlreadyRunningError and
    DamagedStateError; with `once` also HostAwayError, HostRefusedError and RequestRefusedError.
    """
    identity = home.identity()
    with home.exclusively(), contextlib.closing(Outbox(home.outbox)) as outbox:
        agent = Agent(home, identity, outbox, worker_command=worker_command, say=say)
        if once:
            agent.attend(watch=False)
        else:
            agent.attend_for_ever(Backoff(_uniform), time.sleep)


@dataclass(frozen=True)
class _Current:
    """The job at hand, kept while the link is away so that a pull goes on where it broke."""

    lease: Lease
    cancellation: Cancellation


class Agent:
    """One run of the agent's process. Everything but cancelling happens in the main thread."""

    def __init__(
        self,
        home: Home,
        identity: Identity,
        outbox: Outbox,
        *,
        worker_command: Sequence[str],
        say: Say,
    ) -> None:
        limits = home.limits()
        self._home = home
        self._identity = identity
        self._outbox = outbox
        self._cache = Cache(home.cache, limits.cache_bytes or DEFAULT_QUOTA_BYTES)
        self._sources = power_sources(home.power_settings())
        self._bench = Bench(
            worker_command,
            limits.worker_address_space_bytes or default_address_space_bytes(total_ram_bytes()),
            home.spool,
            Surroundings(power_sources=lambda: open_power_sources(self._sources)),
        )
        self._say = say
        self._session_id = os.urandom(16).hex()
        self._boot_id = read_boot_id()
        self._runtimes = probe_runtimes(worker_command)
        sweep(
            home.spool,
            keep={
                letter.outcome.outputs_path
                for letter in outbox.pending()
                if isinstance(letter.outcome, VerifiedOutputs)
            },
        )
        self._current: _Current | None = None
        self._draining = False
        self._lost: AgentError | None = None
        self._complaint = ""

    def attend_for_ever(self, backoff: Backoff, sleep: Callable[[float], None]) -> None:
        """Attach again after every break; never returns."""
        while True:
            started = time.monotonic()
            try:
                # It may have been enrolled anew meanwhile.
                self._identity = self._home.identity()
                self.attend(watch=True)
                delay = _DRAINED_SECONDS
            except HostAwayError as error:
                if time.monotonic() - started > _STABLE_SECONDS:
                    backoff.reset()
                delay = backoff.next_seconds()
                self._complain(f"{error}; trying again until it answers")
            except (HostRefusedError, RequestRefusedError) as error:
                delay = _REFUSED_SECONDS
                self._complain(f"{error}; trying again in {_REFUSED_SECONDS / 60:.0f} minutes")
            sleep(delay)

    def attend(self, *, watch: bool) -> None:
        """One connection: hand over what waits, say hello, work.

        Returns when the host drains its agents, or without `watch` when no job waits. Raises
        HostAwayError, HostRefusedError, RequestRefusedError, SessionLostError.
        """
        link = Link(self._identity)
        try:
            self._attend_over(link, watch=watch)
        except AgentError:
            link.close()
            raise
        # Not closed when the process is told to stop: an interrupt may leave a call half made,
        # and gRPC's close waits for the end of every call.
        link.close()

    def _attend_over(self, link: Link, *, watch: bool) -> None:
        self._draining = False
        self._lost = None
        for letter in self._outbox.pending():
            self._offer(link, letter)
        self._hello(link)
        try:
            if watch:
                self._obey(link)
            else:
                self._work_off(link)
        except (HostRefusedError, RequestRefusedError) as error:
            # A host that was restarted does not know this session: only Hello decides.
            raise SessionLostError(error.code, error.detail) from error

    def _hello(self, link: Link) -> None:
        facts = read_facts(runtimes=self._runtimes, power_sources=power_source_facts(self._sources))
        welcome = link.hello(self._session_id, VERSION, facts)
        self._complaint = ""
        self._say(
            f"attached to {self._identity.address} as {welcome.device_name}"
            f" (genba {welcome.host_version}, protocol {welcome.protocol})"
        )

    def _obey(self, link: Link) -> None:
        inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        watch = link.watch(self._session_id)
        watcher = threading.Thread(target=self._listen, args=(watch, inbox), daemon=True)
        watcher.start()
        try:
            if self._current is not None:
                self._work_off(link)
            while not self._draining:
                message = inbox.get()
                if isinstance(message, AgentError):
                    raise message
                if message.kind is EventKind.JOB_READY:
                    self._work_off(link)
        finally:
            watch.cancel()
            watcher.join(_JOIN_SECONDS)

    def _listen(self, watch: Watch, inbox: queue.SimpleQueue[_Message]) -> None:
        """In a thread: what concerns the job at hand takes effect at once, the rest queues."""
        try:
            for event in watch:
                current = self._current
                if event.kind is EventKind.DRAIN:
                    self._draining = True
                elif (
                    event.kind is EventKind.CANCEL
                    and current is not None
                    and current.lease.job_id == event.job_id
                ):
                    current.cancellation.request()
                inbox.put(event)
        except AgentError as error:
            self._lost = error
            inbox.put(error)

    def _work_off(self, link: Link) -> None:
        """Finish the job at hand, then claim until nothing waits or the host drains."""
        while True:
            if self._current is None:
                if self._lost is not None:
                    raise self._lost
                lease = None if self._draining else link.claim(self._session_id)
                if lease is None:
                    return
                self._current = _Current(lease, Cancellation())
            self._finish(link, self._current)
            self._current = None

    def _finish(self, link: Link, current: _Current) -> None:
        lease = current.lease
        self._say(f"job {lease.job_id}: {_doing(lease.spec)}")
        with _renewed(link, current):
            try:
                outcome = self._outcome(link, current)
            except RequestRefusedError as error:
                self._say(f"job {lease.job_id}: given up, {error}")
                return
            letter = self._outbox.put(lease, outcome, self._boot_id)
            self._say(f"job {lease.job_id}: {_summary(outcome)}")
            # From here on the outbox answers for the outcome, whatever the link does.
            self._current = None
            self._post(link, letter)

    def _outcome(self, link: Link, current: _Current) -> Outcome:
        spec = current.lease.spec

        def pull(sha256: str, offset: int) -> Iterator[tuple[int, bytes]]:
            for piece in link.read_blob(sha256, offset):
                if current.cancellation.requested:
                    raise _PullCancelledError
                yield piece

        try:
            blobs = self._fetch_all(_files_of(spec), pull)
        except CorruptBlobError as error:
            return Failure(FailureKind.MODEL_REJECTED, str(error))
        except CacheError as error:
            return Failure(FailureKind.RESOURCE, str(error))
        except _PullCancelledError:
            return Failure(FailureKind.CANCELLED, "the host cancelled the job")
        return run_job(spec, blobs, self._bench, current.cancellation)

    def _fetch_all(self, files: Mapping[str, int], pull: Pull) -> dict[str, Path]:
        """The paths of a job's files, by their sha256. Raises as Cache.fetch does."""
        return {
            sha256: self._fetch(sha256, size_bytes, pull, files)
            for sha256, size_bytes in files.items()
        }

    def _fetch(self, sha256: str, size_bytes: int, pull: Pull, spare: Collection[str]) -> Path:
        try:
            return self._cache.fetch(sha256, size_bytes, pull, spare=spare)
        except CorruptBlobError:
            # What an earlier pull left may have been bad: once more from the start.
            return self._cache.fetch(sha256, size_bytes, pull, spare=spare)

    def _offer(self, link: Link, letter: Letter) -> None:
        """Post a letter; one that breaks by itself waits and holds up neither others nor jobs."""
        try:
            self._post(link, letter)
        except HostAwayError as error:
            if error.code not in _OF_THE_LETTER:
                raise
            self._complain(f"job {letter.job_id}: {error}; it is offered again")

    def _post(self, link: Link, letter: Letter) -> None:
        outcome = letter.outcome
        try:
            if isinstance(outcome, VerifiedOutputs):
                letter = self._with_outputs_sent(link, letter, outcome)
            same_boot = letter.boot_id == self._boot_id
            stored = link.report(letter, time.monotonic() if same_boot else None)
        except RequestRefusedError as error:
            self._outbox.set_aside(letter, str(error))
            self._say(f"job {letter.job_id}: kept here, {error}")
        else:
            self._outbox.remove(letter)
            if not stored:
                self._say(f"job {letter.job_id}: the host had its result already")
        if isinstance(outcome, VerifiedOutputs):
            # Also where they were refused: a card is small, and nobody will ask for them again.
            outcome.outputs_path.unlink(missing_ok=True)

    def _with_outputs_sent(self, link: Link, letter: Letter, outputs: VerifiedOutputs) -> Letter:
        """Bring the outputs to the host; without them the letter is of a failure."""
        try:
            with outputs.outputs_path.open("rb") as file:
                link.write_blob(letter.lease_id, outputs.outputs_sha256, file)
        except OSError as error:
            text = f"the outputs are no longer on the device ({error.strerror or error})"
            return replace(letter, outcome=Failure(FailureKind.WORKER_CRASHED, text))
        return letter

    def _complain(self, text: str) -> None:
        """Say it once, not at every attempt."""
        if text != self._complaint:
            self._complaint = text
            self._say(text)


class _PullCancelledError(Exception):
    """Ends a pull whose job the host cancelled."""


@contextlib.contextmanager
def _renewed(link: Link, current: _Current) -> Iterator[None]:
    """Keep the lease alive from a thread while the body works."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(current.lease.seconds / _RENEWALS_PER_LEASE):
            # A lease that cannot be renewed only means that the host may give the job away; the
            # outcome counts all the same if it comes first.
            with contextlib.suppress(AgentError):
                if link.renew(current.lease.id):
                    current.cancellation.request()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_JOIN_SECONDS)


def _files_of(spec: Spec) -> dict[str, int]:
    """The files that a job needs: sizes by sha256."""
    if isinstance(spec, ProbeSpec):
        return {}
    files = {spec.run.model_sha256: spec.run.model_size_bytes}
    if isinstance(spec, VerifySpec):
        files[spec.inputs_sha256] = spec.inputs_size_bytes
    return files


def _doing(spec: Spec) -> str:
    if isinstance(spec, ProbeSpec):
        return "probing this device"
    model = spec.run.model_sha256[:12]
    if isinstance(spec, MeasureSpec):
        return f"measuring {model}"
    return f"profiling {model}" if isinstance(spec, ProfileSpec) else f"verifying {model}"


def _summary(outcome: Outcome) -> str:
    if isinstance(outcome, Failure):
        return f"{outcome.kind.value}, {outcome.message}"
    if isinstance(outcome, VerifiedOutputs):
        return f"verified, {outcome.examples} examples in {outcome.outputs_size_bytes} bytes"
    if isinstance(outcome, Profile):
        return f"profiled, {len(outcome.operators)} operators"
    if isinstance(outcome, ProbeResult):
        worked = [run.runtime for run in outcome.references if not run.failed_because]
        return f"probed, {', '.join(worked) or 'no runtime'} ran the reference model"
    return _measured(outcome)


def _measured(outcome: MeasuredSamples) -> str:
    samples = sorted(
        seconds
        for process in outcome.processes
        for block in process.blocks
        for seconds in block.latency_seconds
    )
    if not samples:
        return "measured, but without a sample"
    return f"measured, {len(samples)} samples around {samples[len(samples) // 2] * 1e3:.3f} ms"
