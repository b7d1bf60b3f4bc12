from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import PowerSettings
from device_agent.sensors.hwmon import Ina, PowerZ

HOBBY_SHUNT = PowerSettings(shunt_ohm={"ina219": 0.1})
PI_MODEL = "sys/firmware/devicetree/base/model"


def chip(root: Path, number: int, name: str, address: str = "", **files: object) -> Path:
    folder = root / f"sys/class/hwmon/hwmon{number}"
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in {"name": name, **files}.items():
        (folder / file).write_text(f"{value}\n", encoding="ascii")
    if address:
        device = root / "sys/devices" / address
        device.mkdir(parents=True)
        (folder / "device").symlink_to(device)
    return folder


def ina(root: Path, **settings: Any) -> Ina:
    return Ina(root / "sys", PowerSettings(**settings))


def test_the_real_shunt_corrects_what_the_driver_assumed(machine: Any) -> None:
    root = machine("raspberry-pi-3-ina219")

    assert Ina(root / "sys", HOBBY_SHUNT).read() == pytest.approx(1.704)


def test_a_shunt_that_the_driver_was_told_is_not_corrected_twice(machine: Any) -> None:
    root = machine("raspberry-pi-3-ina219")
    folder = root / "sys/class/hwmon/hwmon2"
    (folder / "shunt_resistor").write_text("100000", encoding="ascii")
    (folder / "power1_input").write_text("1704000", encoding="ascii")

    assert Ina(root / "sys", HOBBY_SHUNT).read() == pytest.approx(1.704)
    assert ina(root).read() == pytest.approx(1.704)


def test_a_shunt_off_by_ten_is_found_by_what_the_board_can_draw(machine: Any) -> None:
    root = machine("raspberry-pi-3-ina219")

    with pytest.raises(SensorUnavailableError, match=r"17 W.*Raspberry Pi 3.*shunt_ohm"):
        ina(root)


@pytest.mark.parametrize(
    ("model", "idle_watts"),
    [
        ("Raspberry Pi 2 Model B Rev 1.1", 1.1),
        ("Raspberry Pi 3 Model B Rev 1.2", 1.4),
        ("Raspberry Pi 4 Model B Rev 1.4", 2.7),
        ("Raspberry Pi 5 Model B Rev 1.0", 2.9),
        ("Raspberry Pi Compute Module 4 Rev 1.0", 2.0),
    ],
)
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_an_idle_pi_betrays_a_shunt_off_by_ten(
    machine: Any, model: str, idle_watts: float, factor: float
) -> None:
    root = machine("raspberry-pi-3-ina219")
    (root / PI_MODEL).write_text(f"{model}\0", encoding="ascii")
    power = root / "sys/class/hwmon/hwmon2/power1_input"
    power.write_text(str(int(idle_watts * 1e6)), encoding="ascii")
    right = ina(root).read()
    power.write_text(str(int(idle_watts * factor * 1e6)), encoding="ascii")

    with pytest.raises(SensorUnavailableError, match="shunt"):
        ina(root)
    assert right == pytest.approx(idle_watts)


@pytest.mark.parametrize("microwatts", [90_000, 61_000_000, -5_000_000])
def test_without_a_shunt_value_only_a_small_board_is_believed(
    tmp_path: Path, microwatts: int
) -> None:
    chip(tmp_path, 0, "ina219", power1_input=microwatts, shunt_resistor=10_000)

    with pytest.raises(SensorUnavailableError, match=r"a small board draws 0\.1 to 60 W"):
        ina(tmp_path)


def test_with_a_shunt_value_a_large_board_is_believed(tmp_path: Path) -> None:
    chip(tmp_path, 0, "ina226", power1_input=96_000_000, shunt_resistor=2_000)

    source = ina(tmp_path, shunt_ohm={"ina226": 0.002})

    assert source.read() == pytest.approx(96.0)
    assert source.max_watts == pytest.approx(1000.0)


def test_volts_times_amperes_serve_where_the_driver_gives_no_power(tmp_path: Path) -> None:
    chip(tmp_path, 0, "ina231", in0_input=25, in1_input=12_000, curr1_input=2_500)

    assert ina(tmp_path).read() == pytest.approx(30.0)


def test_chips_are_found_by_name_when_their_number_moved(machine: Any) -> None:
    root = machine("raspberry-pi-3-ina219")
    hwmon = root / "sys/class/hwmon"
    (hwmon / "hwmon0").rename(hwmon / "hwmon9")
    (hwmon / "hwmon2").rename(hwmon / "hwmon0")

    source = Ina(root / "sys", HOBBY_SHUNT)

    assert source.name == "ina219"
    assert source.read() == pytest.approx(1.704)


def test_a_number_that_moves_while_a_source_is_open_is_an_error_and_no_other_chip(
    machine: Any,
) -> None:
    root = machine("raspberry-pi-3-ina219")
    hwmon = root / "sys/class/hwmon"
    source = Ina(root / "sys", HOBBY_SHUNT)
    (hwmon / "hwmon2").rename(hwmon / "hwmon3")
    (hwmon / "hwmon1").rename(hwmon / "hwmon2")

    with pytest.raises(SensorUnavailableError, match="power1_input"):
        source.read()


def test_the_bus_is_read_no_faster_than_the_chip_converts(tmp_path: Path) -> None:
    folder = chip(tmp_path, 0, "ina226", power1_input=5_000_000, update_interval=140)
    slow = ina(tmp_path)
    (folder / "update_interval").write_text("2", encoding="ascii")

    assert slow.interval_seconds == pytest.approx(0.14)
    assert ina(tmp_path).interval_seconds == pytest.approx(0.02)


