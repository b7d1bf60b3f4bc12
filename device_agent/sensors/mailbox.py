"""Questions to the firmware of a Raspberry Pi, through the property mailbox of its kernel.

Message layout and tags: raspberrypi/firmware wiki, "Mailbox property interface"; the device files
and their ioctl: drivers/char/broadcom/vcio.c of the Raspberry Pi kernel. Kernels from 6.12 on also
have vcio_gencmd, which answers nothing but the text commands of vcgencmd; where it is there, vcio
is often kept for root.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.sysfs import is_there

VCIO = Path("/dev/vcio")

Ioctl = Callable[[int, int, bytearray], object]
"""Like fcntl.ioctl: the firmware's answer replaces the message in the bytearray."""

# _IOWR(100, 0, char *): a 32-bit program on a 64-bit kernel calls it with its own pointer size.
_REQUEST = (3 << 30) | (struct.calcsize("P") << 16) | (100 << 8)
_SUCCESS = 0x8000_0000

_GET_THROTTLED = 0x0003_0046
_GET_CLOCK_MEASURED = 0x0003_0047
_GET_GENCMD_RESULT = 0x0003_0080
_ARM_CLOCK = 3
_GENCMD_BYTES = 4096
# Size of the message, request code, tag, size of its values, request code of the tag.
_HEADER = struct.Struct("=IIIII")


class Mailbox:
    """The firmware's answers. Every call opens the device file and closes it again.

    Every method raises SensorUnavailableError, with the reason, where this is no Raspberry Pi,
    where the user may not open the file, or where the firmware does not know the question.
    """

    def __init__(self, device: Path = VCIO, *, ioctl: Ioctl = fcntl.ioctl) -> None:
        """`device` answers every question; its neighbour vcio_gencmd may answer those in text."""
        self._device = device
        self._text_device = device.with_name("vcio_gencmd")
        self._ioctl = ioctl

    def property_tag(self, tag: int, words: Sequence[int]) -> tuple[int, ...]:
        """The 32-bit answers to one tag, as many as there are `words` in the question."""
        form = f"={len(words)}I"
        return struct.unpack(form, self._exchange(self._device, tag, struct.pack(form, *words)))

    def get_throttled(self) -> int:
        """The throttle word: bits 0 to 3 are now, bits 16 to 19 since boot (they stay set)."""
        try:
            # The value sent is a mask of sticky bits that the firmware shall forget: none.
            return self.property_tag(_GET_THROTTLED, (0,))[0]
        except SensorUnavailableError:
            return self._number("get_throttled", r"throttled=0x([0-9a-fA-F]+)", base=16)

    def measure_clock_hertz(self) -> int:
        """The measured rate of the CPU cores' clock, true also while the firmware throttles."""
        try:
            return self.property_tag(_GET_CLOCK_MEASURED, (_ARM_CLOCK, 0))[1]
        except SensorUnavailableError:
            return self._number("measure_clock arm", r"frequency\(\d+\)=(\d+)", base=10)

    def gencmd(self, command: str) -> str:
        """What `vcgencmd COMMAND` prints."""
        question = (bytes(4) + command.encode("ascii")).ljust(_GENCMD_BYTES, b"\0")
        device = self._text_device if is_there(self._text_device) else self._device
        answer = self._exchange(device, _GET_GENCMD_RESULT, question)
        (error,) = struct.unpack_from("=I", answer)
        text = answer[4:].split(b"\0", 1)[0].decode("ascii", errors="replace").strip()
        if error or text.startswith("error="):
            raise SensorUnavailableError(
                f"the firmware of this board refuses the command {command} ({text or error})"
            )
        return text

    def _number(self, command: str, pattern: str, *, base: int) -> int:
        text = self.gencmd(command)
        match = re.search(pattern, text)
        if match is None:
            raise SensorUnavailableError(f"the firmware answers {command} with {text[:60]!r}")
        return int(match.group(1), base)

    def _exchange(self, device: Path, tag: int, values: bytes) -> bytes:
        size = _HEADER.size + len(values) + 4
        message = bytearray(_HEADER.pack(size, 0, tag, len(values), 0) + values + bytes(4))
        try:
            file = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._ioctl(file, _REQUEST, message)
            finally:
                os.close(file)
        except OSError as error:
            raise SensorUnavailableError(_why(device, error)) from error
        _, code, _, _, tag_code = _HEADER.unpack_from(message)
        # The firmware marks a tag that it answered; one that it does not know it leaves as it is.
        if code != _SUCCESS or not tag_code & _SUCCESS:
            raise SensorUnavailableError(
                f"the firmware of this board does not know the property {tag:#010x}"
            )
        return bytes(message[_HEADER.size : _HEADER.size + len(values)])


def _why(device: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"this is no Raspberry Pi, or its kernel has no mailbox ({device} is missing)"
    if isinstance(error, PermissionError):
        return (
            f"no permission for {device}: add the agent's user to the group video"
            " (sudo usermod -aG video USER) and start the agent again"
        )
    return f"{device} does not answer ({error.strerror})"
