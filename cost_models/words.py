"""Fitted rates as facts that people can read: each a name, a number, a unit."""

import math
from dataclasses import dataclass

from cost_models.nonnegative import SHAPE, NonNegativeModel

_PER_SECOND = {"mac": "MAC/s", "byte": "B/s"}
"""Units of amounts whose cost in seconds is read the other way round, as a speed."""

Steps = tuple[tuple[float, str], ...]

_PREFIXES: Steps = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_TIMES: Steps = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES: Steps = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_POWERS: Steps = ((1.0, "W"), (1e-3, "mW"), (1e-6, "µW"))
_READ_IN: dict[str, tuple[Steps, float]] = {
    "latency_seconds": (_TIMES, 1e-6),
    "peak_rss_bytes": (_SIZES, 1e6),
}
"""Units of each quantity, and the size of the usual one; watts are the rates of all others."""


@dataclass(frozen=True)
class Fact:
    """What a model says of one column, such as conv_macs, 2.1, "GMAC/s".

    `value` is None where the measurements leave it undetermined: no measured network has any of
    the amount, or other amounts explain what it costs.
    """

    name: str
    value: float | None
    unit: str

    @property
    def known(self) -> bool:
        """Whether the measurements determine it."""
        return self.value is not None

    def __str__(self) -> str:
        return "undetermined" if self.value is None else f"{three_digits(self.value)} {self.unit}"


def facts(model: NonNegativeModel) -> tuple[Fact, ...]:
    """One for each charged column, in their order. Raises NotFittedError."""
    return tuple(
        _fact(model.quantity, name, unit, None if unseen or rate == 0 else rate)
        for (name, unit), rate, unseen in zip(
            model.columns, model.coefficients.values(), model.unseen.tolist(), strict=True
        )
        if unit != SHAPE
    )


def three_digits(value: float) -> str:
    """A number with three significant digits and never an exponent; more before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    # 9.996 becomes 10.00: one digit too many.
    if decimals and len(text.strip("-").replace(".", "").lstrip("0")) > 3:
        text = text[:-1].rstrip(".")
    return text


def _fact(quantity: str, name: str, unit: str, rate: float | None) -> Fact:
    if quantity == "latency_seconds" and unit in _PER_SECOND:
        speed = None if rate is None else 1 / rate
        scale, prefix = _scale(speed, _PREFIXES, usual=1e9)
        return Fact(name, None if speed is None else speed / scale, prefix + _PER_SECOND[unit])
    per = "" if unit in {"run", "share", "second"} else f" per {unit}"
    if quantity == "peak_rss_bytes" and unit == "byte":
        return Fact(name, rate, f"B{per}")
    steps, usual = _READ_IN.get(quantity, (_POWERS, 1.0))
    scale, symbol = _scale(rate, steps, usual)
    return Fact(name, None if rate is None else rate / scale, f"{symbol}{per}")


def _scale(value: float | None, steps: Steps, usual: float) -> tuple[float, str]:
    """The largest unit that leaves at least 1 of it; the usual one where there is no value."""
    wanted = usual if value is None else value
    return next((step for step in steps if wanted >= step[0]), steps[-1])