def test_which_of_several_chips_supplies_the_board_must_be_said(tmp_path: Path) -> None:
    chip(tmp_path, 0, "ina219", "1-0040", power1_input=3_000_000, shunt_resistor=10_000)
    chip(tmp_path, 1, "ina219", "1-0041", power1_input=800_000, shunt_resistor=10_000)

    with pytest.raises(SensorUnavailableError, match=r"ina219@1-0040, ina219@1-0041.*board_supply"):
        ina(tmp_path)


def test_chips_named_as_the_supply_are_added_up(tmp_path: Path) -> None:
    chip(tmp_path, 0, "ina219", "1-0040", power1_input=3_000_000, shunt_resistor=10_000)
    chip(tmp_path, 1, "ina219", "1-0041", power1_input=800_000, shunt_resistor=10_000)
    chip(tmp_path, 2, "ina226", "1-0044", power1_input=7_000_000, shunt_resistor=10_000)

    one = ina(tmp_path, board_supply=("ina219@1-0041",))
    two = ina(tmp_path, board_supply=("ina226", "ina219@1-0040"))
    corrected = ina(tmp_path, board_supply=("ina219@1-0040",), shunt_ohm={"ina219@1-0040": 0.005})

    assert one.name == "ina219@1-0041"
    assert one.read() == pytest.approx(0.8)
    assert two.name == "ina219@1-0040+ina226"
    assert two.read() == pytest.approx(10.0)
    assert corrected.read() == pytest.approx(6.0)


def test_a_supply_that_the_board_does_not_have_is_an_error(machine: Any) -> None:
    root = machine("raspberry-pi-3-ina219")

    with pytest.raises(SensorUnavailableError, match="names ina226, and this board has ina219"):
        ina(root, board_supply=("ina226",))


def test_a_chip_with_its_shunt_inside_needs_none_and_takes_none(tmp_path: Path) -> None:
    chip(tmp_path, 0, "ina260", power1_input=75_000_000)

    assert ina(tmp_path).read() == pytest.approx(75.0)
    with pytest.raises(SensorUnavailableError, match="does not tell which shunt"):
        ina(tmp_path, shunt_ohm={"ina260": 0.1})


def test_a_jetson_is_measured_in_front_of_the_whole_board(machine: Any) -> None:
    source = ina(machine("jetson-orin-nano"))

    assert source.read() == pytest.approx(5.064 * 1.016)
    assert source.max_watts == pytest.approx(1000.0)


def test_a_chip_in_front_of_the_whole_board_is_known_among_others(machine: Any) -> None:
    root = machine("jetson-orin-nano")
    chip(root, 7, "ina219", "7-0044", power1_input=500_000, shunt_resistor=10_000)

    assert ina(root).name == "ina3221"


def test_channels_that_are_named_are_added_up(machine: Any) -> None:
    source = ina(machine("jetson-orin-nano"), channels={"ina3221": ("VDD_CPU_GPU_CV", "VDD_SOC")})

    assert source.read() == pytest.approx(5.064 * 0.168 + 5.056 * 0.288)
    assert source.max_watts == pytest.approx(60.0)


def test_the_only_enabled_channel_is_the_supply_and_its_shunt_may_be_corrected(
    machine: Any,
) -> None:
    root = machine("jetson-orin-nano")
    folder = root / "sys/class/hwmon/hwmon1"
    for number in (1, 3):
        (folder / f"in{number}_enable").write_text("0", encoding="ascii")
    (folder / "in2_label").unlink()

    assert ina(root).read() == pytest.approx(5.064 * 0.168)
    assert ina(root, shunt_ohm={"ina3221": 0.0025}).read() == pytest.approx(5.064 * 0.336)


@pytest.mark.parametrize("channels", [{}, {"ina3221": ("VDD_12V",)}, {"ina3221": ()}])
def test_channels_that_are_not_known_must_be_named(machine: Any, channels: Any) -> None:
    root = machine("jetson-orin-nano")
    (root / "sys/class/hwmon/hwmon1/in1_label").write_text("NC", encoding="ascii")

    with pytest.raises(SensorUnavailableError, match="name some of VDD_CPU_GPU_CV, VDD_SOC"):
        ina(root, channels=channels)


def test_a_chip_that_does_not_answer_on_its_bus_is_an_error(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Ina(machine("raspberry-pi-3-ina219") / "sys", HOBBY_SHUNT)

    def fail(path: Path, **_: Any) -> str:
        raise OSError(121, "Remote I/O error", str(path))

    monkeypatch.setattr(Path, "read_text", fail)

    with pytest.raises(SensorUnavailableError, match="Remote I/O error"):
        source.read()


def test_a_meter_in_another_cable_is_not_the_board(machine: Any) -> None:
    root = machine("raspberry-pi-4-powerz")
    (root / "sys/class/hwmon/hwmon2/curr1_input").write_text("0", encoding="ascii")

    with pytest.raises(SensorUnavailableError, match="not in this board's supply"):
        PowerZ(root / "sys")


def test_two_meters_are_one_too_many(machine: Any) -> None:
    root = machine("raspberry-pi-4-powerz")
    chip(root, 3, "powerz", in0_input=5_000, curr1_input=100)

    with pytest.raises(SensorUnavailableError, match="more than one"):
        PowerZ(root / "sys")
