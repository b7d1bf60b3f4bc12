"""A process that builds the cage around itself on a kernel that lacks some things, then runs code.

caged_process.py CONFINEMENT REFUSED USER CODE     JSON, names, a number or nothing, Python
"""

# ruff: noqa: F401 - the code that it is given uses them
from __future__ import annotations

# The user is changed below, and the new one may not be allowed to import anything.
import ctypes
import encodings.ascii
import encodings.idna
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from device_agent.cage import system_calls
from device_agent.cage.confine import confine
from device_agent.cage.kernel import Kernel, abi
from device_agent.codec import from_json
from device_agent.requests import Confinement

_PR_SET_DUMPABLE = 4
REFUSED = sys.argv[2].split(",")


class Refusing(Kernel):
    """This kernel, as if it had been built without some things."""

    def __init__(self) -> None:
        if "ctypes" in REFUSED:
            raise ImportError("not in the Python of this test")
        super().__init__()

    def unshare(self, flags: int) -> None:
        _check("namespaces")
        if flags & 0x10000000:
            _check("user namespaces")
        super().unshare(flags)

    def mount(self, *arguments: Any) -> None:
        _check("mount")
        super().mount(*arguments)

    def call(self, name: str, *arguments: Any) -> int:
        _check("landlock" if name.startswith("landlock") else name)
        return super().call(name, *arguments)

    def filter_system_calls(self, program: bytes, flags: int) -> None:
        _check("seccomp")
        if flags:
            _check("seccomp flags", errno.EINVAL)
        super().filter_system_calls(program, flags)


def _check(what: str, number: int = errno.ENOSYS) -> None:
    if what in REFUSED:
        raise OSError(number, "not in the kernel of this test")


def tried(attack: Callable[[], Any]) -> str:
    """The name of the error that stopped it, or "done"."""
    try:
        attack()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def call(name: str, *arguments: Any) -> None:
    """A system call by its name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(system_calls.number(name, abi()), *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def become(user: int) -> None:
    """Another user, as if the process had started as that one."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    # A change of user closes /proc/self.
    Kernel().prctl(_PR_SET_DUMPABLE, 1)


if __name__ == "__main__":
    if sys.argv[3]:
        become(int(sys.argv[3]))
    limits = from_json(Confinement, sys.argv[1])
    guards = {guard.name: guard for guard in confine(limits, Refusing)}
    exec(sys.argv[4])
