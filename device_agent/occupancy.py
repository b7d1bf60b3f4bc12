"""Who had the CPU between two moments (proc(5), /proc/stat and /proc/PID/stat)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import NotReadyError

# Fields of a line of /proc/stat after its name.
_IDLE_FIELDS = (3, 4)  # idle, iowait
_FIELDS = 8  # up to steal; guest time is in user time already
# Programs below this share of one core are not worth naming.
_NAMED_SHARE = 0.01


@dataclass(frozen=True)
class Consumer:
    """A program and the CPU time that it took, in cores."""

    name: str
    pid: int
    cores: float


@dataclass(frozen=True)
class Usage:
    """`foreign_cpu` is what others than the agent took, as a share of all cores; `core_loads` are
    of each core and count everybody; `consumers` are others than the agent, the greediest first.
    """

    foreign_cpu: float
    core_loads: Mapping[int, float]
    consumers: tuple[Consumer, ...]


@dataclass(frozen=True)
class Snapshot:
    """Counters of the kernel at one moment."""

    cores: Mapping[int, Sequence[int]]
    programs: Mapping[int, _Program]


def take_snapshot(proc: Path) -> Snapshot:
    """Raises NotReadyError where the kernel does not count the time of its cores."""
    return Snapshot(_cores(proc), _programs(proc))


def usage_between(before: Snapshot, after: Snapshot, own_pid: int) -> Usage:
    """What happened between two moments; `own_pid` and every process below it are the agent.

    Raises NotReadyError where the counters stand still.
    """
    total, busy, loads = _usage(before.cores, after.cores)
    own = _own_ticks(after.programs, own_pid) - _own_ticks(before.programs, own_pid)
    return Usage(
        foreign_cpu=min(1.0, max(0.0, busy - own) / total),
        core_loads=loads,
        consumers=_consumers(before.programs, after.programs, own_pid, total / len(loads)),
    )


@dataclass(frozen=True)
class _Program:
    """A line of /proc/PID/stat. `ticks` with those of its children that ended."""

    pid: int
    name: str
    parent: int
    started: int
    ticks: int
    ticks_with_children: int


def _programs(proc: Path) -> dict[int, _Program]:
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            program = _program(_text(entry / "stat"))
            if program is not None:
                found[program.pid] = program
    return found


def _program(line: str) -> _Program | None:
    """None where the process ended before it was read."""
    match = re.match(r"(\d+) \((.*)\) (.*)", line, re.DOTALL)
    if match is None:
        return None
    fields = match.group(3).split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return _Program(
        pid=int(match.group(1)),
        name=match.group(2),
        parent=int(fields[1]),
        started=int(fields[19]),
        ticks=user + system,
        ticks_with_children=user + system + children_user + children_system,
    )


def _own(programs: Mapping[int, _Program], pid: int) -> set[int]:
    """A process and everything below it."""
    own, grown = {pid}, True
    while grown:
        below = {p.pid for p in programs.values() if p.parent in own} - own
        own |= below
        grown = bool(below)
    return own


def _own_ticks(programs: Mapping[int, _Program], pid: int) -> int:
    return sum(programs[p].ticks_with_children for p in _own(programs, pid) if p in programs)


def _consumers(
    before: Mapping[int, _Program],
    after: Mapping[int, _Program],
    pid: int,
    ticks_per_core: float,
) -> tuple[Consumer, ...]:
    own = _own(after, pid)
    found = []
    for program in after.values():
        earlier = before.get(program.pid)
        if program.pid in own:
            continue
        ticks = program.ticks
        if earlier is not None and earlier.started == program.started:
            ticks -= earlier.ticks
        cores = ticks / ticks_per_core
        if cores >= _NAMED_SHARE:
            found.append(Consumer(program.name, program.pid, cores))
    return tuple(sorted(found, key=lambda consumer: -consumer.cores))


def _cores(proc: Path) -> dict[int, list[int]]:
    """Ticks of every core by kind. Raises NotReadyError where the kernel counts none."""
    lines = re.findall(r"^cpu(\d+) (.*)$", _text(proc / "stat"), re.MULTILINE)
    if not lines:
        raise NotReadyError(
            f"{proc / 'stat'} does not tell how busy the cores are, so nobody knows whether other"
            " programs disturb: mount /proc, or measure outside of this container"
        )
    return {int(cpu): [int(word) for word in rest.split()[:_FIELDS]] for cpu, rest in lines}


def _usage(
    before: Mapping[int, Sequence[int]], after: Mapping[int, Sequence[int]]
) -> tuple[float, float, dict[int, float]]:
    """All ticks that went by, those of them that were busy, and the load of each core. Time that
    the hypervisor stole counts as busy: somebody else had the core.
    """
    total = busy = 0.0
    loads = {}
    for cpu in sorted(set(before) & set(after)):
        spent = [max(0, b - a) for a, b in zip(before[cpu], after[cpu])]
        idle = sum(spent[field] for field in _IDLE_FIELDS if field < len(spent))
        total += sum(spent)
        busy += sum(spent) - idle
        loads[cpu] = (sum(spent) - idle) / sum(spent) if any(spent) else 0.0
    if total == 0.0:
        raise NotReadyError(
            "the kernel does not count the time of its cores, so nobody knows whether other"
            " programs disturb: measure outside of this container, or observe for longer"
        )
    return total, busy, loads


def _text(path: Path) -> str:
    """The file's text; empty where it is not there, or where its process ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
