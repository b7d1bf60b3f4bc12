"""Limits of the CPU: what is in force now, what set in during a job, and what proves nothing."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.sensors.mailbox import Mailbox
from device_agent.sensors.thermal_watch import ThermalWatch
from device_agent.sensors.throttle import ThrottleWatch, throttle_counts

GET_THROTTLED = 0x0003_0046
CURRENT = ("undervoltage", "frequency_capped", "throttled", "soft_temperature_limit")


class Firmware:
    """Answers the mailbox of a Raspberry Pi with a throttle word."""

    def __init__(self, folder: Path, word: int = 0) -> None:
        self.word = word
        self.device = folder / "vcio"
        self.device.write_bytes(b"")

    def mailbox(self) -> Mailbox:
        return Mailbox(self.device, ioctl=self._answer)

    def _answer(self, _file: int, _request: int, message: bytearray) -> int:
        _, _, tag, size, _ = struct.unpack_from("=IIIII", message)
        assert (tag, size) == (GET_THROTTLED, 4)
        struct.pack_into("=IIIIII", message, 0, len(message), 1 << 31, tag, 4, 1 << 31, self.word)
        return 0


@pytest.fixture
def firmware(tmp_path: Path) -> Any:
    return Firmware(tmp_path)


@pytest.fixture
def watch(firmware: Firmware, tmp_path: Path) -> Any:
    return ThrottleWatch(tmp_path / "sys", firmware.mailbox())


@pytest.mark.parametrize(("bit", "name"), list(enumerate(CURRENT)))
def test_the_firmware_names_the_limit_in_force(
    firmware: Firmware, watch: ThrottleWatch, bit: int, name: str
) -> None:
    firmware.word = 1 << bit

    assert watch.now() == (name,)


def test_bits_that_were_sticky_before_prove_nothing(firmware: Firmware, tmp_path: Path) -> None:
    firmware.word = 0x000F_0000
    watch = ThrottleWatch(tmp_path / "sys", firmware.mailbox())

    assert watch.now() == ()
    throttling = watch.finish()
    assert (throttling.limits, throttling.events) == ((), 0)


def test_a_limit_that_came_and_went_between_two_looks_left_its_sticky_bit(
    firmware: Firmware, watch: ThrottleWatch
) -> None:
    firmware.word = 0x0001_0000

    assert watch.now() == ()
    throttling = watch.finish()
    assert (throttling.limits, throttling.events) == (("undervoltage",), 1)


def test_every_onset_of_a_limit_is_one_event(firmware: Firmware, watch: ThrottleWatch) -> None:
    for word in (0x0, 0x1_0001, 0x1_0001, 0x1_0000, 0x5_0005, 0x5_0000):
        firmware.word = word
        watch.now()

    throttling = watch.finish()

    assert throttling.limits == ("undervoltage", "throttled")
    assert throttling.events == 3


def test_a_kernel_that_shows_the_word_in_sysfs_needs_no_mailbox(tmp_path: Path) -> None:
    word = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    word.parent.mkdir(parents=True)
    word.write_text("50005\n")
    watch = ThrottleWatch(tmp_path / "sys", Mailbox(tmp_path / "no-vcio"))

    assert watch.now() == ("undervoltage", "throttled")


@pytest.mark.parametrize("text", ["", "no word"])
def test_a_word_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    word = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    word.parent.mkdir(parents=True)
    word.write_text(text)
    watch = ThrottleWatch(tmp_path / "sys", Mailbox(tmp_path / "no-vcio"))

    assert not watch.works
    assert watch.finish().events is None


def cpu(sys: Path, number: int, *, core: int, core_count: int, package_count: int) -> None:
    folder = sys / f"devices/system/cpu/cpu{number}"
    for name, value in {
        "topology/core_id": core,
        "topology/physical_package_id": 0,
        "thermal_throttle/core_throttle_count": core_count,
        "thermal_throttle/package_throttle_count": package_count,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{value}\n")


def test_counters_of_x86_count_once_for_all_threads_of_a_core(tmp_path: Path) -> None:
    for number in range(4):
        cpu(tmp_path, number, core=number // 2, core_count=7, package_count=11)

    assert sum(throttle_counts(tmp_path).values()) == 7 + 7 + 11


def test_counters_of_x86_are_read_as_differences(tmp_path: Path) -> None:
    for number in range(4):
        cpu(tmp_path, number, core=number // 2, core_count=700, package_count=1100)
    watch = ThrottleWatch(tmp_path, Mailbox(tmp_path / "no-vcio"))
    quiet = watch.now()
    cpu(tmp_path, 2, core=1, core_count=703, package_count=1100)
    cpu(tmp_path, 3, core=1, core_count=703, package_count=1100)

    busy, calm = watch.now(), watch.now()

    assert (quiet, busy, calm) == ((), ("throttled",), ())
    throttling = watch.finish()
    assert (throttling.limits, throttling.events) == (("throttled",), 3)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=8))
def test_counters_that_go_back_are_never_negative_events(
    tmp_path_factory: pytest.TempPathFactory, counts: Any
) -> None:
    sys = tmp_path_factory.mktemp("sys")
    cpu(sys, 0, core=0, core_count=counts[0], package_count=0)
    watch = ThrottleWatch(sys, Mailbox(sys / "no-vcio"))
    for count in counts:
        cpu(sys, 0, core=0, core_count=count, package_count=0)
        watch.now()

    events = watch.finish().events

    assert events == sum(max(0, b - a) for a, b in zip(counts, counts[1:]))


def test_where_nothing_tells_there_are_no_events_and_not_zero(tmp_path: Path) -> None:
    watch = ThrottleWatch(tmp_path, Mailbox(tmp_path / "no-vcio"))

    throttling = watch.finish()

    assert not watch.works
    assert (throttling.limits, throttling.events) == ((), None)


class Thermometer:
    """Gives one temperature after the other, then the last one for ever."""

    def __init__(self, *celsius: float | None) -> None:
        self._left = list(celsius)

    def __call__(self) -> float | None:
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


def test_a_job_has_the_temperatures_of_start_and_end_and_the_highest(tmp_path: Path) -> None:
    throttle = ThrottleWatch(tmp_path, Mailbox(tmp_path / "no-vcio"))
    watch = ThermalWatch(Thermometer(-9.0, -4.0, -6.0), throttle)
    watch.look()

    thermal = watch.finish(cooled_seconds=2.5)

    assert (thermal.start_celsius, thermal.max_celsius, thermal.end_celsius) == (-9.0, -4.0, -6.0)
    assert thermal.cooled_seconds == pytest.approx(2.5)


def test_a_sensor_that_is_away_for_a_moment_does_not_lose_the_highest_temperature(
    tmp_path: Path,
) -> None:
    throttle = ThrottleWatch(tmp_path, Mailbox(tmp_path / "no-vcio"))
    watch = ThermalWatch(Thermometer(None, 61.0, None), throttle)
    watch.look()

    thermal = watch.finish()

    assert (thermal.start_celsius, thermal.max_celsius, thermal.end_celsius) == (None, 61.0, None)


def test_the_watch_looks_from_a_thread_while_something_else_happens(
    firmware: Firmware, tmp_path: Path
) -> None:
    throttle = ThrottleWatch(tmp_path / "sys", firmware.mailbox())
    watch = ThermalWatch(Thermometer(40.0), throttle)

    with watch.looking(interval_seconds=0.01):
        firmware.word = 0x4_0004
        time.sleep(0.2)
        firmware.word = 0x4_0000
        time.sleep(0.2)

    thermal = watch.finish()
    assert (thermal.throttled, thermal.throttle_events) == (("throttled",), 1)
    assert not any(thread.name == "thermal-watch" for thread in threading.enumerate())
