"""What a check of the device says, and what the checks are given."""

from __future__ import annotations

import datetime as dt
import enum
import os
import platform
import pwd
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Callable

from device_agent.runtimes.base import RuntimeFacts
from device_agent.sensors.base import PowerSourceFacts
from device_agent.state import Home
from device_agent.surroundings import Surroundings
from device_agent.system import GuardFacts

MEBI = 1 << 20


class State(enum.Enum):
    """How it stands with one thing."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, what that means for figures, and the command,
    or the deed, that mends it; empty where nothing has to be mended.
    """

    name: str
    state: State
    found: str
    meaning: str = ""
    mend: str = ""


def installed_version(package: str) -> str | None:
    """The version that this Python finds, without importing it; None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Patient:
    """The device, and what was probed on it before."""

    home: Home
    runtimes: tuple[RuntimeFacts, ...]
    power_sources: tuple[PowerSourceFacts, ...]
    guards: tuple[GuardFacts, ...] = ()
    around: Surroundings = field(default_factory=Surroundings)
    today: Callable[[], dt.date] = lambda: dt.datetime.now(dt.timezone.utc).date()
    online_cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    cgroups: Path = Path("/sys/fs/cgroup")
    machine: str = field(default_factory=lambda: os.uname().machine)
    pointer_bits: int = struct.calcsize("P") * 8
    python: str = field(default_factory=lambda: ".".join(platform.python_version_tuple()[:2]))
    installed: Callable[[str], str | None] = installed_version

    @property
    def cpu_folder(self) -> Path:
        return self.around.roots.sys / "devices/system/cpu"


Look = Callable[[Patient], Iterator[Check]]
"""Looks at one thing; several checks, or none, may come of it."""


def user_name() -> str:
    """Of the user that this process runs as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def meminfo(patient: Patient) -> dict[str, int]:
    """Bytes by name, of /proc/meminfo."""
    text = text_of(patient.around.roots.proc / "meminfo")
    lines = re.findall(r"^(\w+):\s*(\d+) kB$", text, re.MULTILINE)
    return {name: int(value) * 1024 for name, value in lines}


def text_of(path: Path) -> str:
    """The file's text; empty where it is not there, which counts as not known."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def cgroup_folders(patient: Patient, controller: str) -> list[Path]:
    """The agent's own group and those above it, of both versions of cgroups(7)."""
    folders = []
    for line in text_of(patient.around.roots.proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = patient.cgroups / controllers if controllers else patient.cgroups
        own = top / path.lstrip("/")
        # Inside a container the path may be that of outside.
        for folder in (own, *own.parents):
            folders.append(folder)
            if folder == top:
                break
    return folders
