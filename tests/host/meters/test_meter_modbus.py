"""Energy meters on Modbus: registers, and what a gateway may answer."""

import socket
import struct
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.device import MeterBinding
from host.meters import MeterError, MeterUsageError, open_meter
from host.meters.modbus import MODELS, Register, _decode

if TYPE_CHECKING:
    from tests.host.meters.conftest import Registers

KWH = 3.6e6


def words(kind: str, value: float) -> list[int]:
    content = struct.pack(f">{kind}", value)
    return [int.from_bytes(content[i : i + 2], "big") for i in range(0, len(content), 2)]


def opened(registers: "Registers", unit: int = 3, **options: str):
    url = f"modbus://127.0.0.1:{registers.port}/{unit}"
    return closing(open_meter(MeterBinding(url, {"timeout_seconds": "0.3", **options})))


@pytest.mark.parametrize(
    ("model", "table", "power", "energy"),
    [
        ("sdm120", "input", (12, words("f", 41.5)), (72, words("f", 1.25))),
        ("sdm230", "input", (12, words("f", 41.5)), (72, words("f", 1.25))),
        ("sdm630", "input", (52, words("f", 41.5)), (72, words("f", 1.25))),
        ("em111", "input", (4, words("i", 415)[::-1]), (16, words("i", 12)[::-1])),
        ("em112", "input", (4, words("i", 415)[::-1]), (16, words("i", 12)[::-1])),
        ("em340", "input", (40, words("i", 415)[::-1]), (52, words("i", 12)[::-1])),
        ("abb-b21", "holding", (0x5B14, words("i", 4150)), (0x5000, words("Q", 125))),
        ("abb-b23", "holding", (0x5B14, words("i", 4150)), (0x5000, words("Q", 125))),
        ("pac2200", "input", (65, words("f", 41.5)), (801, words("d", 1250.0))),
    ],
)
def test_a_known_model_is_read_as_its_datasheet_says(
    registers: "Registers",
    model: str,
    table: str,
    power: tuple[int, list[int]],
    energy: tuple[int, list[int]],
) -> None:
    getattr(registers, table).update([power, energy])

    with opened(registers, model=model) as meter:
        watts = meter.read().power_watts
    with opened(registers, model=model, quantity="joules") as meter:
        joules = meter.read().energy_joules

    assert model in MODELS
    assert watts == pytest.approx(41.5)
    assert joules == pytest.approx(1.25 * KWH, rel=0.05)  # some count in tenths of a kWh


@pytest.mark.parametrize(
    ("kind", "code", "value"),
    [
        ("int16", "h", -415),
        ("uint16", "H", 41500),
        ("int32", "i", -415_000),
        ("uint32", "I", 4_150_000_000),
        ("int64", "q", -(1 << 40)),
        ("uint64", "Q", 1 << 63),
        ("float32", "f", 41.5),
        ("float64", "d", 41.25),
    ],
)
@pytest.mark.parametrize("word_order", ["big", "little"])
def test_a_register_map_may_be_given(
    registers: "Registers", kind: str, code: str, value: float, word_order: str
) -> None:
    ordered = words(code, value)
    registers.holding[0x100] = ordered if word_order == "big" else ordered[::-1]

    with opened(
        registers,
        power_register="0x100",
        power_type=kind,
        power_scale="0.1",
        power_unit="kW",
        word_order=word_order,
    ) as meter:
        assert meter.read().power_watts == pytest.approx(value * 100)


def test_a_counter_alone_makes_a_meter_of_joules(registers: "Registers") -> None:
    registers.input[7] = words("I", 12345)

    with opened(
        registers,
        energy_register="7",
        energy_type="uint32",
        energy_unit="Wh",
        energy_scale="10",
        table="input",
    ) as meter:
        assert meter.quantity == "joules"
        assert meter.read().energy_joules == pytest.approx(12345 * 10 * 3600)


def test_whole_numbers_have_a_resolution_and_floats_have_none(registers: "Registers") -> None:
    whole = opened(registers, power_register="1", power_type="uint16", power_scale="10")

    with whole as meter, opened(registers, model="sdm120") as other:
        assert meter.facts.resolution_watts == 10
        assert other.facts.resolution_watts is None


