"""Machines as their kernels describe them in ../machines/NAME/sysfs.txt, laid out on disk.

A line there is "PATH: VALUE", with "|" for the end of a line within the value, or
"PATH -> TARGET" for a symbolic link; "#" begins a line for people.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, Callable

import pytest

MACHINES = Path(__file__).parent.parent / "machines"

Machine = Callable[[str], Path]
Firmware = Callable[[int, int, bytearray], None]

GENCMD_TAG = 0x0003_0080
SUCCESS = 0x8000_0000


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Lays out the machine of that name and gives its root."""

    def lay_out(name: str) -> Path:
        root = tmp_path / name
        for line in (MACHINES / name / "sysfs.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            path, is_link, target = line.partition(" -> ")
            if is_link:
                link = root / path
                link.parent.mkdir(parents=True, exist_ok=True)
                # The kernel's class folders are links themselves, so its targets do not fit here.
                link.symlink_to(root / "sys" / target.replace("../", ""))
            else:
                path, _, value = line.partition(": ")
                put(root / path, value.replace("|", "\n").replace("\\0", "\0"))
        return root

    return lay_out


def put(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n", encoding="ascii")


@pytest.fixture
def pmic_answer() -> str:
    """What a Raspberry Pi 5 says of its rails."""
    return (MACHINES / "raspberry-pi-5" / "pmic_read_adc.txt").read_text(encoding="ascii")


@pytest.fixture
def firmware() -> Firmware:
    """An ioctl of a firmware that answers every text command with what is in the device file."""

    def ioctl(file: int, request: int, message: bytearray) -> None:
        size, code, tag, value_bytes, _ = struct.unpack_from("=5I", message)
        assert (request & 0xFFFF, size, code) == (100 << 8, len(message), 0)
        if tag != GENCMD_TAG:
            return
        answer = bytes(4) + os.read(file, value_bytes - 4)
        message[20 : 20 + value_bytes] = answer.ljust(value_bytes, b"\0")
        struct.pack_into("=I", message, 4, SUCCESS)
        struct.pack_into("=I", message, 16, SUCCESS | len(answer))

    return ioctl


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From then on no file of that name may be opened; root could not be kept out otherwise."""

    def forbid(name: str) -> None:
        read_text, os_open = Path.read_text, os.open

        def guard(path: Any) -> None:
            if Path(path).name == name:
                raise PermissionError(13, "Permission denied", str(path))

        def guarded_read(path: Path, *args: Any, **options: Any) -> str:
            guard(path)
            return read_text(path, *args, **options)

        def guarded_open(path: Any, *args: Any, **options: Any) -> int:
            guard(path)
            return os_open(path, *args, **options)

        monkeypatch.setattr(Path, "read_text", guarded_read)
        monkeypatch.setattr(os, "open", guarded_open)

    return forbid


class ManualClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
