"""A try at every wall of the cage from inside: one counts when it holds, not when it was built."""

from __future__ import annotations

import dataclasses
import fcntl
import mmap
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

from device_agent.cage.confine import confine
from device_agent.requests import FILES, MEMORY, NETWORK, SYSTEM_CALLS, Guards, GuardsRequest
from device_agent.system import GuardFacts


def try_guards(request: GuardsRequest) -> Guards:
    """Build the cage around this process and try to break out. Raises as `confine` does."""
    limits = request.confinement
    attacks: Mapping[str, Callable[[], str]] = {
        NETWORK: _reach_the_network,
        FILES: lambda: _touch_files(request.outside, limits.hidden, limits.scratch),
        SYSTEM_CALLS: lambda: _reach_a_process(limits.parent_pid),
        MEMORY: lambda: _take_memory(limits.address_space_bytes),
    }
    return Guards(tuple(_tried(each, attacks[each.name]) for each in confine(limits)))


def _tried(guard: GuardFacts, attack: Callable[[], str]) -> GuardFacts:
    if not guard.works:
        return guard
    hole = attack()
    if not hole:
        return guard
    return dataclasses.replace(
        guard, works=False, how="", why_not=f"{hole} in spite of {guard.how}"
    )


def _reach_the_network() -> str:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_INET, kind) as connection:
                connection.connect(("127.0.0.1", 9))
        except ConnectionRefusedError:
            pass
        except OSError:
            continue
        return "the loopback network can be reached"
    return ""


def _touch_files(outside: Path, hidden: tuple[Path, ...], scratch: Path | None) -> str:
    if _opens(outside, os.O_WRONLY):
        return "a file outside can be written"
    if any(_opens(path, os.O_RDONLY) for path in hidden):
        return "what is hidden can be read"
    if scratch is not None and not _opens(scratch / "trial", os.O_WRONLY | os.O_CREAT):
        return "its own folder cannot be written"
    return ""


def _opens(path: Path, flags: int) -> bool:
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError:
        return False
    return True


def _reach_a_process(pid: int) -> str:
    try:
        # Signal 0 reaches nobody, but is refused as any other.
        os.kill(pid, 0)
    except OSError:
        pass
    else:
        return "the agent can be sent signals"
    if _would_send_a_signal_for_a_file(pid):
        return "the agent can be sent signals by way of a file"
    try:
        child = os.fork()
    except OSError:
        return ""
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "processes can be started"


def _would_send_a_signal_for_a_file(pid: int) -> bool:
    """Whether the owner of a pipe can be named, who gets a signal whenever something comes."""
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
    except OSError:
        return False
    finally:
        os.close(reader)
        os.close(writer)
    return True


def _take_memory(limit_bytes: int) -> str:
    try:
        mmap.mmap(-1, limit_bytes).close()
    except (MemoryError, OSError, OverflowError):
        # The last one where the limit is more than this machine has addresses.
        return ""
    return "more can be mapped"
