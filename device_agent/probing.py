"""Which runtimes work on this device: each is tried in a process of its own, because one built
for a newer CPU dies before Python can catch anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from device_agent.jobs import describe_crash
from device_agent.processes import Cancellation, run_worker
from device_agent.runtimes.base import RuntimeFacts
from device_agent.runtimes.catalogue import LIBRARIES

_PROBE_SECONDS = 120.0


def probe_runtimes(worker_command: Sequence[str]) -> tuple[RuntimeFacts, ...]:
    """Every runtime that this agent knows, with its version or the reason why it does not work."""
    return tuple(_probe(worker_command, name) for name in LIBRARIES)


def _probe(worker_command: Sequence[str], name: str) -> RuntimeFacts:
    try:
        ended = run_worker(
            [*worker_command, "probe", name],
            timeout_seconds=_PROBE_SECONDS,
            cancellation=Cancellation(),
        )
    except OSError as error:
        return _broken(name, f"the worker cannot be started: {error.strerror or error}")
    if ended.timed_out:
        return _broken(name, f"it did not load within {_PROBE_SECONDS:g} s")
    if ended.status != 0:
        return _broken(name, describe_crash(ended).message)
    try:
        return RuntimeFacts(**json.loads(ended.stdout))
    except (TypeError, ValueError) as error:
        return _broken(name, f"the worker's answer is unusable: {error}")


def _broken(name: str, why_not: str) -> RuntimeFacts:
    return RuntimeFacts(name, LIBRARIES[name], "", works=False, why_not=why_not)
