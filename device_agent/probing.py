"""Which runtimes work on this device, and which walls of the worker's cage stand.

Each is tried in a process of its own: a runtime built for a newer CPU dies before Python can catch
anything, and a cage never opens again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from device_agent.asking import explain_crash
from device_agent.codec import from_json, from_tagged_json, to_json
from device_agent.errors import AgentError, BadAnswerError, ResourceError
from device_agent.processes import Cancellation, run_worker
from device_agent.requests import GUARDS, Confinement, Guards, GuardsRequest
from device_agent.runtimes.base import RuntimeFacts
from device_agent.runtimes.catalogue import LIBRARIES
from device_agent.surroundings import Deadline
from device_agent.system import GuardFacts
from device_agent.work import Failure

_PROBE_SECONDS = 120.0
_TRIAL_BYTES = 2 << 30
_TRIAL_FILE_BYTES = 1 << 20


def probe_runtimes(
    worker_command: Sequence[str], deadline: Deadline | None = None
) -> tuple[RuntimeFacts, ...]:
    """Every runtime that this agent knows, with its version or the reason why it does not work.

    Raises what `deadline` raises, where one is given.
    """
    return tuple(_probe(worker_command, name, deadline) for name in LIBRARIES)


def probe_guards(worker_command: Sequence[str]) -> tuple[GuardFacts, ...]:
    """Every wall of the cage, tried from inside: how it is built here, or why it is not there.

    The agent itself stays as it is. Never raises for what a kernel refuses.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="genba-trial-") as folder:
            return _try_cage(worker_command, Path(folder))
    except (AgentError, OSError) as error:
        return tuple(GuardFacts(name, False, "", f"it cannot be tried: {error}") for name in GUARDS)


def _try_cage(worker_command: Sequence[str], folder: Path) -> tuple[GuardFacts, ...]:
    scratch, hidden, outside = folder / "scratch", folder / "hidden", folder / "outside"
    scratch.mkdir()
    for file in (hidden, outside):
        file.write_bytes(b"")
    confinement = Confinement(
        _TRIAL_BYTES,
        os.getpid(),
        (),
        _TRIAL_FILE_BYTES,
        cpu_seconds=int(_PROBE_SECONDS),
        scratch=scratch,
        hidden=(hidden,),
    )
    ended = run_worker(
        [*worker_command, "guards", to_json(GuardsRequest(confinement, outside))],
        timeout_seconds=_PROBE_SECONDS,
        cancellation=Cancellation(),
    )
    if ended.status != 0:
        raise explain_crash(ended)
    told = from_tagged_json((Guards, Failure), ended.stdout)
    if not isinstance(told, Guards):
        raise ResourceError(told.message)
    return told.guards


def _probe(worker_command: Sequence[str], name: str, deadline: Deadline | None) -> RuntimeFacts:
    seconds, cancellation = _PROBE_SECONDS, Cancellation()
    if deadline is not None:
        seconds = min(seconds, deadline.left_seconds())
        cancellation = deadline.cancellation
    try:
        ended = run_worker(
            [*worker_command, "probe", name], timeout_seconds=seconds, cancellation=cancellation
        )
    except OSError as error:
        return _broken(name, f"the worker cannot be started: {error.strerror or error}")
    if deadline is not None:
        deadline.check()
    if ended.timed_out:
        return _broken(name, f"it did not load within {seconds:g} s")
    if ended.status != 0:
        return _broken(name, str(explain_crash(ended)))
    try:
        return from_json(RuntimeFacts, ended.stdout)
    except BadAnswerError as error:
        return _broken(name, f"the worker's answer is unusable: {error}")


def _broken(name: str, why_not: str) -> RuntimeFacts:
    return RuntimeFacts(name, LIBRARIES[name], "", works=False, why_not=why_not)
