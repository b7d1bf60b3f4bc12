"""Which versions run on which old machine: machines.json, the one table of it, and its reader.

The bundle for devices without a network, `genba-agent doctor` and the README all read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

RUNTIMES = ("onnx", "tflite", "ncnn")
PACKAGES = ("grpcio", "protobuf", "psutil", "numpy")
_FILE = Path(__file__).with_name("machines.json")
_FORMAT = "genba-machines/1"


class BadTableError(Exception):
    """The table is not what it claims to be."""


@dataclass(frozen=True)
class Text:
    """A sentence for people, in English and Japanese."""

    en: str
    ja: str


@dataclass(frozen=True)
class Pin:
    """One exact version of a package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class DebianPackage:
    """A package of the system itself, the module that proves it, and the version tried."""

    name: str
    version: str
    module: str


@dataclass(frozen=True)
class Source:
    """How one package or runtime comes onto a machine: by wheels (the first is the package itself,
    the others are what it needs), or by a package of Debian, or not at all, and then because.
    """

    pins: tuple[Pin, ...] = ()
    debian: DebianPackage | None = None
    because: Text | None = None

    @property
    def exists(self) -> bool:
        return self.because is None


@dataclass(frozen=True)
class Architecture:
    """What a wheel is built for. `machines` are names that a kernel gives under such a system; with
    the width of a pointer they tell the architecture, alone they do not.
    """

    name: str
    label: Text
    pointer_bits: int
    machines: tuple[str, ...]


@dataclass(frozen=True)
class CpuLevel:
    """What a CPU can at least do: any one of `features` in /proc/cpuinfo tells it; none is needed
    for an architecture's lowest level. `cores` are names of CPUs of this level.
    """

    name: str
    architecture: str
    features: tuple[str, ...]
    label: Text
    cores: tuple[str, ...]


@dataclass(frozen=True)
class System:
    """The usual system with this Python. `glibc` is the minor version of its C library 2.x."""

    python: str
    name: str
    glibc: int


@dataclass(frozen=True)
class Trial:
    """A CPU on which all of a row was seen to run: `how` is "emulated" or "native"."""

    how: str
    cpu: str


@dataclass(frozen=True)
class Row:
    """What works on one architecture with one Python, on these CPU levels alike. `ran` is empty
    where the versions are known to exist and nothing more.
    """

    architecture: str
    python: str
    cpus: tuple[str, ...]
    packages: Mapping[str, Source]
    runtimes: Mapping[str, Source]
    ran: tuple[Trial, ...]

    def existing_runtimes(self) -> tuple[str, ...]:
        """Those that run here, the usual one first."""
        return tuple(name for name, source in self.runtimes.items() if source.exists)

    def needed(self, runtimes: Iterable[str]) -> dict[str, Source]:
        """All that an agent with these runtimes needs, by package or runtime; an agent without
        any needs no numpy.
        """
        chosen = {name: self.runtimes[name] for name in runtimes}
        return {
            **{name: source for name, source in self.packages.items() if name != "numpy" or chosen},
            **chosen,
        }


@dataclass(frozen=True)
class Refusal:
    """A machine on which no agent works."""

    architecture: str
    cpus: tuple[str, ...]
    pythons: tuple[str, ...]
    because: Text


@dataclass(frozen=True)
class Clash:
    """Versions of a package that are known to fail: from `at_least` to before `below`, on a CPU
    with none of the features `lacking`, or beside another package from `beside_at_least` on.
    """

    package: str
    because: Text
    at_least: str = ""
    below: str = ""
    architecture: str = ""
    lacking: tuple[str, ...] = ()
    beside: str = ""
    beside_at_least: str = ""

    def happens(
        self, installed: Mapping[str, str], architecture: str, features: frozenset[str]
    ) -> bool:
        """Whether these installed versions fail on this CPU. What is not known does not fail."""
        version = installed.get(self.package)
        if version is None or not _between(version, self.at_least, self.below):
            return False
        if self.lacking:
            lacks = bool(features) and not features & set(self.lacking)
            return lacks and architecture == self.architecture
        other = installed.get(self.beside)
        return other is not None and _between(other, self.beside_at_least, "")


