"""System calls that Python does not offer, through the C library."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Union

Argument = Union[int, bytes, None]

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

# Numbers by the names of `abi`; from 424 on a call has the same one everywhere.
_NUMBERS: Mapping[str, Mapping[str, int]] = {
    "seccomp": {"x86_64": 317, "i386": 354, "aarch64": 277, "arm": 383},
}
_COMMON_NUMBERS = {
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_FAMILIES = {
    "x86_64": ("x86_64", "i386"),
    "amd64": ("x86_64", "i386"),
    "i386": ("", "i386"),
    "i486": ("", "i386"),
    "i586": ("", "i386"),
    "i686": ("", "i386"),
    "aarch64": ("aarch64", "arm"),
    "armv6l": ("", "arm"),
    "armv7l": ("", "arm"),
    "armv8l": ("", "arm"),
}


def abi(machine: str = os.uname().machine, *, is_64_bit: bool = sys.maxsize > 1 << 32) -> str:
    """How this process talks to the kernel: x86_64, i386, aarch64, arm, or empty for any other.

    A 32-bit process on a 64-bit kernel, as on many a Raspberry Pi, is told by its pointers.
    """
    if sys.byteorder != "little":
        return ""
    wide, narrow = _FAMILIES.get(machine, ("", ""))
    return wide if is_64_bit else narrow


class Kernel:
    """The kernel as this process may call it. Raises OSError for whatever it refuses."""

    def __init__(self) -> None:
        """Raises ImportError in a Python that was built without ctypes."""
        import ctypes

        self._ctypes: Any = ctypes
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    def prctl(self, option: int, argument: int) -> None:
        """prctl(2) with one argument."""
        long = self._ctypes.c_ulong
        self._checked(
            self._libc.prctl(option, *(long(each) for each in (argument, 0, 0, 0))), "prctl"
        )

    def unshare(self, flags: int) -> None:
        """unshare(2)."""
        self._checked(self._libc.unshare(flags), "unshare")

    def mount(
        self, source: Argument, target: str, filesystem: Argument, flags: int, data: Argument = None
    ) -> None:
        """mount(2)."""
        flag_bits = self._ctypes.c_ulong(flags)
        where = os.fsencode(target)
        self._checked(
            self._libc.mount(source, where, filesystem, flag_bits, data), f"mount {target}"
        )

    def drop_capabilities(self) -> None:
        """Give up every privilege that this process holds, for good (capset(2))."""
        ctypes = self._ctypes
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        self._checked(self._libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")

    def call(self, name: str, *arguments: Argument) -> int:
        """A system call by its name; bytes go by their address."""
        number = _COMMON_NUMBERS.get(name) or _NUMBERS[name][abi()]
        long = self._ctypes.c_long
        passed = [each if isinstance(each, bytes) else long(each or 0) for each in arguments]
        return self._checked(self._libc.syscall(long(number), *passed), name)

    def filter_system_calls(self, program: bytes, flags: int) -> None:
        """seccomp(2) with a program of 8-byte instructions."""
        ctypes = self._ctypes

        class Program(ctypes.Structure):  # type: ignore[misc,name-defined]
            """struct sock_fprog of linux/filter.h."""

            _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

        whole = Program(len(program) // 8, program)
        number = ctypes.c_long(_NUMBERS["seccomp"][abi()])
        mode, flag_bits = ctypes.c_long(1), ctypes.c_long(flags)
        self._checked(self._libc.syscall(number, mode, flag_bits, ctypes.byref(whole)), "seccomp")

    def _checked(self, result: int, what: str) -> int:
        if result < 0:
            number = self._ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")
        return int(result)
