"""The filter on system calls, run as the kernel runs it, for every architecture of old devices."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.cage.kernel import abi
from device_agent.cage.landlock import readable
from device_agent.cage.seccomp import program
from device_agent.cage.system_calls import ABIS, ABSENT, number, refused

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
DENIED, NO_SUCH_CALL = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
WORDS = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
PID = 4242
# What every program needs, by the same tables.
READ = {"x86_64": 0, "i386": 3, "aarch64": 63, "arm": 3}
MMAP = {"x86_64": 9, "i386": 192, "aarch64": 222, "arm": 192}
FUTEX = {"x86_64": 202, "i386": 240, "aarch64": 98, "arm": 240}


def verdict(abi_name: str, call: int | str, *arguments: int, word: int | None = None) -> int:
    """What the kernel would do (Documentation/networking/filter.rst)."""
    call_number = number(call, abi_name) if isinstance(call, str) else call
    assert call_number is not None
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", call_number, WORDS[abi_name] if word is None else word, 0, *values)
    code = program(abi_name, PID)
    at, loaded = 0, 0
    while True:
        operation, if_so, if_not, operand = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        if operation == 0x06:
            return int(operand)
        if operation == 0x20:
            (loaded,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x54:
            loaded &= operand
        else:
            holds = {
                0x15: loaded == operand,
                0x35: loaded >= operand,
                0x45: bool(loaded & operand),
            }[operation]
            at += if_so if holds else if_not


@pytest.mark.parametrize("abi_name", ABIS)
def test_what_reaches_out_is_refused_and_what_every_program_needs_is_not(abi_name: str) -> None:
    for name in refused():
        if number(name, abi_name) is not None:
            assert verdict(abi_name, name) == DENIED, name
    for name in ABSENT:
        assert verdict(abi_name, name) == NO_SUCH_CALL
    for numbers in (READ, MMAP, FUTEX):
        assert verdict(abi_name, numbers[abi_name]) == ALLOWED


@pytest.mark.parametrize("abi_name", ABIS)
def test_the_calls_of_another_architecture_end_the_process(abi_name: str) -> None:
    for other in ABIS:
        if other != abi_name:
            assert verdict(abi_name, READ[abi_name], word=WORDS[other]) == KILLED


def test_the_third_set_of_numbers_of_x86_is_not_there() -> None:
    assert verdict("x86_64", 0x40000000 | 41) == NO_SUCH_CALL


@pytest.mark.parametrize("abi_name", ABIS)
def test_a_thread_may_begin_and_a_process_may_not(abi_name: str) -> None:
    threads = 0x00010000 | 0x00000100
    assert verdict(abi_name, "clone", threads) == ALLOWED
    assert verdict(abi_name, "clone", 17) == DENIED


@pytest.mark.parametrize("abi_name", ABIS)
@pytest.mark.parametrize("name", ["kill", "tgkill", "prlimit64", "sched_setaffinity"])
def test_a_process_names_only_itself(abi_name: str, name: str) -> None:
    assert verdict(abi_name, name, PID) == ALLOWED
    assert verdict(abi_name, name, 0) == ALLOWED
    for other in (1, PID + 1, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):
        assert verdict(abi_name, name, other) == DENIED


@pytest.mark.parametrize("abi_name", ABIS)
def test_a_file_is_opened_but_not_emptied_by_a_reader(abi_name: str) -> None:
    flags = {
        os.O_RDONLY: ALLOWED,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC: ALLOWED,
        os.O_RDONLY | os.O_TRUNC: DENIED,
        os.O_RDONLY | os.O_TRUNC | os.O_CREAT: DENIED,
    }
    for given_flags, expected in flags.items():
        assert verdict(abi_name, "openat", 0, 0, given_flags) == expected
        if number("open", abi_name) is not None:
            assert verdict(abi_name, "open", 0, given_flags) == expected


@given(abi_name=st.sampled_from(ABIS), call=st.integers(0, 0x3FFFFFFF), first=st.integers(0))
def test_every_call_ends_in_a_verdict(abi_name: str, call: int, first: int) -> None:
    known = {DENIED, NO_SUCH_CALL, ALLOWED}

    assert verdict(abi_name, call, first & ((1 << 64) - 1)) in known


@pytest.mark.parametrize(
    ("machine", "is_64_bit", "name"),
    [
        ("x86_64", True, "x86_64"),
        ("x86_64", False, "i386"),
        ("i686", False, "i386"),
        ("aarch64", True, "aarch64"),
        ("aarch64", False, "arm"),
        ("armv7l", False, "arm"),
        ("riscv64", True, ""),
    ],
)
def test_a_32_bit_system_on_a_64_bit_kernel_is_told_by_its_pointers(
    machine: str, is_64_bit: bool, name: str
) -> None:
    assert abi(machine, is_64_bit=is_64_bit) == name


def test_all_but_the_hidden_is_readable_by_the_fewest_paths(tmp_path: Path) -> None:
    for name in ("home/identity", "home/cache/deep", "other/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "link").symlink_to("identity")

    found = set(readable([tmp_path / "home" / "identity"], str(tmp_path)))

    assert found == {str(tmp_path / "home" / "cache"), str(tmp_path / "other")}
    assert list(readable([], "/")) == ["/"]


def test_what_lies_behind_a_folder_that_cannot_be_listed_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(folder: str) -> Any:
        if folder.endswith("private"):
            raise PermissionError(folder)
        return real(folder)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    (tmp_path / "private" / "home" / "identity").mkdir(parents=True)
    (tmp_path / "private" / "home" / "cache").mkdir()

    found = list(readable([tmp_path / "private" / "home" / "identity"], str(tmp_path)))

    assert found == [str(tmp_path / "private" / "home" / "cache")]