@dataclass(frozen=True)
class Machines:
    """The whole table."""

    architectures: Mapping[str, Architecture]
    cpus: tuple[CpuLevel, ...]
    systems: Mapping[str, System]
    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...]
    clashes: tuple[Clash, ...]

    def architecture_of(self, machine: str, pointer_bits: int) -> str | None:
        """What wheels must be built for: a 32-bit system often runs under a 64-bit kernel, whose
        name for the machine is then the wrong one. None where the table has no such architecture.
        """
        for name, architecture in self.architectures.items():
            if pointer_bits == architecture.pointer_bits and machine in architecture.machines:
                return name
        return None

    def levels(self, architecture: str) -> tuple[CpuLevel, ...]:
        """The levels of an architecture, the newest first."""
        return tuple(level for level in self.cpus if level.architecture == architecture)

    def level(self, architecture: str, name: str) -> CpuLevel:
        """The level of this name. Raises KeyError where there is none."""
        return {level.name: level for level in self.levels(architecture)}[name]

    def level_of(self, architecture: str, features: frozenset[str]) -> CpuLevel:
        """The highest level that a CPU with these features reaches; without any known feature the
        newest, as most machines are.
        """
        levels = self.levels(architecture)
        if not features:
            return levels[0]
        return next(
            level for level in levels if not level.features or features & set(level.features)
        )

    def row(self, architecture: str, python: str, cpu: str) -> Row | None:
        """The row of this machine; None where there is none, or no agent works there."""
        for row in self.rows:
            if (row.architecture, row.python) == (architecture, python) and cpu in row.cpus:
                return row
        return None

    def refusal(self, architecture: str, python: str, cpu: str) -> Refusal | None:
        """Why no agent works on this machine; None where that is not known."""
        for refusal in self.refused:
            machine = refusal.architecture == architecture and cpu in refusal.cpus
            if machine and python in refusal.pythons:
                return refusal
        return None


@lru_cache(maxsize=1)
def machines() -> Machines:
    """The table that comes with genba."""
    return read_machines(_FILE.read_text(encoding="utf-8"))


def read_machines(text: str) -> Machines:
    """The table of this JSON text. Raises BadTableError where it does not hold together."""
    try:
        return _table(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadTableError(f"the table of machines is damaged: {error!r}") from error


def _table(value: Mapping[str, Any]) -> Machines:
    if value["format"] != _FORMAT:
        raise BadTableError(f"the table of machines is {value['format']!r} and not {_FORMAT!r}")
    sources = {name: _source(name, cell) for name, cell in value["cells"].items()}
    return Machines(
        {name: _architecture(name, entry) for name, entry in value["architectures"].items()},
        tuple(_level(entry) for entry in value["cpus"]),
        {python: System(python, **entry) for python, entry in value["systems"].items()},
        tuple(_row(entry, sources) for entry in value["rows"]),
        tuple(_refusal(entry) for entry in value["refused"]),
        tuple(_clash(entry) for entry in value["clashes"]),
    )


def _source(name: str, cell: Mapping[str, Any]) -> Source:
    if "pins" in cell:
        return Source(pins=tuple(Pin(*pin.split("==")) for pin in cell["pins"]))
    if "debian" in cell:
        return Source(debian=DebianPackage(cell["debian"], cell["version"], cell["module"]))
    if "because" in cell:
        return Source(because=Text(**cell["because"]))
    raise BadTableError(f"the cell {name!r} has neither pins nor a package nor a reason")


def _architecture(name: str, entry: Mapping[str, Any]) -> Architecture:
    return Architecture(
        name, Text(**entry["label"]), int(entry["pointer_bits"]), tuple(entry["machines"])
    )


def _level(entry: Mapping[str, Any]) -> CpuLevel:
    return CpuLevel(
        entry["name"],
        entry["architecture"],
        tuple(entry["features"]),
        Text(**entry["label"]),
        tuple(entry["cores"]),
    )


def _row(entry: Mapping[str, Any], sources: Mapping[str, Source]) -> Row:
    return Row(
        entry["architecture"],
        entry["python"],
        tuple(entry["cpus"]),
        {name: sources[entry["packages"][name]] for name in PACKAGES},
        {name: sources[entry["runtimes"][name]] for name in RUNTIMES},
        tuple(Trial(**trial) for trial in entry["ran"]),
    )


def _refusal(entry: Mapping[str, Any]) -> Refusal:
    return Refusal(
        entry["architecture"],
        tuple(entry["cpus"]),
        tuple(entry["pythons"]),
        Text(**entry["because"]),
    )


def _clash(entry: Mapping[str, Any]) -> Clash:
    because, lacking = Text(**entry["because"]), tuple(entry.get("lacking", ()))
    return Clash(**{**entry, "because": because, "lacking": lacking})


def _between(version: str, at_least: str, below: str) -> bool:
    number = _number(version)
    return (not at_least or number >= _number(at_least)) and (not below or number < _number(below))


def _number(version: str) -> tuple[int, ...]:
    """The leading numbers of a version; what follows them (a candidate, Debian's revision) does not
    decide here.
    """
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
