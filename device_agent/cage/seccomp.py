"""The filter on system calls: a program of classic BPF that the kernel runs at each of them
(seccomp(2), linux/filter.h).

What is known to reach out of a worker is refused, and the rest allowed: what runtimes call changes
from version to version, and an agent that outlives them must not break them.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.cage.kernel import PR_SET_PDEATHSIG, Kernel, abi
from device_agent.cage.system_calls import (
    ABSENT,
    SELF_ONLY_FIRST,
    SELF_ONLY_SECOND,
    number,
    refused,
)

# linux/bpf_common.h: load a word of the call, compare, combine, end
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
# struct seccomp_data of linux/seccomp.h; of an argument only the low half, on little-endian
_AT_NUMBER, _AT_ABI, _AT_ARGUMENTS, _ARGUMENT_BYTES = 0, 4, 16, 8
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_DENY = _ERRNO | errno.EPERM
_NO_SUCH_CALL = _ERRNO | errno.ENOSYS
# linux/audit.h
_ABI_WORDS = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
_X32_NUMBERS = 0x40000000
_CLONE_THREAD = 0x10000
_O_ACCMODE, _O_TRUNC = 0o3, 0o1000
# Putting characters into a terminal's input (ioctl_tty(2)), and the console's menu.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# Who gets a signal when something comes, and which one (fcntl(2), asm-generic/sockios.h).
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
# Without this flag kernels before 5.16 slow the processor down for filtered processes
# (Documentation/userspace-api/spec_ctrl.rst), and the figures would be too high.
_SPEC_ALLOW = 1 << 2


@dataclass(frozen=True)
class _Rule:
    """What decides about some calls: one argument of theirs, perhaps only these bits of it. Where
    one of `tests` (comparison, operand) holds, `verdict` is the end, else `otherwise`.
    """

    names: Sequence[str]
    argument: int
    tests: Sequence[tuple[int, int]]
    verdict: int
    otherwise: int
    bits: int | None = None


def filter_system_calls(kernel: Kernel) -> str:
    """Install the filter for this process, which has one thread; the name of its architecture.

    Needs no_new_privs. Raises OSError where the kernel has no such filters or the architecture
    is unknown.
    """
    name = abi()
    if not name:
        raise OSError(errno.ENOSYS, "no filter is known for this architecture")
    code = program(name, os.getpid())
    try:
        kernel.filter_system_calls(code, _SPEC_ALLOW)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Before 4.17 there is no such flag.
        kernel.filter_system_calls(code, 0)
    return name


def program(abi_name: str, pid: int) -> bytes:
    """The filter for process `pid` on one of system_calls.ABIS."""
    code = [
        _instruction(_LOAD, _AT_ABI),
        _instruction(_IF_EQUAL, _ABI_WORDS[abi_name], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _AT_NUMBER),
    ]
    if abi_name == "x86_64":
        # The same kernel under other numbers.
        code += _test(_IF_AT_LEAST, _X32_NUMBERS, _NO_SUCH_CALL)
    code += _when(abi_name, refused(), [_instruction(_RETURN, _DENY)])
    code += _when(abi_name, ABSENT, [_instruction(_RETURN, _NO_SUCH_CALL)])
    for rule in _rules(pid):
        code += _when(abi_name, rule.names, _decision(rule))
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def _rules(pid: int) -> tuple[_Rule, ...]:
    me = ((_IF_EQUAL, pid), (_IF_EQUAL, 0))
    # A file that was opened for reading is emptied all the same, which Landlock before 6.2 allows.
    emptying, flag_bits = ((_IF_EQUAL, _O_TRUNC),), _O_TRUNC | _O_ACCMODE
    devices = (_TIOCSTI, _TIOCLINUX, _FIOSETOWN, _SIOCSPGRP)
    signalling = (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX)
    return (
        _Rule(("clone",), 0, ((_IF_ANY_BIT, _CLONE_THREAD),), _ALLOW, _DENY),
        # It must not outlive the agent.
        _Rule(("prctl",), 0, ((_IF_EQUAL, PR_SET_PDEATHSIG),), _DENY, _ALLOW),
        _Rule(("ioctl",), 1, tuple((_IF_EQUAL, each) for each in devices), _DENY, _ALLOW),
        _Rule(
            ("fcntl", "fcntl64"),
            1,
            tuple((_IF_EQUAL, each) for each in signalling),
            _DENY,
            _ALLOW,
        ),
        _Rule(("open",), 1, emptying, _DENY, _ALLOW, flag_bits),
        _Rule(("openat",), 2, emptying, _DENY, _ALLOW, flag_bits),
        _Rule(SELF_ONLY_FIRST, 0, me, _ALLOW, _DENY),
        _Rule(SELF_ONLY_SECOND, 1, me, _ALLOW, _DENY),
    )


def _decision(rule: _Rule) -> list[bytes]:
    code = [_instruction(_LOAD, _AT_ARGUMENTS + _ARGUMENT_BYTES * rule.argument)]
    if rule.bits is not None:
        code.append(_instruction(_AND, rule.bits))
    for comparison, operand in rule.tests:
        code += _test(comparison, operand, rule.verdict)
    return [*code, _instruction(_RETURN, rule.otherwise)]


def _test(comparison: int, operand: int, verdict: int) -> list[bytes]:
    """End with the verdict where the loaded word compares so."""
    return [_instruction(comparison, operand, 0, 1), _instruction(_RETURN, verdict)]


def _when(abi_name: str, names: Sequence[str], then: list[bytes]) -> list[bytes]:
    """Do `then`, which ends in every case, where the call is one of these."""
    known = [found for name in names if (found := number(name, abi_name)) is not None]
    if not known:
        return []
    tests = [
        _instruction(_IF_EQUAL, each, len(known) - place, 0)
        for place, each in enumerate(known, start=1)
    ]
    # The last one that does not match goes past it all.
    tests[-1] = _instruction(_IF_EQUAL, known[-1], 0, len(then))
    return [*tests, *then]


def _instruction(code: int, operand: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """struct sock_filter; jumps count the instructions to leave out."""
    return struct.pack("<HBBI", code, if_so, if_not, operand)
