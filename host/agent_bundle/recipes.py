"""Which versions make an agent on which machine: what protos/machines.json says works there."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from host.errors import UsageError
from protos.machines import RUNTIMES, CpuLevel, Pin, Row, Text, machines

NO_RUNTIME = "none"


class UnknownCombinationError(UsageError):
    """No agent is known for this machine with what was asked for."""


@dataclass(frozen=True)
class Machine:
    """`cpu` is the name of a level of machines.json; `glibc` the minor version of the oldest C
    library 2.x that a device with this Python has; `bits` the width of a pointer there.
    """

    architecture: str
    python: str
    cpu: str
    glibc: int
    bits: int

    @property
    def is_usual(self) -> bool:
        """Whether its CPU is of the level that is meant where none is named."""
        return self.cpu == machines().levels(self.architecture)[0].name


@dataclass(frozen=True)
class Recipe:
    """What goes into a bundle. `apt` are packages of Debian, by the module that proves each one;
    `missing` the runtimes that do not exist there, with the reason.
    """

    machine: Machine
    runtimes: tuple[str, ...]
    pins: tuple[Pin, ...]
    apt: MappingProxyType[str, str]
    missing: MappingProxyType[str, Text]


# Starts the installation: a Debian without its package python3-venv has none.
PIP = Pin("pip", "25.3")
ARCHITECTURES = tuple(dict.fromkeys(row.architecture for row in machines().rows))


def recipe_for(
    architecture: str, python: str, runtimes: Sequence[str] = (), cpu: str = ""
) -> Recipe:
    """The recipe with these runtimes, or with all that exist there where none is named; "none"
    alone makes an agent without any. `cpu` is a level or a core of that level; the newest is meant
    where it is empty.

    Raises UnknownCombinationError with what there is instead.
    """
    row, level = _row_of(architecture, python, cpu)
    chosen = _chosen(row, level, runtimes)
    sources = row.needed(chosen).values()
    debian = [source.debian for source in sources if source.debian is not None]
    return Recipe(
        Machine(
            architecture,
            python,
            level.name,
            machines().systems[python].glibc,
            machines().architectures[architecture].pointer_bits,
        ),
        chosen,
        tuple(dict.fromkeys(pin for source in sources for pin in source.pins)),
        MappingProxyType({package.module: package.name for package in debian}),
        MappingProxyType(_missing(row)),
    )


def _missing(row: Row) -> dict[str, Text]:
    reasons = {name: source.because for name, source in row.runtimes.items()}
    return {name: because for name, because in reasons.items() if because is not None}


def _row_of(architecture: str, python: str, cpu: str) -> tuple[Row, CpuLevel]:
    if architecture not in machines().architectures:
        raise UnknownCombinationError(
            f"no agent is known for {architecture}: the architectures are {_list(ARCHITECTURES)}"
            " (`uname -m` may name the kernel's; what counts is that of the device's Python)"
        )
    level = _level_of(architecture, cpu)
    row = machines().row(architecture, python, level.name)
    if row is not None:
        return row, level
    refusal = machines().refusal(architecture, python, level.name)
    what = f"{architecture} ({level.name})"
    if refusal is not None:
        raise UnknownCombinationError(f"no agent works on {what}: {refusal.because.en}")
    pythons = [row.python for row in _rows_of(architecture, level)]
    if not pythons:
        raise UnknownCombinationError(f"no agent works on {what} with any Python")
    raise UnknownCombinationError(
        f"no agent is known for {architecture} with Python {python}: there is one for"
        f" {_list(pythons)} (`python3 --version` on the device says which it has)"
    )


def _rows_of(architecture: str, level: CpuLevel) -> list[Row]:
    rows = machines().rows
    return [row for row in rows if row.architecture == architecture and level.name in row.cpus]


def _level_of(architecture: str, cpu: str) -> CpuLevel:
    levels = machines().levels(architecture)
    if not cpu:
        return levels[0]
    for level in levels:
        if cpu.lower() in (level.name, *level.cores):
            return level
    known = "; ".join(f"{level.name} ({', '.join(level.cores)})" for level in levels)
    raise UnknownCombinationError(
        f"no CPU {cpu!r} is known for {architecture}: --cpu takes {known}. `lscpu` on the device"
        " names its CPU, and `genba-agent doctor` there its level"
    )


def _chosen(row: Row, level: CpuLevel, runtimes: Sequence[str]) -> tuple[str, ...]:
    if not runtimes:
        return row.existing_runtimes()
    if NO_RUNTIME in runtimes:
        if set(runtimes) != {NO_RUNTIME}:
            raise UnknownCombinationError("--runtime none stands alone: leave the others out")
        return ()
    for name in runtimes:
        if name not in RUNTIMES:
            raise UnknownCombinationError(
                f"there is no runtime {name!r}: the runtimes are {_list([*RUNTIMES, NO_RUNTIME])}"
            )
        if not row.runtimes[name].exists:
            raise UnknownCombinationError(_instead(row, level, name))
    return tuple(name for name in RUNTIMES if name in runtimes)


def _instead(row: Row, level: CpuLevel, missing: str) -> str:
    """Why a runtime does not exist there, and every way around it."""
    ways = [f"use --runtime {' or '.join(known)}"] if (known := row.existing_runtimes()) else []
    others = [
        other.python
        for other in _rows_of(row.architecture, level)
        if other.runtimes[missing].exists
    ]
    if others:
        ways.append(f"a system with Python {_list(others, 'or')} has it")
    if not known:
        ways.append(
            "--runtime none makes an agent that attaches and tells what the device is, but measures"
            " no model"
        )
    because = row.runtimes[missing].because
    reason = f" ({because.en})" if because is not None else ""
    return (
        f"the runtime {missing} does not exist for {row.architecture} with Python"
        f" {row.python}{reason}: {'; '.join(ways)}"
    )


def _list(words: Sequence[str], join: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {join} {words[-1]}"
