"""The URL and the options that a person gives for a meter, checked one by one."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote, urlsplit

from host.measurement.samples import NumberKind, Scope
from host.meters.base import JOULES, WATTS, MeterFacts, MeterUsageError, Quantity

TIMEOUT_SECONDS = 2.0
_SCOPES: tuple[Scope, ...] = ("wall", "board", "package")
_QUANTITIES: tuple[Quantity, ...] = ("watts", "joules")


@dataclass(frozen=True)
class Address:
    """Where a meter is. `path` has no leading slash; `shown` is for people and holds no secret."""

    scheme: str
    host: str
    port: int
    path: str
    shown: str

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def scheme_of(url: str) -> str:
    """What stands before "://", in lower case; empty where there is none."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else ""


def parse_address(url: str, default_port: int) -> Address:
    """Raises MeterUsageError where the URL is not SCHEME://HOST[:PORT][/PATH]."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MeterUsageError(f"the meter's URL is wrong: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise MeterUsageError(
            "a meter's URL is shown in lists, so it holds no password: give user and password as "
            "options"
        )
    if not parts.hostname:
        raise MeterUsageError(f"the meter's URL names no host: write {parts.scheme}://HOST")
    if parts.query or parts.fragment:
        raise MeterUsageError(
            "a meter's URL ends with its path: give what follows ? or # as options"
        )
    path = unquote(parts.path.removeprefix("/"))
    host = parts.hostname
    shown_host = host if port is None else f"{host}:{port}"
    shown = f"{parts.scheme} {shown_host}" + (f"/{path}" if path else "")
    return Address(parts.scheme, host, default_port if port is None else port, path, shown)


def require_no_path(address: Address) -> None:
    """Raises MeterUsageError where something follows the host."""
    if address.path:
        raise MeterUsageError(
            f"the URL of a {address.scheme} meter is {address.scheme}://HOST: leave out "
            f"/{address.path}"
        )


class Options:
    """Options by name. Each is read once; what is left over at the end is a mistake."""

    def __init__(self, scheme: str, given: Mapping[str, str]) -> None:
        self._scheme = scheme
        self._given = dict(given)
        self._known: list[str] = []

    def text(self, name: str) -> str | None:
        """The option as it was written; None where it was not given."""
        self._known.append(name)
        return self._given.get(name)

    def has(self, name: str) -> bool:
        """Whether it was given."""
        return name in self._given

    def number(
        self,
        name: str,
        default: float,
        *,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> float:
        """A number from `low` to `high`."""
        written = self.text(name)
        if written is None:
            return default
        try:
            value = float(written)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and low <= value <= high:
            return value
        raise MeterUsageError(f"the option {name} is a number{_between(low, high)}")

    def whole(self, name: str, default: int | None, *, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, decimal or 0x…"""
        written = self.text(name)
        if written is None:
            return default
        try:
            value = int(written, 0)
        except ValueError:
            value = low - 1
        if low <= value <= high:
            return value
        raise MeterUsageError(f"the option {name} is a whole number{_between(low, high)}")

    def choice(self, name: str, default: str, allowed: Iterable[str]) -> str:
        """One of the allowed words."""
        written = self.text(name)
        value = default if written is None else written
        words = tuple(allowed)
        if value not in words:
            raise MeterUsageError(f"the option {name} is one of {', '.join(words)}")
        return value

    def yes(self, name: str) -> bool:
        """Whether it was switched on; off by default."""
        return self.choice(name, "no", ("yes", "no")) == "yes"

    @property
    def timeout_seconds(self) -> float:
        """How long an answer may take."""
        return self.number("timeout_seconds", TIMEOUT_SECONDS, low=0.05, high=30.0)

    def quantity(self) -> Quantity:
        """Power or the energy counter, of a meter that has both."""
        return cast("Quantity", self.choice("quantity", "watts", _QUANTITIES))

    def unit(self, default: str = "W") -> tuple[Quantity, float]:
        """What a bare number means: its quantity, and the watts or joules in one."""
        unit = self.choice("unit", default, (*WATTS, *JOULES))
        return ("watts", WATTS[unit]) if unit in WATTS else ("joules", JOULES[unit])

    def facts(
        self,
        address: Address,
        quantity: Quantity,
        *,
        interval_seconds: float,
        max_watts: float,
        kind: NumberKind = "measured",
        resolution_watts: float | None = None,
    ) -> MeterFacts:
        """The facts of a meter, with what the options every meter has say about them; the last
        options to be read.

        Raises MeterUsageError where an option is left that nobody asked for.
        """
        resolution = self.number("resolution_watts", resolution_watts or 0.0, low=0.0)
        facts = MeterFacts(
            name=address.shown,
            scope=cast("Scope", self.choice("scope", "wall", _SCOPES)),
            kind=kind,
            quantity=quantity,
            max_watts=self.number("max_watts", max_watts, low=0.001),
            interval_seconds=self.number("interval_seconds", interval_seconds, low=0.02, high=60.0),
            resolution_watts=resolution or None,
        )
        self._refuse_others()
        return facts

    def _refuse_others(self) -> None:
        others = sorted(set(self._given) - set(self._known))
        if others:
            known = ", ".join(sorted(set(self._known)))
            raise MeterUsageError(
                f"this {self._scheme} meter has no option {others[0]}; it has {known}"
            )


def _between(low: float, high: float) -> str:
    if low == -math.inf and high == math.inf:
        return ""
    return f" from {low:g} on" if high == math.inf else f" from {low:g} to {high:g}"
