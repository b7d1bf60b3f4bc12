"""Building the cage, wall by wall; what a kernel refuses is said and does not stop the rest."""

from __future__ import annotations

import functools
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from device_agent.cage.kernel import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, Kernel
from device_agent.cage.landlock import restrict
from device_agent.cage.limits import limit_resources, limit_tasks
from device_agent.cage.mounts import make_read_only
from device_agent.cage.seccomp import filter_system_calls
from device_agent.requests import FILES, MEMORY, NETWORK, SYSTEM_CALLS, Confinement
from device_agent.system import GuardFacts

# linux/sched.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
# The best first. Without a user namespace only the superuser gets any.
_NAMESPACES = (
    _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS,
    _CLONE_NEWNET | _CLONE_NEWNS,
    _CLONE_NEWUSER | _CLONE_NEWNET,
    _CLONE_NEWNET,
)


def confine(
    limits: Confinement, open_kernel: Callable[[], Kernel] = Kernel
) -> tuple[GuardFacts, ...]:
    """Put this process into the cage, and say how each wall of it stands.

    Must run before the first thread starts and before numpy is imported. Raises ResourceError
    where this process may not run on the cores, and SystemExit where its agent is gone.
    """
    limit_resources(limits)
    try:
        kernel = open_kernel()
    except ImportError as error:
        walls = _Walls(why_not=[f"this Python has no ctypes ({error})"])
    else:
        walls = _build(kernel, limits)
    if os.getppid() != limits.parent_pid:
        raise SystemExit("the agent went away before its worker began")
    return (
        walls.facts(NETWORK),
        walls.facts(FILES),
        walls.facts(SYSTEM_CALLS),
        GuardFacts(
            MEMORY,
            works=True,
            how=f"at most {limits.address_space_bytes >> 20} MiB of addresses (RLIMIT_AS), and the"
            " agent watches what is resident",
            why_not="",
        ),
    )


@dataclass
class _Walls:
    """What stands so far, by guard, and what the kernel said of the rest."""

    how: dict[str, list[str]] = field(default_factory=dict)
    why_not: list[str] = field(default_factory=list)

    def stands(self, guard: str, how: str) -> None:
        self.how.setdefault(guard, []).append(how)

    def attempt(self, what: str, build: Callable[[], object]) -> bool:
        """False where the kernel refuses."""
        try:
            build()
        except OSError as error:
            self.why_not.append(f"{what}: {error.strerror or error}")
            return False
        return True

    def facts(self, guard: str) -> GuardFacts:
        how = self.how.get(guard, [])
        why_not = "" if how else "; ".join(self.why_not)
        return GuardFacts(guard, bool(how), " and ".join(how), why_not)


def _build(kernel: Kernel, limits: Confinement) -> _Walls:
    walls = _Walls()
    walls.attempt("no_new_privs", lambda: kernel.prctl(PR_SET_NO_NEW_PRIVS, 1))
    hidden = _real(limits.hidden)
    scratch = None if limits.scratch is None else limits.scratch.resolve()
    _separate(kernel, walls, scratch, hidden)
    _landlock(kernel, walls, scratch, hidden)
    # In a namespace of its own a process is its superuser, and could take the walls down again.
    walls.attempt("capabilities", kernel.drop_capabilities)
    # A change of credentials clears the death signal, so the order matters.
    walls.attempt("death signal", lambda: kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    _filter(kernel, walls)
    return walls


def _separate(
    kernel: Kernel, walls: _Walls, scratch: Path | None, hidden: tuple[Path, ...]
) -> None:
    refusals = _Walls()
    for flags in _NAMESPACES:
        if refusals.attempt("namespaces", functools.partial(kernel.unshare, flags)):
            break
    else:
        walls.why_not.append(refusals.why_not[0])
        return
    walls.stands(NETWORK, "a network of its own (namespace)")
    if flags & _CLONE_NEWUSER:
        limit_tasks()
    if not flags & _CLONE_NEWNS:
        walls.why_not.append(refusals.why_not[0])
    elif walls.attempt("read-only mounts", lambda: make_read_only(kernel, scratch, hidden)):
        walls.stands(FILES, "read-only mounts (namespace)")


def _landlock(
    kernel: Kernel, walls: _Walls, scratch: Path | None, hidden: tuple[Path, ...]
) -> None:
    version = 0

    def build() -> None:
        nonlocal version
        version = restrict(kernel, scratch, hidden)

    if walls.attempt("Landlock", build):
        walls.stands(FILES, f"Landlock {version}")


def _filter(kernel: Kernel, walls: _Walls) -> None:
    if walls.attempt("seccomp", lambda: filter_system_calls(kernel)):
        walls.stands(SYSTEM_CALLS, "seccomp filter: one process, which reaches no other")
        walls.stands(NETWORK, "no sockets (seccomp)")


def _real(hidden: tuple[Path, ...]) -> tuple[Path, ...]:
    """Without symbolic links, and without what is not there."""
    return tuple(path.resolve() for path in hidden if path.exists())
