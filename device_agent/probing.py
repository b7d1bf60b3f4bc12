"""Which runtimes work on this device: each is tried in a process of its own, because one built
for a newer CPU dies before Python can catch anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.asking import explain_crash
from device_agent.codec import from_json
from device_agent.errors import BadAnswerError
from device_agent.processes import Cancellation, run_worker
from device_agent.runtimes.base import RuntimeFacts
from device_agent.runtimes.catalogue import LIBRARIES
from device_agent.surroundings import Deadline

_PROBE_SECONDS = 120.0


def probe_runtimes(
    worker_command: Sequence[str], deadline: Deadline | None = None
) -> tuple[RuntimeFacts, ...]:
    """Every runtime that this agent knows, with its version or the reason why it does not work.

    Raises what `deadline` raises, where one is given.
    """
    return tuple(_probe(worker_command, name, deadline) for name in LIBRARIES)


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
