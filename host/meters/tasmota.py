"""Plugs with Tasmota firmware: https://tasmota.github.io/docs/Commands/ (Status 8).

Of no use below about 6 W, where they read too little or nothing (Tasmota #749); what their names
begin with tells `host.measurement.energy` so.
"""

from typing import Any

from host.meters.base import JOULES, Meter, MeterError, MeterFacts, Reading
from host.meters.documents import number_at, optional_number_at
from host.meters.options import Options, parse_address, require_no_path
from host.meters.web import JsonDevice

INTERVAL_SECONDS = 0.5
MAX_WATTS = 4_000.0  # 16 A at 230 V


class TasmotaMeter(Meter):
    """One channel of a plug."""

    def __init__(
        self, facts: MeterFacts, device: JsonDevice, login: dict[str, str], channel: int
    ) -> None:
        super().__init__(facts)
        self._device, self._channel = device, channel
        self._query = {**login, "cmnd": "Status 8"}

    def read(self) -> Reading:
        energy = _energy(self._device.get("/cm", params=self._query))
        total = optional_number_at(energy, self._path(energy, "Total"))
        return Reading(
            power_watts=number_at(energy, self._path(energy, "Power")),
            energy_joules=None if total is None else total * JOULES["kWh"],
        )

    def _path(self, energy: dict[str, Any], name: str) -> tuple[str, ...]:
        """Plugs with several channels answer with lists."""
        several = isinstance(energy.get(name), list)
        return (name, str(self._channel)) if several else (name,)

    def close(self) -> None:
        self._device.close()


def open_tasmota(url: str, options: Options) -> TasmotaMeter:
    """`tasmota://HOST`. Options: user, password, channel.

    Raises MeterUsageError.
    """
    address = parse_address(url, 80)
    require_no_path(address)
    user = options.text("user") or "admin"
    password = options.text("password")
    channel = options.whole("channel", 0, low=0, high=15) or 0
    timeout_seconds = options.timeout_seconds
    facts = options.facts(
        address,
        options.quantity(),
        interval_seconds=INTERVAL_SECONDS,
        max_watts=MAX_WATTS,
    )
    login = {} if password is None else {"user": user, "password": password}
    return TasmotaMeter(facts, JsonDevice(address, timeout_seconds), login, channel)


def _energy(document: dict[str, Any]) -> dict[str, Any]:
    if "WARNING" in document:  # what the firmware says instead of HTTP 401
        raise MeterError(
            "the meter refuses the password; give the right one with the option password"
        )
    status = document.get("StatusSNS")
    energy = status.get("ENERGY") if isinstance(status, dict) else None
    if not isinstance(energy, dict):
        raise MeterError("what answers there is not a Tasmota plug with a power meter")
    return energy
