"""The agent's own footing: its Python, its identity, the cage around its workers and the date."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from device_agent.doctor.checkup import Check, Look, Patient, State
from device_agent.errors import AgentError
from device_agent.requests import FILES, MEMORY, NETWORK, SYSTEM_CALLS

_FIRST_YEAR = 2020
_NAMESPACES = "sudo sysctl -w user.max_user_namespaces=1000 kernel.unprivileged_userns_clone=1"
_FILTER = "a kernel with CONFIG_SECCOMP_FILTER, and a container without --security-opt seccomp"
# What a missing wall lets a model do, and what puts it up.
_MISSING_GUARDS = {
    NETWORK: ("reach the plant's network", f"{_NAMESPACES}, or {_FILTER}"),
    FILES: (
        "change this user's files and read the device's key",
        f"a kernel since 5.13 with CONFIG_SECURITY_LANDLOCK, or {_NAMESPACES}",
    ),
    SYSTEM_CALLS: ("start processes and disturb others of this user", _FILTER),
    MEMORY: ("take all memory", "a kernel that keeps to RLIMIT_AS (ulimit -v)"),
}


def _python(_: Patient) -> Iterator[Check]:
    bits = 64 if sys.maxsize > 1 << 32 else 32
    found = f"Python {'.'.join(str(part) for part in sys.version_info[:3])}, {bits}-bit"
    yield Check("python", State.OK, found)


def _enrolment(patient: Patient) -> Iterator[Check]:
    try:
        enrolled = patient.home.is_enrolled()
        patient.home.limits()
        patient.home.power_settings()
    except AgentError as error:
        yield Check(
            "configuration",
            State.FAIL,
            str(error),
            "the agent does not start",
            f"edit {patient.home.path / 'config.json'}",
        )
        return
    if enrolled:
        yield Check("enrolment", State.OK, "this device has an identity")
        return
    yield Check(
        "enrolment",
        State.WARN,
        "this device is not enrolled",
        "no host sends it jobs",
        "genba-agent enroll --token TOKEN, with what `genba device enroll NAME` prints on the host",
    )


def _guards(patient: Patient) -> Iterator[Check]:
    for guard in patient.guards:
        name = f"guard {guard.name}"
        if guard.works:
            yield Check(name, State.OK, guard.how)
            continue
        meaning, mend = _MISSING_GUARDS[guard.name]
        yield Check(name, State.WARN, guard.why_not, f"a hostile model could {meaning}", mend)


def _calendar(patient: Patient) -> Iterator[Check]:
    today = patient.today()
    if today.year >= _FIRST_YEAR:
        yield Check("date", State.OK, today.isoformat())
        return
    yield Check(
        "date",
        State.FAIL,
        today.isoformat(),
        "certificates count as not yet valid, so the host cannot be reached",
        "sudo timedatectl set-ntp true, or without a network: sudo date -s 'YYYY-MM-DD HH:MM'",
    )


LOOKS: tuple[Look, ...] = (_python, _enrolment, _guards, _calendar)
