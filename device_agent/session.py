"""The agent at work: attach to the host, take jobs, bring outcomes back, and come back after every
break.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable, Union

from device_agent import VERSION
from device_agent.cache import DEFAULT_QUOTA_BYTES, Cache
from device_agent.errors import (
    AgentError,
    CacheError,
    CorruptBlobError,
    HostAwayError,
    HostRefusedError,
    RequestRefusedError,
    SessionLostError,
)
from device_agent.jobs import default_address_space_bytes, run_job
from device_agent.link import Event, EventKind, Link, Watch
from device_agent.outbox import Letter, Outbox
from device_agent.probing import probe_runtimes
from device_agent.processes import Cancellation
from device_agent.sensors.power import power_source_facts
from device_agent.state import Home, Identity
from device_agent.system import read_facts, total_ram_bytes
from device_agent.work import Failure, FailureKind, Lease, Outcome

_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0
# A connection that held this long was a good one: the next break starts with short delays again.
_STABLE_SECONDS = 5.0
_REFUSED_SECONDS = 600.0
_DRAINED_SECONDS = 5.0
_JOIN_SECONDS = 2.0
_RENEWALS_PER_LEASE = 3

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
        self._worker_command = worker_command
        self._address_space_bytes = (
            limits.worker_address_space_bytes or default_address_space_bytes(total_ram_bytes())
        )
        self._say = say
        self._session_id = os.urandom(16).hex()
        self._runtimes = probe_runtimes(worker_command)
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
            self._post(link, letter)
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
        facts = read_facts(runtimes=self._runtimes, power_sources=power_source_facts())
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
        self._say(f"job {lease.job_id}: measuring {lease.spec.model_sha256[:12]}")
        with _renewed(link, current):
            try:
                outcome = self._outcome(link, current)
            except RequestRefusedError as error:
                self._say(f"job {lease.job_id}: given up, {error}")
                return
        letter = self._outbox.put(lease, outcome)
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
            try:
                path = self._cache.fetch(spec.model_sha256, spec.model_size_bytes, pull)
            except CorruptBlobError:
                # What an earlier pull left may have been bad: once more from the start.
                path = self._cache.fetch(spec.model_sha256, spec.model_size_bytes, pull)
        except CorruptBlobError as error:
            return Failure(FailureKind.MODEL_REJECTED, str(error))
        except CacheError as error:
            return Failure(FailureKind.RESOURCE, str(error))
        except _PullCancelledError:
            return Failure(FailureKind.CANCELLED, "the host cancelled the job")
        return run_job(
            spec,
            path,
            worker_command=self._worker_command,
            address_space_bytes=self._address_space_bytes,
            cancellation=current.cancellation,
        )

    def _post(self, link: Link, letter: Letter) -> None:
        try:
            stored = link.report(
                letter.job_id, letter.attempt, letter.idempotency_key, letter.outcome
            )
        except RequestRefusedError as error:
            self._outbox.set_aside(letter, str(error))
            self._say(f"job {letter.job_id}: kept here, {error}")
            return
        self._outbox.remove(letter)
        if not stored:
            self._say(f"job {letter.job_id}: the host had its result already")

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


def _summary(outcome: Outcome) -> str:
    if isinstance(outcome, Failure):
        return f"{outcome.kind.value}, {outcome.message}"
    middle = sorted(outcome.latency_seconds)[len(outcome.latency_seconds) // 2]
    return f"measured, {len(outcome.latency_seconds)} samples around {middle * 1e3:.3f} ms"
