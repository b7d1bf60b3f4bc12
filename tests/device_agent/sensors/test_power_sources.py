"""One contract for every source of power, and which of them an agent finds on a machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import PowerSettings, PowerSource, Quantity
from device_agent.sensors.battery import Battery
from device_agent.sensors.hwmon import Ina, PowerZ
from device_agent.sensors.mailbox import Mailbox
from device_agent.sensors.pmic import Pmic
from device_agent.sensors.power import open_power_sources, power_source_facts, power_sources
from device_agent.sensors.rapl import Rapl

HOBBY_SHUNT = PowerSettings(shunt_ohm={"ina219": 0.1})


@dataclass(frozen=True)
class Case:
    """A source on a recorded machine, the file that it reads and a value that cannot be."""

    name: str
    machine: str
    value_file: str
    impossible: str
    watts: float | None
    open: Callable[[Any], PowerSource]


CASES = [
    Case(
        "rapl",
        "optiplex-7050",
        "sys/class/powercap/intel-rapl:0/energy_uj",
        "51882156332",
        None,
        lambda board: Rapl(board.sys, board.root / "proc/cpuinfo", clock=board.clock),
    ),
    Case(
        "ina219",
        "raspberry-pi-3-ina219",
        "sys/class/hwmon/hwmon2/power1_input",
        "170400000",
        1.704,
        lambda board: Ina(board.sys, HOBBY_SHUNT),
    ),
    Case(
        "ina3221",
        "jetson-orin-nano",
        "sys/class/hwmon/hwmon1/curr1_input",
        "1016000",
        5.064 * 1.016,
        lambda board: Ina(board.sys),
    ),
    Case(
        "powerz",
        "raspberry-pi-4-powerz",
        "sys/class/hwmon/hwmon2/curr1_input",
        "58800",
        5.102 * 0.588,
        lambda board: PowerZ(board.sys),
    ),
    Case(
        "battery",
        "thinkpad-t480",
        "sys/class/power_supply/BAT0/power_now",
        "6213000000",
        6.213,
        lambda board: Battery(board.sys),
    ),
    Case(
        "pmic",
        "raspberry-pi-5",
        "dev/vcio",
        "VDD_CORE_A current(7)=94.31A VDD_CORE_V volt(15)=0.76V",
        3.134,
        lambda board: Pmic(Mailbox(board.root / "dev/vcio", ioctl=board.firmware).gencmd),
    ),
]


class Board:
    """A recorded machine with the source under test."""

    def __init__(self, case: Case, root: Path, clock: Any, firmware: Any) -> None:
        self.root, self.clock, self.firmware = root, clock, firmware
        self.sys = root / "sys"
        self.case = case
        self.value_file = root / case.value_file

    def open(self) -> PowerSource:
        return self.case.open(self)

    def say(self, text: str) -> None:
        self.value_file.write_text(text, encoding="ascii")
        self.clock.sleep(1.0)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def board(
    request: Any, machine: Any, tmp_path: Path, clock: Any, firmware: Any, pmic_answer: str
) -> Board:
    case = request.param
    if case.name != "pmic":
        return Board(case, machine(case.machine), clock, firmware)
    device = tmp_path / case.machine / "dev" / "vcio"
    device.parent.mkdir(parents=True)
    device.write_text(pmic_answer, encoding="ascii")
    return Board(case, tmp_path / case.machine, clock, firmware)


def test_every_source_says_what_it_is(board: Board) -> None:
    source = board.open()

    assert source.name == board.case.name
    assert source.scope in ("package", "board", "wall")
    assert source.kind in ("measured", "derived", "estimated")
    assert 1.0 <= source.max_watts <= 1000.0
    assert 0.01 <= source.interval_seconds <= 1.0


def test_every_source_gives_watts_or_a_growing_sum_of_joules(board: Board) -> None:
    source = board.open()

    first, second = source.read(), source.read()

    if source.quantity is Quantity.JOULES:
        assert second >= first >= 0.0
        assert board.case.watts is None
    else:
        assert first == pytest.approx(board.case.watts, rel=0.01)


def test_every_source_tells_which_permission_is_missing(board: Board, deny: Any) -> None:
    source = board.open()
    deny(board.value_file.name)

    with pytest.raises(SensorUnavailableError, match=f"no permission .*{board.value_file.name}"):
        source.read()
    with pytest.raises(SensorUnavailableError, match=f"no permission .*{board.value_file.name}"):
        board.open()


def test_every_source_refuses_an_impossible_power(board: Board) -> None:
    source = board.open()
    board.say(board.case.impossible)

    with pytest.raises(SensorUnavailableError, match=r"\d W"):
        source.read()


@pytest.mark.parametrize("text", ["", "nothing"])
def test_every_source_refuses_what_is_no_number(board: Board, text: str) -> None:
    source = board.open()
    board.say(text)

    with pytest.raises(SensorUnavailableError):
        source.read()
    with pytest.raises(SensorUnavailableError):
        board.open()


def test_every_source_can_be_unplugged(board: Board) -> None:
    source = board.open()
    folder = board.value_file.parent
    shutil.rmtree(folder)

    with pytest.raises(SensorUnavailableError, match=folder.name):
        source.read()


def test_no_source_is_found_on_a_machine_without_it(board: Board) -> None:
    shutil.rmtree(board.root)

    with pytest.raises(SensorUnavailableError):
        board.open()


def test_a_machine_without_sensors_gives_a_reason_for_each(tmp_path: Path) -> None:
    sources = power_sources(root=tmp_path)

    facts = power_source_facts(sources)

    assert [fact.name for fact in facts] == ["ina", "powerz", "battery", "pmic", "rapl"]
    assert not any(fact.works for fact in facts)
    assert all(fact.why_not for fact in facts)
    assert open_power_sources(sources) == ()


def test_a_board_with_a_sensor_offers_it_under_its_own_name(machine: Any) -> None:
    sources = power_sources(HOBBY_SHUNT, machine("raspberry-pi-3-ina219"))

    opened = open_power_sources(sources)
    facts = power_source_facts(sources)

    assert [source.name for source in opened] == ["ina219"]
    assert [(fact.name, fact.why_not) for fact in facts if fact.works] == [("ina219", "")]


def test_a_counter_works_where_it_is_seen_to_move(machine: Any) -> None:
    root = machine("optiplex-7050")
    energy = root / "sys/class/powercap/intel-rapl:0/energy_uj"

    def run_for(seconds: float) -> None:
        joules = 20.0 * seconds
        energy.write_text(str(int(energy.read_text()) + int(joules * 1e6)), encoding="ascii")

    (source,) = open_power_sources(power_sources(root=root), sleep=run_for)

    assert source.name == "rapl"


def test_a_counter_that_stands_still_does_not_work(machine: Any) -> None:
    sources = power_sources(root=machine("optiplex-7050"))

    facts = {fact.name: fact for fact in power_source_facts(sources, sleep=lambda _: None)}

    assert not facts["rapl"].works
    assert "does not move" in facts["rapl"].why_not


def test_this_machine_can_be_asked() -> None:
    facts = power_source_facts()

    assert len(facts) == 5
    assert all(fact.works != bool(fact.why_not) for fact in facts)
