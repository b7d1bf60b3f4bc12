"""Shelly plugs and relays with a power meter.

Generation 2 and later: https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/Switch
(apower in W, aenergy.total in Wh). Generation 1: https://shelly-api-docs.shelly.cloud/gen1/
(power in W, total in watt-minutes). Both say in /shelly which they are. Their power is 1 to 3 s
late.
"""

from collections.abc import Callable
from typing import Any

import httpx

from host.meters.base import JOULES, Meter, MeterError, MeterFacts, Reading
from host.meters.documents import number_at, optional_number_at
from host.meters.options import Options, parse_address, require_no_path
from host.meters.web import JsonDevice

INTERVAL_SECONDS = 0.5
MAX_WATTS = 4_000.0  # 16 A at 230 V
_COMPONENTS = {"switch": "Switch", "pm1": "PM1"}


class ShellyMeter(Meter):
    """One channel of a Shelly."""

    def __init__(
        self,
        facts: MeterFacts,
        device: JsonDevice,
        path: str,
        auth: httpx.Auth | None,
        reading: Callable[[dict[str, Any]], Reading],
    ) -> None:
        super().__init__(facts)
        self._device, self._path, self._auth, self._reading = device, path, auth, reading

    def read(self) -> Reading:
        return self._reading(self._device.get(self._path, auth=self._auth))

    def close(self) -> None:
        self._device.close()


def open_shelly(url: str, options: Options) -> ShellyMeter:
    """`shelly://HOST`. Options: user, password, channel, component (switch or pm1).

    Raises MeterUsageError and MeterError.
    """
    address = parse_address(url, 80)
    require_no_path(address)
    user = options.text("user") or "admin"
    password = options.text("password")
    channel = options.whole("channel", 0, low=0, high=99)
    component = _COMPONENTS[options.choice("component", "switch", _COMPONENTS)]
    timeout_seconds = options.timeout_seconds
    facts = options.facts(
        address,
        options.quantity(),
        interval_seconds=INTERVAL_SECONDS,
        max_watts=MAX_WATTS,
    )
    device = JsonDevice(address, timeout_seconds)
    try:
        modern = _is_modern(device.get("/shelly"))
    except MeterError:
        device.close()
        raise
    if modern:
        auth = None if password is None else httpx.DigestAuth(user, password)
        path = f"/rpc/{component}.GetStatus?id={channel}"
        return ShellyMeter(facts, device, path, auth, _modern_reading)
    basic = None if password is None else httpx.BasicAuth(user, password)
    return ShellyMeter(facts, device, f"/meter/{channel}", basic, _first_generation_reading)


def _is_modern(identity: dict[str, Any]) -> bool:
    generation = identity.get("gen", 1)
    if "gen" not in identity and "type" not in identity:
        raise MeterError("what answers there is not a Shelly; check the address")
    return isinstance(generation, int) and generation >= 2


def _modern_reading(status: dict[str, Any]) -> Reading:
    total = optional_number_at(status, ("aenergy", "total"))
    return Reading(
        power_watts=number_at(status, ("apower",)),
        energy_joules=None if total is None else total * JOULES["Wh"],
    )


def _first_generation_reading(status: dict[str, Any]) -> Reading:
    if status.get("is_valid") is False:
        raise MeterError("the meter says that its reading is not valid")
    total = optional_number_at(status, ("total",))
    return Reading(
        power_watts=number_at(status, ("power",)),
        energy_joules=None if total is None else total * JOULES["Wmin"],
    )
