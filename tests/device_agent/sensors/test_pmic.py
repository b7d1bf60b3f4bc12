from __future__ import annotations

from typing import Any

import pytest

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.pmic import Pmic


def test_the_board_is_the_sum_of_its_rails_with_the_losses_before_them(pmic_answer: str) -> None:
    rails = 0.0
    for line in pmic_answer.splitlines()[:12]:
        rail = line.split("_A ")[0].strip()
        volts = next(text for text in pmic_answer.splitlines() if f" {rail}_V" in f" {text}")
        rails += float(line.split("=")[1][:-1]) * float(volts.split("=")[1][:-1])

    assert Pmic(lambda _: pmic_answer).read() == pytest.approx(1.1451 * rails + 0.5879)


def test_the_answer_of_a_later_firmware_is_understood() -> None:
    answer = "VDD_CORE_A current(7)=1.5A\nVDD_CORE_V voltage(15)=0.8V\n"

    assert Pmic(lambda _: answer).read() == pytest.approx(1.1451 * 1.2 + 0.5879)


def test_the_firmware_is_asked_for_nothing_else(pmic_answer: str) -> None:
    asked = []

    def gencmd(command: str) -> str:
        asked.append(command)
        return pmic_answer

    Pmic(gencmd).read()

    assert set(asked) == {"pmic_read_adc"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("EXT5V_V volt(24)=5.10V\nBATT_V volt(25)=0.0V", "no currents"),
        ("VDD_CORE_A current(7)=1.2A", "the current of VDD_CORE and not its voltage"),
        ("VDD_CORE_A current(7)=0.0A\nVDD_CORE_V volt(15)=0.7V", "0.00 W"),
        ("VDD_CORE_A current(7)=120.0A\nVDD_CORE_V volt(15)=0.8V", "96.00 W"),
        ("", "no currents"),
    ],
)
def test_an_answer_that_tells_no_power_is_refused(answer: str, reason: str) -> None:
    with pytest.raises(SensorUnavailableError, match=reason):
        Pmic(lambda _: answer)


def test_another_raspberry_pi_does_not_know_the_command(tmp_path: Any, firmware: Any) -> None:
    from device_agent.sensors.mailbox import Mailbox

    device = tmp_path / "vcio"
    device.write_text('error=1 error_msg="Command not registered"', encoding="ascii")

    with pytest.raises(SensorUnavailableError, match="Command not registered"):
        Pmic(Mailbox(device, ioctl=firmware).gencmd)
