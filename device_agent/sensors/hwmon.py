"""Power of the board from a current sensor in its supply, through the kernel's hwmon class.

Files and units: Linux Documentation/hwmon/sysfs-interface.rst (microwatts, millivolts,
milliamperes), ina2xx.rst, ina238.rst, ina3221.rst (shunt resistors in microohms) and powerz.rst.
Chips are found by what their file `name` says: the number in hwmonN changes between boots.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, TypeVar

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import PowerSettings, Quantity
from device_agent.sensors.sysfs import entries, is_there, read_integer, read_text

SYS = Path("/sys")

T = TypeVar("T")

_MICRO = 1e-6
_MILLI = 1e-3

_SINGLE_CHANNEL = tuple(
    f"ina{number}" for number in (219, 220, 226, 228, 230, 231, 232, 234, 237, 238, 260)
)
_TRIPLE_CHANNEL = "ina3221"
# What the device trees of boards with an INA3221 call the channel in front of the whole board.
_BOARD_LABELS = ("VDD_IN", "POM_5V_IN")
# Half the rate that a bus with several chips bears; the chips average in between.
_INA_SECONDS = 0.02
_POWERZ_SECONDS = 0.1
# USB Power Delivery 3.1 ends at 48 V and 5 A.
_POWERZ_WATTS = (0.05, 240.0)

# The least that a running board draws, and what the largest supply made for it gives
# (Raspberry Pi documentation, "Power supply": 5.1 V and up to 2.5 A, 3 A or 5 A).
_BOARDS = (
    (re.compile(r"Raspberry Pi (5|500|Compute Module 5)"), (1.0, 27.0)),
    (re.compile(r"Raspberry Pi (4|400|Compute Module 4)"), (0.8, 15.3)),
    (re.compile(r"Raspberry Pi (3|Compute Module 3)"), (0.5, 12.8)),
    (re.compile(r"Raspberry Pi 2"), (0.5, 9.2)),
    (re.compile(r"Raspberry Pi"), (0.2, 12.8)),
)
_ANY_SMALL_BOARD_WATTS = (0.1, 60.0)
# Where a person or the board's maker says which shunt there is, the board may be a large one.
_ANY_BOARD_WATTS = (0.1, 1000.0)


@dataclass(frozen=True)
class _Chip:
    """`address` is that on its bus, such as "1-0040"; `id` is the name, with it if need be."""

    name: str
    address: str
    id: str
    folder: Path

    def is_called(self, name: str) -> bool:
        return name in (self.name, f"{self.name}@{self.address}")


@dataclass(frozen=True)
class _Supply:
    """One chip's reading, and whether the resistance of its shunt is known."""

    chip: _Chip
    watts: Callable[[], float]
    shunt_is_known: bool


class Ina:
    """The chips of Texas Instruments' INA series in the supply of this board, added up."""

    scope = "board"
    kind = "measured"
    quantity = Quantity.WATTS

    def __init__(self, sys: Path = SYS, settings: PowerSettings | None = None) -> None:
        """Raises SensorUnavailableError where there is no such chip, where it is not known which
        of several supplies the board, and where what they show is impossible.
        """
        settings = PowerSettings() if settings is None else settings
        self._supplies = _board_supplies(_chips(sys), settings)
        self._limits, self._board = _limits(sys, self._supplies)
        self.name = "+".join(supply.chip.id for supply in self._supplies)
        self.max_watts = self._limits[1]
        self.interval_seconds = max(_update_seconds(s.chip) for s in self._supplies)
        self.read()

    def read(self) -> float:
        """Watts now. Raises SensorUnavailableError for a power that this board cannot draw."""
        watts = sum(supply.watts() for supply in self._supplies)
        low, high = self._limits
        if not low <= watts <= high:
            raise SensorUnavailableError(
                f"{self.name}: {watts:.3g} W, where {self._board} draws {low:g} to {high:g} W:"
                " the resistance of the shunt is probably wrong by a factor of 10 (the driver"
                " assumes 0.01 ohm, hobby boards carry 0.1 ohm), set its shunt_ohm in the agent's"
                " config.json"
            )
        return watts


class PowerZ:
    """A POWER-Z meter in the USB-C cable that supplies this board."""

    name = "powerz"
    scope = "board"
    kind = "measured"
    quantity = Quantity.WATTS
    max_watts = _POWERZ_WATTS[1]
    interval_seconds = _POWERZ_SECONDS

    def __init__(self, sys: Path = SYS) -> None:
        """Raises SensorUnavailableError where no meter, or more than one, is plugged in."""
        folders = [folder for folder, name in _named(sys) if name == self.name]
        if len(folders) != 1:
            raise SensorUnavailableError(
                "more than one POWER-Z meter is plugged in" if folders else "no POWER-Z meter"
            )
        self._folder = folders[0]
        self.read()

    def read(self) -> float:
        """Watts now. Raises SensorUnavailableError where no such power goes through USB-C."""
        # The sign of the current only tells which way round the meter is plugged in.
        watts = abs(_volts_times_amperes(self._folder, voltage=0, current=1))
        low, high = _POWERZ_WATTS
        if not low <= watts <= high:
            raise SensorUnavailableError(
                f"powerz: {watts:.3g} W go through the meter: it is not in this board's supply"
            )
        return watts


def _named(sys: Path) -> list[tuple[Path, str]]:
    folders = [f for f in entries(sys / "class/hwmon") if is_there(f / "name")]
    return [(folder, read_text(folder / "name")) for folder in folders]


