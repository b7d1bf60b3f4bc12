"""Which kinds of meters there are, by the scheme of their URLs."""

import time
from collections.abc import Callable

from host.device import MeterBinding
from host.errors import UsageError
from host.meters.base import Meter, MeterUsageError
from host.meters.options import Options, parse_address, scheme_of

SCHEMES = ("modbus", "shelly", "tasmota", "mqtt", "snmp", "nut")
_SECRETS = ("password", "community")
_MASK = "••••"
_PACKAGES = {"pymodbus": "pymodbus", "httpx": "httpx", "paho": "paho-mqtt", "pysnmp": "pysnmp"}


class MissingPackageError(UsageError):
    """What reads this kind of meter is not installed."""


def open_meter(binding: MeterBinding, clock: Callable[[], float] = time.monotonic) -> Meter:
    """The meter of a binding, ready to be read; close it afterwards. `clock` stamps what arrives
    from meters that send of their own accord.

    Raises MeterUsageError where the URL or an option is wrong, MissingPackageError, and MeterError
    where the meter is asked already and does not answer.
    """
    scheme = scheme_of(binding.url)
    try:
        return _open(scheme, binding.url, Options(scheme, binding.options), clock)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get((error.name or "").split(".")[0])
        if package is None:
            raise
        raise MissingPackageError(
            f"a {scheme} meter is read with the package {package}, which is not installed: "
            "pip install 'genba[meters]'"
        ) from error


def _open(scheme: str, url: str, options: Options, clock: Callable[[], float]) -> Meter:
    # Imported here: only who has such a meter needs its package.
    match scheme:
        case "modbus":
            from host.meters.modbus import open_modbus

            return open_modbus(url, options)
        case "shelly":
            from host.meters.shelly import open_shelly

            return open_shelly(url, options)
        case "tasmota":
            from host.meters.tasmota import open_tasmota

            return open_tasmota(url, options)
        case "mqtt":
            from host.meters.mqtt import open_mqtt

            return open_mqtt(url, options, clock)
        case "snmp":
            from host.meters.snmp import open_snmp

            return open_snmp(url, options)
        case "nut":
            from host.meters.nut import open_nut

            return open_nut(url, options)
        case _:
            raise MeterUsageError(
                f"a meter's URL begins with one of {', '.join(f'{s}://' for s in SCHEMES)}"
            )


def meter_name(binding: MeterBinding) -> str:
    """The name of the meter without opening it; holds no secret."""
    try:
        return parse_address(binding.url, 0).shown
    except MeterUsageError:
        return scheme_of(binding.url) or "meter"


def masked_options(binding: MeterBinding) -> dict[str, str]:
    """The options for people to see: passwords and communities are masked."""
    return {
        name: _MASK if any(secret in name.lower() for secret in _SECRETS) else value
        for name, value in binding.options.items()
    }
