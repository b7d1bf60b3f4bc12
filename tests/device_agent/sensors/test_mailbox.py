from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.mailbox import Mailbox

SUCCESS = 0x8000_0000


class Firmware:
    """Answers the property tags that it is given, and remembers the questions."""

    def __init__(self, **answers: tuple[int, ...]) -> None:
        self._answers = {int(tag[1:], 16): words for tag, words in answers.items()}
        self.questions: list[tuple[int, ...]] = []

    def __call__(self, file: int, request: int, message: bytearray) -> None:
        words = struct.unpack(f"={len(message) // 4}I", message)
        self.questions.append(words)
        answer = self._answers.get(words[2])
        # A firmware that does not know a tag still says that it read the message.
        struct.pack_into("=I", message, 4, SUCCESS)
        if answer is not None:
            struct.pack_into("=I", message, 16, SUCCESS | len(answer) * 4)
            struct.pack_into(f"={len(answer)}I", message, 20, *answer)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "vcio"
    path.touch()
    return path


def test_the_throttle_word_is_read_and_nothing_in_it_is_forgotten(device: Path) -> None:
    firmware = Firmware(x30046=(0x50005,))

    assert Mailbox(device, ioctl=firmware).get_throttled() == 0x50005

    assert firmware.questions == [(28, 0, 0x30046, 4, 0, 0, 0)]


def test_the_clock_of_the_cores_is_measured_in_hertz(device: Path) -> None:
    firmware = Firmware(x30047=(3, 600_000_000))

    assert Mailbox(device, ioctl=firmware).measure_clock_hertz() == 600_000_000

    assert firmware.questions == [(32, 0, 0x30047, 8, 0, 3, 0, 0)]


def test_a_tag_that_the_firmware_does_not_know_is_an_error(device: Path) -> None:
    with pytest.raises(SensorUnavailableError, match="does not know the property 0x00030006"):
        Mailbox(device, ioctl=Firmware()).property_tag(0x30006, (0, 0))


@pytest.mark.parametrize(
    ("method", "text", "value"),
    [
        ("get_throttled", "throttled=0x50005", 0x50005),
        ("get_throttled", "throttled=0x0", 0),
        ("measure_clock_hertz", "frequency(0)=1500398464", 1_500_398_464),
    ],
)
def test_where_only_text_is_allowed_the_same_is_asked_in_text(
    tmp_path: Path, firmware: Any, method: str, text: str, value: int
) -> None:
    (tmp_path / "vcio_gencmd").write_text(text, encoding="ascii")

    assert getattr(Mailbox(tmp_path / "vcio", ioctl=firmware), method)() == value


def test_an_answer_in_text_that_is_something_else_is_an_error(
    tmp_path: Path, firmware: Any
) -> None:
    (tmp_path / "vcio_gencmd").write_text("VCHI initialization failed", encoding="ascii")

    with pytest.raises(SensorUnavailableError, match="VCHI initialization failed"):
        Mailbox(tmp_path / "vcio", ioctl=firmware).get_throttled()


def test_a_text_command_carries_its_words_to_the_firmware(device: Path) -> None:
    firmware = Firmware(x30080=(0, int.from_bytes(b"ok\0\0", "little")))

    assert Mailbox(device, ioctl=firmware).gencmd("measure_temp") == "ok"

    (question,) = firmware.questions
    assert question[:5] == (4120, 0, 0x30080, 4096, 0)
    assert struct.pack("=3I", *question[6:9]) == b"measure_temp"


def test_an_error_of_the_firmware_is_an_error(device: Path) -> None:
    firmware = Firmware(x30080=(1, 0))

    with pytest.raises(SensorUnavailableError, match="refuses the command nonsense"):
        Mailbox(device, ioctl=firmware).gencmd("nonsense")


def test_a_machine_without_a_mailbox_says_so(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailableError, match="no Raspberry Pi"):
        Mailbox(tmp_path / "vcio").get_throttled()


def test_a_missing_permission_names_the_group(device: Path, deny: Any) -> None:
    deny("vcio")

    with pytest.raises(SensorUnavailableError, match="usermod -aG video"):
        Mailbox(device, ioctl=Firmware()).get_throttled()


def test_a_file_that_is_no_mailbox_does_not_answer(device: Path) -> None:
    with pytest.raises(SensorUnavailableError, match="does not answer"):
        Mailbox(device).gencmd("get_throttled")