def _chips(sys: Path) -> list[_Chip]:
    found = [
        (folder, name)
        for folder, name in _named(sys)
        if name in _SINGLE_CHANNEL or name == _TRIPLE_CHANNEL
    ]
    if not found:
        raise SensorUnavailableError("the kernel knows no INA current sensor on this board")
    often = Counter(name for _, name in found)
    chips = []
    for folder, name in found:
        address = (folder / "device").resolve().name
        chip_id = name if often[name] == 1 else f"{name}@{address}"
        chips.append(_Chip(name, address, chip_id, folder))
    return sorted(chips, key=lambda chip: chip.id)


def _board_supplies(chips: list[_Chip], settings: PowerSettings) -> list[_Supply]:
    wanted = settings.board_supply
    chosen = [chip for chip in chips if any(chip.is_called(name) for name in wanted)]
    unknown = [name for name in wanted if not any(chip.is_called(name) for chip in chips)]
    known = ", ".join(chip.id for chip in chips)
    if unknown:
        raise SensorUnavailableError(
            f"board_supply names {unknown[0]}, and this board has {known}: mend the agent's"
            " config.json"
        )
    if not wanted:
        # A chip that the board's maker put in front of the whole board needs no one to say so.
        labelled = [chip for chip in chips if _board_channels(chip)]
        chosen = labelled if len(chips) > 1 else chips
    if not chosen or (len(chosen) > 1 and not wanted):
        raise SensorUnavailableError(
            f"this board has several current sensors ({known}) and it is not known which of them"
            " supply the board: name them as board_supply in the agent's config.json"
        )
    return [_supply(chip, settings) for chip in chosen]


def _supply(chip: _Chip, settings: PowerSettings) -> _Supply:
    shunt_ohm = _setting(chip, settings.shunt_ohm)
    if chip.name == _TRIPLE_CHANNEL:
        channels = _chosen_channels(chip, settings)
        scales = [(n, _scale(chip, f"shunt{n}_resistor", shunt_ohm)) for n in channels]
        return _Supply(
            chip,
            lambda: sum(_volts_times_amperes(chip.folder, n, n) * scale for n, scale in scales),
            shunt_is_known=shunt_ohm is not None or channels == _board_channels(chip),
        )
    scale = _scale(chip, "shunt_resistor", shunt_ohm)
    power = chip.folder / "power1_input"
    return _Supply(
        chip,
        (lambda: read_integer(power) * _MICRO * scale)
        if is_there(power)
        else (lambda: _volts_times_amperes(chip.folder, 1, 1) * scale),
        shunt_is_known=shunt_ohm is not None or chip.name == "ina260",
    )


def _setting(chip: _Chip, values: Mapping[str, T]) -> T | None:
    return next((value for name, value in values.items() if chip.is_called(name)), None)


def _scale(chip: _Chip, shunt_file: str, shunt_ohm: float | None) -> float:
    """By how much the driver's figures are wrong: it divides by the shunt that it assumes."""
    if shunt_ohm is None:
        return 1.0
    path = chip.folder / shunt_file
    if not is_there(path):
        raise SensorUnavailableError(
            f"the driver of {chip.id} does not tell which shunt it assumes: take shunt_ohm out of"
            " the agent's config.json and set the shunt in the device tree"
        )
    return read_integer(path) * _MICRO / shunt_ohm


def _channel_labels(chip: _Chip) -> dict[int, str]:
    """The labels of the channels in use; one without a label is called by its number."""
    labels = {}
    for number in (1, 2, 3):
        enable, label = chip.folder / f"in{number}_enable", chip.folder / f"in{number}_label"
        disabled = is_there(enable) and read_integer(enable) == 0
        if is_there(chip.folder / f"in{number}_input") and not disabled:
            labels[number] = read_text(label) if is_there(label) else str(number)
    return {number: label for number, label in labels.items() if label != "NC"}


def _board_channels(chip: _Chip) -> list[int]:
    if chip.name != _TRIPLE_CHANNEL:
        return []
    return [number for number, label in _channel_labels(chip).items() if label in _BOARD_LABELS]


def _chosen_channels(chip: _Chip, settings: PowerSettings) -> list[int]:
    labels = _channel_labels(chip)
    wanted = _setting(chip, settings.channels)
    if wanted is None:
        chosen = _board_channels(chip) or list(labels)
        if len(chosen) == 1:
            return chosen
    elif wanted and set(wanted) <= set(labels.values()):
        return [number for number, label in labels.items() if label in wanted]
    raise SensorUnavailableError(
        f"it is not known which channels of {chip.id} supply the board: name some of"
        f" {', '.join(labels.values()) or 'none that is enabled'} as its channels in the agent's"
        " config.json"
    )


def _limits(sys: Path, supplies: list[_Supply]) -> tuple[tuple[float, float], str]:
    """Between which powers this board runs, and what to call it."""
    model = sys / "firmware/devicetree/base/model"
    name = read_text(model).rstrip("\0") if is_there(model) else ""
    for pattern, limits in _BOARDS:
        match = pattern.search(name)
        if match is not None:
            return limits, match.group()
    if all(supply.shunt_is_known for supply in supplies):
        return _ANY_BOARD_WATTS, "a board"
    return _ANY_SMALL_BOARD_WATTS, "a small board"


def _update_seconds(chip: _Chip) -> float:
    path = chip.folder / "update_interval"
    return max(_INA_SECONDS, read_integer(path) * _MILLI if is_there(path) else 0.0)


def _volts_times_amperes(folder: Path, voltage: int, current: int) -> float:
    millivolts = read_integer(folder / f"in{voltage}_input")
    return millivolts * read_integer(folder / f"curr{current}_input") * _MICRO
