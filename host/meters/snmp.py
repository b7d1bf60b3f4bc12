"""Power distribution units and other devices that tell their power over SNMP (2c and 3)."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from pysnmp.error import PySnmpError  # type: ignore[import-untyped]
from pysnmp.hlapi.v3arch.asyncio import (  # type: ignore[import-untyped]
    USM_AUTH_HMAC96_MD5,
    USM_AUTH_HMAC96_SHA,
    USM_AUTH_HMAC192_SHA256,
    USM_AUTH_HMAC384_SHA512,
    USM_PRIV_CBC56_DES,
    USM_PRIV_CFB128_AES,
    USM_PRIV_CFB256_AES,
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    Udp6TransportTarget,
    UdpTransportTarget,
    UsmUserData,
    get_cmd,
)

from host.meters.base import Meter, MeterError, MeterFacts, MeterUsageError, Reading
from host.meters.options import Address, Options, parse_address

INTERVAL_SECONDS = 1.0
MAX_WATTS = 50_000.0
_OID = re.compile(r"\.?[0-2](\.[0-9]+){2,126}")
_AUTH = {
    "md5": USM_AUTH_HMAC96_MD5,
    "sha": USM_AUTH_HMAC96_SHA,
    "sha256": USM_AUTH_HMAC192_SHA256,
    "sha512": USM_AUTH_HMAC384_SHA512,
}
_PRIVACY = {
    "des": USM_PRIV_CBC56_DES,
    "aes": USM_PRIV_CFB128_AES,
    "aes256": USM_PRIV_CFB256_AES,
}


@dataclass(frozen=True)
class KnownObject:
    """What one count of an object means."""

    oid: str
    unit: str
    scale: float


KNOWN = (
    # APC PowerNet-MIB. rPDU2DeviceStatusPower "in hundredths of kilowatts": steps of 10 W.
    KnownObject("1.3.6.1.4.1.318.1.1.26.4.3.1.5", "W", 10.0),
    # rPDU2DeviceStatusEnergy "in tenths of kilowatt-hours".
    KnownObject("1.3.6.1.4.1.318.1.1.26.4.3.1.9", "kWh", 0.1),
    # rPDU2OutletMeteredStatusPower "in watts".
    KnownObject("1.3.6.1.4.1.318.1.1.26.9.4.3.1.7", "W", 1.0),
)
"""Objects whose unit and scale need not be given."""


class SnmpMeter(Meter):
    """One object of one device, asked for with GET; runs an event loop of its own meanwhile."""

    def __init__(
        self,
        facts: MeterFacts,
        address: Address,
        credentials: object,
        scale: float,
        timeout_seconds: float,
    ) -> None:
        super().__init__(facts)
        self._address, self._credentials, self._scale = address, credentials, scale
        self._timeout_seconds = timeout_seconds
        self._runner = asyncio.Runner()
        self._engine = SnmpEngine()
        self._target: Any = None

    def read(self) -> Reading:
        try:
            value = self._runner.run(self._get()) * self._scale
        except (PySnmpError, OSError) as error:
            raise MeterError(
                f"the meter cannot be asked over SNMP ({_in_short(error)}); check its address, "
                "user and passwords"
            ) from error
        if self.quantity == "watts":
            return Reading(power_watts=value)
        return Reading(energy_joules=value)

    async def _get(self) -> float:
        if self._target is None:
            kind = Udp6TransportTarget if ":" in self._address.host else UdpTransportTarget
            self._target = await kind.create(
                (self._address.host, self._address.port), timeout=self._timeout_seconds, retries=0
            )
        failure, status, _, found = await get_cmd(
            self._engine,
            self._credentials,
            self._target,
            ContextData(),
            ObjectType(ObjectIdentity(self._address.path.removeprefix("."))),
            lookupMib=False,
        )
        if failure:
            raise MeterError(
                f"the meter does not answer over SNMP ({failure}); check its address, and its "
                "community or user"
            )
        if status:
            raise MeterError(
                f"the meter refuses to tell this object ({status.prettyPrint()}); check the OID"
            )
        return _number(found[0][1].prettyPrint())

    def close(self) -> None:
        self._engine.close_dispatcher()
        self._runner.close()


def open_snmp(url: str, options: Options) -> SnmpMeter:
    """`snmp://HOST[:161]/OID`. Options: unit, scale; version (2c or 3); community; user,
    auth_protocol, auth_password, priv_protocol, priv_password.

    Raises MeterUsageError.
    """
    address = parse_address(url, 161)
    if not _OID.fullmatch(address.path):
        raise MeterUsageError(
            "the URL of an SNMP meter ends with a numeric OID: snmp://HOST/1.3.6.1.4.1.…"
        )
    known = _known(address.path.removeprefix("."))
    quantity, unit = options.unit(known.unit if known else "W")
    scale = options.number("scale", known.scale if known else 1.0) * unit
    if scale == 0:
        raise MeterUsageError("the option scale cannot be 0")
    credentials = _credentials(options)
    timeout_seconds = options.timeout_seconds
    facts = options.facts(
        address,
        quantity,
        interval_seconds=INTERVAL_SECONDS,
        max_watts=MAX_WATTS,
        # SNMP has whole numbers only, so one count is the step.
        resolution_watts=abs(scale) if quantity == "watts" else None,
    )
    return SnmpMeter(facts, address, credentials, scale, timeout_seconds)


def _known(oid: str) -> KnownObject | None:
    return next((known for known in KNOWN if oid.startswith(f"{known.oid}.")), None)


def _credentials(options: Options) -> object:
    if options.choice("version", "2c", ("2c", "3")) == "2c":
        return CommunityData(options.text("community") or "public", mpModel=1)  # noqa: S508 - what PDUs speak
    user = options.text("user")
    if not user:
        raise MeterUsageError("SNMP version 3 needs the option user")
    auth_password = _password(options, "auth_password")
    privacy_password = _password(options, "priv_password")
    authentication = _AUTH[options.choice("auth_protocol", "sha", _AUTH)]
    privacy = _PRIVACY[options.choice("priv_protocol", "aes", _PRIVACY)]
    if auth_password is None:
        if privacy_password is not None:
            raise MeterUsageError("the option priv_password needs auth_password too")
        return UsmUserData(user)  # noqa: S509 - as the device is set up
    if privacy_password is None:
        return UsmUserData(user, authKey=auth_password, authProtocol=authentication)
    return UsmUserData(
        user,
        authKey=auth_password,
        authProtocol=authentication,
        privKey=privacy_password,
        privProtocol=privacy,
    )


def _password(options: Options, name: str) -> str | None:
    password = options.text(name)
    if password is not None and len(password) < 8:  # RFC 3414, section 11.2
        raise MeterUsageError(f"the option {name} has at least 8 characters")
    return password


def _number(text: str) -> float:
    """Some devices give numbers as text, such as "12.3"."""
    try:
        return float(text)
    except ValueError as error:
        raise MeterError(
            f"the object is not a number ({text[:40]!r}); check the OID, which ends with the "
            "index of the device or outlet"
        ) from error


def _in_short(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", maxsplit=1)[0][:200]