def test_a_register_that_the_meter_lacks_is_told(registers: "Registers") -> None:
    with (
        opened(registers, power_register="9", power_type="int16") as meter,
        pytest.raises(MeterError, match=r"refuses to read holding register 9 .*register map"),
    ):
        meter.read()


def test_a_unit_that_is_not_on_the_bus_is_told(registers: "Registers") -> None:
    with (
        opened(registers, unit=4, model="sdm120") as meter,
        pytest.raises(MeterError, match=r"unit number|refuses"),
    ):
        meter.read()


def test_a_value_that_is_no_number_is_refused(registers: "Registers") -> None:
    registers.input[12] = [0x7FC0, 0]

    with opened(registers, model="sdm120") as meter, pytest.raises(MeterError, match="not a num"):
        meter.read().value("watts")


def test_a_late_answer_is_never_taken_for_the_next_one() -> None:
    """A gateway that answers the first request after the client has given it up."""
    served = threading.Event()

    def serve(listening: socket.socket) -> None:
        for connection_number in range(2):
            connection, _ = listening.accept()
            request = connection.recv(100)
            if connection_number == 0:
                served.wait(5)
            watts = 99.0 if connection_number == 0 else 41.5
            body = struct.pack(">BBBf", request[6], 4, 4, watts)
            head = request[:2] + struct.pack(">HH", 0, len(body))
            with suppress(OSError):
                connection.sendall(head + body)
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        url = f"modbus://127.0.0.1:{listening.getsockname()[1]}/1"
        options = {"model": "sdm120", "timeout_seconds": "0.2"}
        with closing(open_meter(MeterBinding(url, options))) as meter:
            with pytest.raises(MeterError):
                meter.read()
            served.set()

            after = meter.read().power_watts
        thread.join()

    assert after == 41.5


def test_one_connection_serves_many_readings(registers: "Registers") -> None:
    registers.input[12] = words("f", 1.0)

    with opened(registers, model="sdm120") as meter:
        for _ in range(5):
            meter.read()

    assert registers.connections.count(True) == 1


@pytest.mark.parametrize(
    ("rest", "options", "says"),
    [
        ("h", {"model": "sdm120"}, "unit number"),
        ("h/x", {"model": "sdm120"}, "unit number"),
        ("h/256", {"model": "sdm120"}, "unit number"),
        ("h/1", {}, "needs its register map: model=sdm120|"),
        ("h/1", {"model": "sdm999"}, "the option model is one of sdm120"),
        ("h/1", {"model": "sdm120", "power_register": "4"}, "no option power_register"),
        ("h/1", {"power_register": "70000"}, "power_register is a whole number"),
        ("h/1", {"power_register": "12.5"}, "power_register is a whole number"),
        ("h/1", {"power_register": "1", "power_type": "float"}, "power_type is one of"),
        ("h/1", {"power_register": "1", "power_scale": "0"}, "power_scale cannot be 0"),
        ("h/1", {"power_register": "1", "power_unit": "kWh"}, "power_unit is one of mW"),
        ("h/1", {"power_register": "1", "quantity": "joules"}, "needs the option energy_register"),
        ("h/1", {"energy_register": "1", "quantity": "watts"}, "needs the option power_register"),
        ("h/1", {"power_register": "1", "table": "coils"}, "table is one of holding"),
        ("h/1", {"power_register": "1", "word_order": "middle"}, "word_order is one of"),
        ("h/1", {"power_register": "1", "framer": "ascii"}, "framer is one of tcp, rtu"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(
    rest: str, options: dict[str, str], says: str
) -> None:
    with pytest.raises(MeterUsageError) as caught:
        open_meter(MeterBinding(f"modbus://{rest}", options))

    assert says in str(caught.value)


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.sampled_from(["big", "little"]))
def test_registers_are_decoded_to_what_was_encoded(value: int, word_order: str) -> None:
    ordered = words("i", value)
    given_words = ordered if word_order == "big" else ordered[::-1]

    assert _decode(given_words, Register(0, "int32"), word_order) == value
