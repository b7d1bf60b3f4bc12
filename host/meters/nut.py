"""UPSes served by Network UPS Tools, in its own protocol (RFC 9271).

Spoken here, and not through the package PyNUTClient: that one reads for ever, at full load, once
the server closes the connection, and its licence is the GPL.
"""

import re
import socket
from contextlib import suppress
from dataclasses import replace

from host.meters.base import Meter, MeterError, MeterFacts, MeterUsageError, Reading
from host.meters.options import Address, Options, parse_address

INTERVAL_SECONDS = 2.0
MAX_WATTS = 20_000.0
_MAX_LINE_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_PROBLEMS = {
    "UNKNOWN-UPS": "the NUT server knows no UPS of that name; see upsc -l HOST",
    "DATA-STALE": "the UPS gives its NUT server no fresh data; check its cable",
    "DRIVER-NOT-CONNECTED": "the driver of the UPS does not run on its NUT server; start it",
    "ACCESS-DENIED": "the NUT server denies access; allow this host in its configuration",
}


class _NoVariableError(Exception):
    """The UPS does not have this variable."""


class NutServer:
    """A connection to upsd that reads variables of one UPS; connects again by itself."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self._address, self._timeout_seconds = address, timeout_seconds
        self._socket: socket.socket | None = None
        self._pending = b""

    def number(self, variable: str) -> float | None:
        """The variable of the UPS; None where it has no such variable. Raises MeterError."""
        try:
            return float(self._variable(variable))
        except _NoVariableError:
            return None
        except ValueError as error:
            raise MeterError(f"the UPS says something that is no number as {variable}") from error
        except OSError as error:
            self.close()
            raise MeterError(
                f"the NUT server does not answer ({error}); check its address, and LISTEN in its "
                "upsd.conf"
            ) from error

    def _variable(self, variable: str) -> str:
        answer = self._ask(f"GET VAR {self._address.path} {variable}")
        found = re.fullmatch(r'VAR \S+ \S+ "(.*)"', answer)
        if found is not None:
            return found[1]
        code = answer.removeprefix("ERR ").split(" ")[0]
        if code == "VAR-NOT-SUPPORTED":
            raise _NoVariableError
        raise MeterError(_PROBLEMS.get(code, f"the NUT server answers {answer[:80]!r}"))

    def _ask(self, line: str) -> str:
        if self._socket is None:
            place = (self._address.host, self._address.port)
            self._pending = b""
            self._socket = socket.create_connection(place, self._timeout_seconds)
        self._socket.sendall(line.encode() + b"\n")
        while b"\n" not in self._pending:
            part = self._socket.recv(1024)
            if not part or len(self._pending) > _MAX_LINE_BYTES:
                raise ConnectionError("it closed the connection")
            self._pending += part
        answer, _, self._pending = self._pending.partition(b"\n")
        return answer.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the connection; the next question opens another."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendall(b"LOGOUT\n")
            self._socket.close()
        self._socket = None


class NutMeter(Meter):
    """Power that a UPS gives out: what it says, or its load as a share of `nominal_watts`."""

    def __init__(self, facts: MeterFacts, server: NutServer, nominal_watts: float | None) -> None:
        super().__init__(facts)
        self._server, self._nominal_watts = server, nominal_watts

    def read(self) -> Reading:
        nominal = self._nominal_watts
        value = self._server.number("ups.realpower" if nominal is None else "ups.load")
        if value is None:
            raise MeterError("the UPS no longer says its power")
        return Reading(power_watts=value if nominal is None else value / 100 * nominal)

    def close(self) -> None:
        self._server.close()


def open_nut(url: str, options: Options) -> NutMeter:
    """`nut://HOST[:3493]/UPS`. Option: nominal_watts, of a UPS that says only its load in percent.

    Raises MeterUsageError and MeterError.
    """
    address = parse_address(url, 3493)
    if not _NAME.fullmatch(address.path):
        raise MeterUsageError(
            "the URL of a NUT meter ends with the name of the UPS: nut://HOST/UPS"
        )
    given = options.number("nominal_watts", 0.0, low=1.0) if options.has("nominal_watts") else None
    timeout_seconds = options.timeout_seconds
    facts = options.facts(address, "watts", interval_seconds=INTERVAL_SECONDS, max_watts=MAX_WATTS)
    server = NutServer(address, timeout_seconds)
    try:
        nominal = _nominal_watts(server, given)
    except MeterError:
        server.close()
        raise
    if nominal is not None:  # the load is a whole number of percent
        step = facts.resolution_watts or nominal / 100
        facts = replace(facts, kind="derived", resolution_watts=step)
    return NutMeter(facts, server, nominal)


def _nominal_watts(server: NutServer, given: float | None) -> float | None:
    """The power of which the load is a share; None where the UPS says its power itself."""
    if given is None and server.number("ups.realpower") is not None:
        return None
    nominal = given or server.number("ups.realpower.nominal")
    if not nominal or server.number("ups.load") is None:
        raise MeterError(
            "the UPS says neither its power nor its load with a nominal power; where it says its "
            "load, give the option nominal_watts"
        )
    return nominal
