"""The agent at work: attach to the host, take jobs, bring outcomes back, and come back after every
break.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Protocol, Union

from device_agent import VERSION
from device_agent.attention import Attention
from device_agent.backoff import Backoff, system_uniform
from device_agent.cache import DEFAULT_QUOTA_BYTES, Cache, Pull
from device_agent.errors import (
    AgentError,
    CacheError,
    CorruptBlobError,
    HostAwayError,
    HostRefusedError,
    MessageTooLargeError,
    RequestRefusedError,
    SessionLostError,
    UnprovenLeaseError,
)
from device_agent.jobs import Bench, default_address_space_bytes, run_job
from device_agent.link import Event, EventKind, Link, Pace, Watch
from device_agent.outbox import Letter, SafeOutbox
from device_agent.probing import probe_guards, probe_runtimes
from device_agent.processes import Cancellation
from device_agent.renewal import Renewal
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

# A connection that held this long was a good one: the next break starts with short delays again.
_STABLE_SECONDS = 5.0
_REFUSED_SECONDS = 600.0
_DRAINED_SECONDS = 5.0
_JOIN_SECONDS = 2.0
# How often a waiting agent looks whether it was enrolled anew, and says that it lives.
_LOOK_SECONDS = 2.0
_IDLE_SECONDS = 10.0
# Answers of a host that stumbles over what this letter says, or is too slow for it.
_OF_THE_LETTER = ("UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED")
# What says of a pull that the lease is no longer this device's.
_OF_THE_LEASE = ("PERMISSION_DENIED",)

Say = Callable[[str], None]
_Message = Union[Event, AgentError]


class Service(Protocol):
    """Who started the agent and watches over it: systemd, for example."""

    def ready(self) -> None:
        """The host was asked for the first time, whatever it said."""

    def alive(self) -> None:
        """At least every 30 s, except that a transfer or a busy host may take a minute."""

    def status(self, text: str) -> None:
        """What the agent does, for people."""

    def stopping(self) -> None:
        """The agent is about to end."""


class NoService:
    """Nobody watches over the agent."""

    def ready(self) -> None:
        """Do nothing."""

    def alive(self) -> None:
        """Do nothing."""

    def status(self, text: str) -> None:
        """Do nothing."""

    def stopping(self) -> None:
        """Do nothing."""


_NO_SERVICE = NoService()
_PACE = Pace()


def run_agent(
    home: Home,
    *,
    once: bool,
    worker_command: Sequence[str],
    say: Say,
    service: Service = _NO_SERVICE,
    pace: Pace = _PACE,
) -> None:
    """Work for the host for ever, or with `once` until nothing waits for this device.

    Must be called from the main thread. Raises NotEnrolledError, AlreadyRunningError and
    DamagedStateError; with `once` also HostAwayError, HostRefusedError and RequestRefusedError.
    """
    identity = home.identity()
    with home.exclusively(), contextlib.closing(SafeOutbox(home.outbox, say)) as outbox:
        agent = Agent(
            home,
            identity,
            outbox,
            worker_command=worker_command,
            say=say,
            service=service,
            pace=pace,
        )
        try:
            if once:
                agent.attend(watch=False)
                outbox.require_settled()
            else:
                agent.attend_for_ever(Backoff(system_uniform), time.sleep)
        finally:
            service.stopping()


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
        outbox: SafeOutbox,
        *,
        worker_command: Sequence[str],
        say: Say,
        service: Service = _NO_SERVICE,
        pace: Pace = _PACE,
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
            scan=home.scan_limits(),
            # A model has no business with the key of the device. The cage follows no link.
            hidden=(home.identities.resolve(),),
        )
        self._say = say
        self._service = service
        self._pace = pace
        self._session_id = os.urandom(16).hex()
        self._boot_id = read_boot_id()
        self._runtimes = probe_runtimes(worker_command)
        self._guards = probe_guards(worker_command)
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
        self._is_ready = False
        self._lost: AgentError | None = None
        self._complaint = ""

    def attend_for_ever(self, backoff: Backoff, sleep: Callable[[float], None]) -> None:
        """Attach again after every break; never returns."""
        while True:
            started = time.monotonic()
            try:
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
            self._wait(delay, sleep)

    def _wait(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Sleep, but not longer than until this device is enrolled anew."""
        left = seconds
        while not self._is_enrolled_anew() and left > 0:
            self._service.alive()
            self._outbox.settle()
            nap = min(left, _LOOK_SECONDS)
            sleep(nap)
            left -= nap

    def _is_enrolled_anew(self) -> bool:
        try:
            found = self._home.identity()
        except AgentError:
            # It is being replaced at this moment, or the card is bad: the one in memory serves.
            return False
        if found == self._identity:
            return False
        if found.device_id != self._identity.device_id:
            # A job of another host, or of a device that is no more.
            self._current = None
        self._identity = found
        return True

    def attend(self, *, watch: bool) -> None:
        """One connection: hand over what waits, say hello, work.

        Returns when the host drains its agents, or without `watch` when no job waits. Raises
        HostAwayError, HostRefusedError, RequestRefusedError, SessionLostError.
        """
        link = Link(self._identity, self._pace)
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
        try:
            for letter in self._outbox.pending():
                self._service.alive()
                self._offer(link, letter)
            self._hello(link)
        finally:
            self._say_ready()
        try:
            if watch:
                self._obey(link)
            else:
                self._work_off(link)
        except (UnprovenLeaseError, MessageTooLargeError):
            raise
        except (HostRefusedError, RequestRefusedError) as error:
            # A host that was restarted does not know this session: only Hello decides.
            raise SessionLostError(error.code, error.detail) from error

    def _say_ready(self) -> None:
        """Whatever the host said: an agent whose host is away has started all the same."""
        if not self._is_ready:
            self._is_ready = True
            self._service.ready()

    def _hello(self, link: Link) -> None:
        facts = read_facts(
            runtimes=self._runtimes,
            power_sources=power_source_facts(self._sources),
            guards=self._guards,
        )
        welcome = link.hello(self._session_id, VERSION, facts)
        self._complaint = ""
        attached = (
            f"attached to {self._identity.address} as {welcome.device_name}"
            f" (genba {welcome.host_version}, protocol {welcome.protocol})"
        )
        self._say(attached)
        self._service.status(attached)

    def _obey(self, link: Link) -> None:
        inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        watch = link.watch(self._session_id)
        watcher = threading.Thread(target=self._listen, args=(watch, inbox), daemon=True)
        watcher.start()
        try:
            # A lease that was lost on its way is not announced while the host takes it to be held.
            self._work_off(link)
            while not self._draining:
                self._service.alive()
                try:
                    message = inbox.get(timeout=_IDLE_SECONDS)
                except queue.Empty:
                    self._outbox.settle()
                    continue
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
            current = self._current
            if current is not None and _is_shut_out(error):
                current.cancellation.request()
            self._lost = error
            inbox.put(error)

    def _work_off(self, link: Link) -> None:
        """Finish the job at hand, then claim until nothing waits or the host drains."""
        taken_up_again = self._current is not None
        while True:
            if self._current is None:
                lease = self._claim(link)
                if lease is None:
                    return
                self._current = _Current(lease, Cancellation())
            self._finish(link, self._current, taken_up_again=taken_up_again)
            self._current, taken_up_again = None, False

    def _claim(self, link: Link) -> Lease | None:
        if self._lost is not None:
            raise self._lost
        self._outbox.settle()
        # A device that cannot keep an outcome must not be given the work for another one.
        if self._draining or self._outbox.owes:
            return None
        return link.claim(self._session_id)

    def _finish(self, link: Link, current: _Current, *, taken_up_again: bool) -> None:
        lease = current.lease
        self._say(f"job {lease.job_id}: {_doing(lease.spec)}")
        self._service.status(f"job {lease.job_id}: {_doing(lease.spec)}")
        renewal = Renewal(link.renew, lease, current.cancellation, self._service.alive)
        if taken_up_again:
            # Much of the lease may be over, and a wish to cancel may have been missed.
            renewal.renew_after(0.0)
        with renewal.in_background():
            try:
                outcome = self._outcome(link, current, renewal)
            except RequestRefusedError as error:
                self._say(f"job {lease.job_id}: given up, {error}")
                return
            letter = self._outbox.put(lease, outcome, self._boot_id)
            self._say(f"job {lease.job_id}: {_summary(outcome)}")
            # From here on the outbox answers for the outcome, whatever the link does.
            self._current = None
            self._post(link, letter)
        self._service.status("waiting for jobs")

    def _outcome(self, link: Link, current: _Current, attention: Attention) -> Outcome:
        spec = current.lease.spec

        def pull(sha256: str, offset: int) -> Iterator[tuple[int, bytes]]:
            for piece in link.read_blob(sha256, offset):
                if current.cancellation.requested:
                    raise _PullCancelledError
                attention.alive()
                yield piece

        try:
            blobs = self._fetch_all(_files_of(spec), pull)
        except CorruptBlobError as error:
            return Failure(FailureKind.MODEL_REJECTED, str(error))
        except CacheError as error:
            return Failure(FailureKind.RESOURCE, str(error))
        except _PullCancelledError:
            return Failure(FailureKind.CANCELLED, "the host cancelled the job")
        except RequestRefusedError as error:
            if error.code in _OF_THE_LEASE:
                raise
            # The lease holds: without an outcome the host would hand it out for ever.
            return Failure(FailureKind.RESOURCE, f"a file of the job does not come: {error}")
        return run_job(spec, blobs, self._bench, current.cancellation, attention)

    def _fetch_all(self, files: Mapping[str, int], pull: Pull) -> dict[str, Path]:
        """The paths of a job's files, by their sha256. Raises as Cache.fetch does."""
        return {
            sha256: self._cache.fetch(sha256, size_bytes, pull, spare=files)
            for sha256, size_bytes in files.items()
        }

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
            # What a disk keeps that has become read-only, the next life sweeps away.
            with contextlib.suppress(OSError):
                outcome.outputs_path.unlink(missing_ok=True)

    def _with_outputs_sent(self, link: Link, letter: Letter, outputs: VerifiedOutputs) -> Letter:
        """Bring the outputs to the host; without them the letter is of a failure."""
        try:
            with outputs.outputs_path.open("rb") as file:
                link.write_blob(letter.lease_id, outputs.outputs_sha256, file, self._service.alive)
        except OSError as error:
            text = f"the outputs are no longer on the device ({error.strerror or error})"
            return replace(letter, outcome=Failure(FailureKind.WORKER_CRASHED, text))
        return letter

    def _complain(self, text: str) -> None:
        """Say it once, not at every attempt."""
        if text != self._complaint:
            self._complaint = text
            self._say(text)
            self._service.status(text)


def _is_shut_out(error: AgentError) -> bool:
    """Whether the host took this device off its list: it wants nothing of it any more."""
    return isinstance(error, HostRefusedError) and error.code == "UNAUTHENTICATED"


class _PullCancelledError(Exception):
    """Ends a pull whose job the host cancelled."""


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
