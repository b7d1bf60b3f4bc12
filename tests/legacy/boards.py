"""The old machines that are shown: what Debian they run, and which CPU is emulated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.legacy.errors import LegacyError

_FIXTURES = Path(__file__).resolve().parent / "cpuinfo"
_QEMU = {"armhf": "qemu-arm", "arm64": "qemu-aarch64", "i386": "qemu-i386", "amd64": "qemu-x86_64"}
_ARCHITECTURES = {"armhf": "armv7l", "arm64": "aarch64", "i386": "i686", "amd64": "x86_64"}
_PYTHONS = {"bullseye": "3.9", "bookworm": "3.11"}


@dataclass(frozen=True)
class Board:
    """`debian` is Debian's name of the architecture, `cpu` qemu's name of the CPU."""

    name: str
    what: str
    debian: str
    suite: str
    cpu: str

    @property
    def architecture(self) -> str:
        """As genba names it."""
        return _ARCHITECTURES[self.debian]

    @property
    def python(self) -> str:
        """The Python of that release of Debian."""
        return _PYTHONS[self.suite]

    @property
    def qemu(self) -> str:
        """The emulator's program."""
        return _QEMU[self.debian]

    @property
    def is_arm(self) -> bool:
        return self.debian in ("armhf", "arm64")

    @property
    def cpuinfo(self) -> Path | None:
        """What /proc/cpuinfo says on such a machine; None where the emulator says it itself."""
        return None if self.is_arm else _FIXTURES / f"{self.cpu}.txt"


BOARDS = (
    Board("pi2", "Raspberry Pi 2, 32-bit", "armhf", "bookworm", "cortex-a7"),
    Board("beaglebone", "BeagleBone, Cortex-A8", "armhf", "bookworm", "cortex-a8"),
    Board("pi4", "Raspberry Pi 4, 64-bit", "arm64", "bookworm", "cortex-a72"),
    Board("atom32", "Atom N270, 32-bit", "i386", "bookworm", "n270"),
    Board("core2", "Core 2 Duo (2006)", "amd64", "bookworm", "core2duo"),
    Board("nehalem", "Nehalem (2008)", "amd64", "bookworm", "Nehalem"),
    Board("haswell", "Haswell (2013)", "amd64", "bookworm", "Haswell"),
    Board("pi4-debian11", "Raspberry Pi 4, Debian 11", "arm64", "bullseye", "cortex-a72"),
    Board("core2-debian11", "Core 2 Duo, Debian 11", "amd64", "bullseye", "core2duo"),
)


def board(name: str) -> Board:
    """The board of that name. Raises LegacyError with the names there are."""
    for one in BOARDS:
        if one.name == name:
            return one
    raise LegacyError(f"there is no board {name!r}: {', '.join(one.name for one in BOARDS)}")
