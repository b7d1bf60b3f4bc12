"""Energy meters on Modbus TCP, and on RS-485 behind a gateway.

Registers are given by their address in the protocol, counted from 0: a datasheet's 30013 is the
input register 12.
"""

import struct
from dataclasses import dataclass
from typing import Any, cast

from pymodbus import FramerType, ModbusException
from pymodbus.client import ModbusTcpClient

from host.meters.base import JOULES, WATTS, Meter, MeterError, MeterFacts, MeterUsageError, Reading
from host.meters.options import Options, parse_address

INTERVAL_SECONDS = 0.5
MAX_WATTS = 25_000.0  # 3 x 32 A at 230 V, and some
_FORMATS = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_FRAMERS = {"tcp": FramerType.SOCKET, "rtu": FramerType.RTU}


@dataclass(frozen=True)
class Register:
    """A value in consecutive registers; `scale` is the watts or joules in one count."""

    address: int
    type: str
    scale: float = 1.0

    @property
    def count(self) -> int:
        """How many registers it takes."""
        return struct.calcsize(f">{_FORMATS[self.type]}") // 2

    @property
    def step(self) -> float | None:
        """The watts or joules between two values; None where it is no whole number."""
        return None if self.type.startswith("float") else abs(self.scale)


@dataclass(frozen=True)
class RegisterMap:
    """Where a meter keeps its power and its counter of imported energy."""

    table: str = "input"
    word_order: str = "big"
    power: Register | None = None
    energy: Register | None = None


_EASTRON_PHASE = RegisterMap(
    power=Register(0x000C, "float32"), energy=Register(0x0048, "float32", JOULES["kWh"])
)
_GAVAZZI_100 = RegisterMap(
    word_order="little",
    power=Register(0x0004, "int32", 0.1),
    energy=Register(0x0010, "int32", 0.1 * JOULES["kWh"]),
)
_ABB_B = RegisterMap(
    table="holding",
    power=Register(0x5B14, "int32", 0.01),
    energy=Register(0x5000, "uint64", 0.01 * JOULES["kWh"]),
)
MODELS: dict[str, RegisterMap] = {
    # Eastron "SDM120-Modbus/SDM230-Modbus Smart Meter Modbus Protocol Implementation": input
    # registers 30013 active power (W), 30073 import active energy (kWh).
    "sdm120": _EASTRON_PHASE,
    "sdm230": _EASTRON_PHASE,
    # Eastron "SDM630-Modbus Smart Meter Modbus Protocol Implementation": 30053 total system power
    # (W), 30073 total import (kWh).
    "sdm630": RegisterMap(
        power=Register(0x0034, "float32"), energy=Register(0x0048, "float32", JOULES["kWh"])
    ),
    # Carlo Gavazzi "EM100 Series and ET100 Series Communication Protocol": 0004h W (x 10), 0010h
    # kWh(+) TOT (x 10), both INT32 with the least significant word first.
    "em111": _GAVAZZI_100,
    "em112": _GAVAZZI_100,
    # Carlo Gavazzi "EM330/EM340/ET330/ET340 Communication Protocol": 0028h W sys (x 10), 0034h
    # kWh(+) TOT (x 10).
    "em340": RegisterMap(
        word_order="little",
        power=Register(0x0028, "int32", 0.1),
        energy=Register(0x0034, "int32", 0.1 * JOULES["kWh"]),
    ),
    # ABB "A/B series user manual", mapping tables: 5B14 active power total (0.01 W), 5000 active
    # energy import (0.01 kWh).
    "abb-b21": _ABB_B,
    "abb-b23": _ABB_B,
    # Siemens "SENTRON PAC2200 equipment manual", appendix Modbus: offset 65 total active power
    # (W), 801 active energy import tariff 1 (double, Wh).
    "pac2200": RegisterMap(
        power=Register(65, "float32"), energy=Register(801, "float64", JOULES["Wh"])
    ),
}
"""Register maps by model, from the makers' public documents."""


