"""Which runtimes work here, and for those that do not: the exact versions that would, or why none
does. What works on which machine stands in protos/machines.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from device_agent.doctor.checkup import Check, Look, Patient, State
from device_agent.runtimes.base import RuntimeFacts
from device_agent.system import read_cpu_flags
from protos.machines import Clash, CpuLevel, Row, Source, machines

_OTHER_PYTHON = "use a system whose Python is {}"
# An environment made otherwise does not see packages of the system.
_SEEN = "in an environment made by `python3 -m venv --system-site-packages`"


@dataclass(frozen=True)
class _Here:
    """This machine as the table knows it; None where the table does not know it."""

    architecture: str | None
    level: CpuLevel | None
    row: Row | None
    features: frozenset[str]


def _here(patient: Patient) -> _Here:
    table = machines()
    features = frozenset(read_cpu_flags(patient.around.roots))
    architecture = table.architecture_of(patient.machine, patient.pointer_bits)
    if architecture is None:
        return _Here(None, None, None, features)
    level = table.level_of(architecture, features)
    return _Here(architecture, level, table.row(architecture, patient.python, level.name), features)


def _machine(patient: Patient) -> Iterator[Check]:
    """Whether the table knows this machine at all."""
    here = _here(patient)
    if here.architecture is None or here.level is None:
        found = f"{patient.machine}, {patient.pointer_bits}-bit Python"
        known = ", ".join(machines().architectures)
        yield Check(
            "machine",
            State.WARN,
            f"{found}: no machine of genba's table",
            "which versions work here is not known",
            f"use one of {known}, or go on: what the runtimes say below counts",
        )
        return
    found = f"{here.architecture}, {here.level.label.en}, Python {patient.python}"
    if here.row is not None:
        ran = ", ".join(trial.cpu for trial in here.row.ran)
        yield Check("machine", State.OK, f"{found}; tried on: {ran}" if ran else found)
        return
    refusal = machines().refusal(here.architecture, patient.python, here.level.name)
    yield Check(
        "machine",
        State.FAIL if refusal else State.WARN,
        found,
        refusal.because.en if refusal else "genba's table has no versions for this Python",
        _other_system(here) or "use another machine",
    )


def _other_system(here: _Here) -> str:
    """The systems on which this machine works; empty where there are none."""
    pythons = [
        row.python
        for row in machines().rows
        if row.architecture == here.architecture
        and here.level is not None
        and here.level.name in row.cpus
    ]
    named = [f"{python} ({machines().systems[python].name})" for python in pythons]
    return _OTHER_PYTHON.format(" or ".join(named)) if named else ""


def _runtimes(patient: Patient) -> Iterator[Check]:
    here = _here(patient)
    some_work = any(runtime.works for runtime in patient.runtimes)
    for runtime in patient.runtimes:
        name = f"runtime {runtime.name}"
        source = here.row.runtimes.get(runtime.name) if here.row else None
        if runtime.works:
            yield Check(name, State.OK, f"{runtime.library} {runtime.version}")
        elif source is not None and source.because is not None:
            yield _none_here(name, source.because.en, here, some_work)
        else:
            yield _broken(patient, runtime, here, some_work)


def _none_here(name: str, because: str, here: _Here, some_work: bool) -> Check:
    """Nothing to mend where another runtime works; otherwise what to take in its place."""
    found = f"none here, because {because}"
    existing = here.row.existing_runtimes() if here.row else ()
    if some_work or existing:
        return Check(name, State.OK, found)
    return Check(
        name,
        State.FAIL,
        found,
        "no model can be measured here",
        "use another system or machine: see genba's README, Will it run on my machine?",
    )


def _broken(patient: Patient, runtime: RuntimeFacts, here: _Here, some_work: bool) -> Check:
    return Check(
        f"runtime {runtime.name}",
        State.WARN if some_work else State.FAIL,
        runtime.why_not,
        f"models for {runtime.name} cannot be measured here"
        if some_work
        else "no model can be measured here",
        _mend(patient, here.row, runtime.name)
        or f"{sys.executable} -m pip install 'genba[{runtime.name}]'",
    )


def _mend(patient: Patient, row: Row | None, runtime: str) -> str:
    """The commands for the versions that work here; empty where the table has none."""
    source = row.runtimes.get(runtime) if row else None
    if row is None or source is None:
        return ""
    return _install(patient, [row.packages["numpy"], source])


def _install(patient: Patient, sources: Sequence[Source]) -> str:
    pins = [str(pin) for source in sources for pin in source.pins]
    debian = [source.debian for source in sources if source.debian is not None]
    packages = [one.name for one in debian if patient.installed(one.module) is None]
    commands = []
    if packages:
        commands.append(f"sudo apt install {' '.join(packages)}")
    if pins:
        # Pip would judge by the kernel's name for the machine, and take what dies on an old CPU.
        pip = f"{sys.executable} -m pip install --no-deps --only-binary=:all:"
        commands.append(f"{pip} {' '.join(pins)}")
    return " && ".join(commands) + (f", {_SEEN}" if packages else "")


def _clashes(patient: Patient) -> Iterator[Check]:
    """Installed versions that are known to fail on this machine, or beside each other."""
    here = _here(patient)
    installed = {
        name: version
        for name in {clash.package for clash in machines().clashes}
        | {clash.beside for clash in machines().clashes}
        if name and (version := patient.installed(name)) is not None
    }
    for clash in machines().clashes:
        if clash.happens(installed, here.architecture or "", here.features):
            yield Check(
                f"package {clash.package}",
                State.FAIL,
                f"{clash.package} {installed[clash.package]}: {clash.because.en}",
                "what needs it does not work, whatever else is installed",
                _instead(patient, clash, here.row),
            )


def _instead(patient: Patient, clash: Clash, row: Row | None) -> str:
    """The version of this machine's row; where it has none of the package, away with it."""
    away = f"{sys.executable} -m pip uninstall {clash.package}"
    source = _source_of(clash.package, row) if row else None
    if source is None:
        return away
    install = _install(patient, [source])
    # What pip put into this environment hides the system's.
    return f"{away} && {install}" if source.debian is not None else install


def _source_of(package: str, row: Row) -> Source | None:
    if package in row.packages:
        return row.packages[package]
    runtimes = row.runtimes.values()
    return next((one for one in runtimes if one.pins and one.pins[0].name == package), None)


LOOKS: tuple[Look, ...] = (_machine, _runtimes, _clashes)
