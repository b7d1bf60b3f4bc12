"""Wheels for another machine, by pip: from its index, or from a folder without a network."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from host.agent_bundle.recipes import Machine
from host.errors import GenbaError, UsageError
from protos.machines import Pin

Progress = Callable[[str, int, int], None]
"""Called with what is under way, how many are done and how many there are."""

# A wheel is named for the oldest C library 2.x it runs with; these are the names in use, and pip
# knows the older names that manylinux2014 stands for.
_GLIBC_OF_WHEELS = (17, 24, 27, 28, 31, 34, 35, 39)
_DOWNLOAD_SECONDS = 1800.0
# What pip says where it is the network that fails, and not the version that is missing.
_NO_NETWORK = re.compile(
    r"connection (error|broken|refused|to \S+ timed out)|newconnectionerror|max retries exceeded"
    r"|name resolution|name or service not known|proxyerror|read timed out|network is unreachable",
    re.IGNORECASE,
)


class NoIndexError(GenbaError):
    """The package index cannot be reached."""


class MissingWheelError(GenbaError):
    """A wheel that the bundle needs does not exist where it was looked for."""


class NoSuchFolderError(UsageError):
    """The folder of wheels does not exist."""


@dataclass(frozen=True)
class Wheels:
    """Where wheels come from: the package index that pip is set up for, or else `folder` alone."""

    folder: Path | None = None

    @property
    def origin(self) -> str:
        return "package index" if self.folder is None else "folder of wheels"

    def fetch(
        self, pins: Sequence[Pin], machine: Machine, target: Path, progress: Progress
    ) -> dict[Pin, Path]:
        """Put the wheel of each pin for this machine into `target`.

        Raises NoIndexError, MissingWheelError with the names of the missing ones, and
        NoSuchFolderError.
        """
        if self.folder is not None and not self.folder.is_dir():
            raise NoSuchFolderError(f"there is no folder of wheels at {self.folder}")
        found, missing = {}, []
        for done, pin in enumerate(pins):
            progress(f"wheels ({pin.name})", done, len(pins))
            if self._download(pin, machine, target):
                found[pin] = _wheel_of(pin, target)
            else:
                missing.append(pin)
        progress("wheels", len(pins), len(pins))
        if missing:
            raise MissingWheelError(self._missing(missing, machine))
        return found

    def _download(self, pin: Pin, machine: Machine, target: Path) -> bool:
        """False where there is no such wheel."""
        options = [*download_options(machine), "--progress-bar=off", "--dest", str(target)]
        environment = dict(os.environ)
        if self.folder is not None:
            options += ["--isolated", "--no-index", "--find-links", str(self.folder.absolute())]
            environment["PIP_CONFIG_FILE"] = os.devnull
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, str(pin)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=_DOWNLOAD_SECONDS,
        )
        if done.returncode == 0:
            return True
        if "No module named pip" in done.stderr:
            raise MissingWheelError(
                "wheels are fetched by pip, which this Python lacks: python3 -m ensurepip"
            )
        if self.folder is None and _NO_NETWORK.search(done.stderr):
            raise NoIndexError(
                f"the package index cannot be reached for {pin}: run this where there is a"
                " network, or name a folder with the wheels by --wheels"
            )
        if "No matching distribution" in done.stderr:
            return False
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingWheelError(f"pip cannot fetch {pin}: {last}")

    def _missing(self, missing: Sequence[Pin], machine: Machine) -> str:
        names = " ".join(str(pin) for pin in missing)
        if self.folder is None:
            return (
                f"the package index has no wheel for {machine.architecture} and Python"
                f" {machine.python} of {names}: fetch it elsewhere, and give --wheels"
            )
        options = " ".join(download_options(machine))
        return (
            f"{self.folder} lacks {names}: where there is a network, run"
            f" python3 -m pip download {options} --dest wheels {names}"
        )


def download_options(machine: Machine) -> list[str]:
    """What makes `pip download` look for wheels of another machine and for nothing else."""
    architecture = machine.architecture
    platforms = [f"linux_{architecture}", f"manylinux2014_{architecture}"]
    platforms += [
        f"manylinux_2_{minor}_{architecture}"
        for minor in _GLIBC_OF_WHEELS
        if minor <= machine.glibc
    ]
    abis = (f"cp{machine.python.replace('.', '')}", "abi3", "none")
    return [
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={machine.python}",
        *(f"--abi={abi}" for abi in abis),
        *(f"--platform={platform}" for platform in platforms),
    ]


def _wheel_of(pin: Pin, folder: Path) -> Path:
    return next(path for path in sorted(folder.glob("*.whl")) if _is_of(pin, path))


def _is_of(pin: Pin, path: Path) -> bool:
    name, version = path.name.split("-")[:2]
    return (_normal(name), version) == (_normal(pin.name), pin.version)


def _normal(name: str) -> str:
    """As indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