class ModbusMeter(Meter):
    """One unit on the bus; connects again by itself."""

    def __init__(
        self, facts: MeterFacts, client: ModbusTcpClient, unit: int, registers: RegisterMap
    ) -> None:
        super().__init__(facts)
        self._client: Any = client  # half of its methods are without types
        self._unit, self._registers = unit, registers

    def read(self) -> Reading:
        # Only what is wanted: behind a gateway every request takes tens of milliseconds.
        registers = self._registers
        if self.quantity == "watts":
            return Reading(power_watts=self._value(registers.power))
        return Reading(energy_joules=self._value(registers.energy))

    def _value(self, register: Register | None) -> float | None:
        if register is None:
            return None
        try:
            words = self._words(register)
        except (ModbusException, OSError) as error:
            self._client.close()  # a late answer must not be taken for that to the next request
            raise MeterError(
                f"the meter does not answer ({_in_short(error)}); check its address and unit number"
            ) from error
        return _decode(words, register, self._registers.word_order) * register.scale

    def _words(self, register: Register) -> list[int]:
        if not self._client.connected and not self._client.connect():
            raise OSError("no connection")
        holding = self._registers.table == "holding"
        read = self._client.read_holding_registers if holding else self._client.read_input_registers
        response = read(register.address, count=register.count, device_id=self._unit)
        if response.isError():
            raise MeterError(
                f"the meter refuses to read {self._registers.table} register {register.address} "
                f"({_in_short(response)}); check the register map"
            )
        words: list[int] = response.registers
        if len(words) != register.count:
            raise MeterError(f"the meter answered {len(words)} registers, not {register.count}")
        return words

    def close(self) -> None:
        self._client.close()


def open_modbus(url: str, options: Options) -> ModbusMeter:
    """`modbus://HOST[:502]/UNIT`. Options: model, or else power_register, power_type, power_unit,
    power_scale and the same for energy, table, word_order; framer.

    Raises MeterUsageError.
    """
    address = parse_address(url, 502)
    if not (address.path.isdecimal() and int(address.path) <= 255):
        raise MeterUsageError(
            "the URL of a Modbus meter ends with its unit number: modbus://HOST/1"
        )
    registers = _register_map(options)
    quantity = options.quantity()
    if registers.power is None and not options.has("quantity"):
        quantity = "joules"
    if (registers.power if quantity == "watts" else registers.energy) is None:
        wanted = "power" if quantity == "watts" else "energy"
        raise MeterUsageError(f"quantity={quantity} needs the option {wanted}_register")
    framer = _FRAMERS[options.choice("framer", "tcp", _FRAMERS)]
    timeout_seconds = options.timeout_seconds
    facts = options.facts(
        address,
        quantity,
        interval_seconds=INTERVAL_SECONDS,
        max_watts=MAX_WATTS,
        resolution_watts=registers.power.step if registers.power else None,
    )
    client = ModbusTcpClient(
        address.host, port=address.port, framer=framer, timeout=timeout_seconds, retries=0
    )
    return ModbusMeter(facts, client, int(address.path), registers)


def _register_map(options: Options) -> RegisterMap:
    if options.text("model") is not None:
        return MODELS[options.choice("model", "", MODELS)]
    power = _register(options, "power", "W", WATTS)
    energy = _register(options, "energy", "J", JOULES)
    if power is None and energy is None:
        raise MeterUsageError(
            f"a Modbus meter needs its register map: model={'|'.join(MODELS)}, or power_register "
            "and power_type"
        )
    return RegisterMap(
        table=options.choice("table", "holding", ("holding", "input")),
        word_order=options.choice("word_order", "big", ("big", "little")),
        power=power,
        energy=energy,
    )


def _register(
    options: Options, name: str, default_unit: str, units: dict[str, float]
) -> Register | None:
    address = options.whole(f"{name}_register", None, low=0, high=0xFFFF)
    if address is None:
        return None
    kind = options.choice(f"{name}_type", "float32", _FORMATS)
    scale = options.number(f"{name}_scale", 1.0)
    unit = units[options.choice(f"{name}_unit", default_unit, units)]
    if scale == 0:
        raise MeterUsageError(f"the option {name}_scale cannot be 0")
    return Register(address, kind, scale * unit)


def _decode(words: list[int], register: Register, word_order: str) -> float:
    ordered = words if word_order == "big" else words[::-1]
    content = struct.pack(f">{len(ordered)}H", *ordered)
    (value,) = cast("tuple[float]", struct.unpack(f">{_FORMATS[register.type]}", content))
    return float(value)


def _in_short(problem: object) -> str:
    return str(problem).removeprefix("Modbus Error: ").strip() or type(problem).__name__
