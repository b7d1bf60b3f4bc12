"""Setting the agent up as a service of systemd, and taking it away again."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

from device_agent.errors import UsageError
from device_agent.files import write_atomically
from device_agent.service.standing import Interpreter, ServiceError
from device_agent.service.unit import DEFAULT_USER, SERVICE_HOME, UNIT_DIR, UNIT_NAME, Unit
from device_agent.state import Home

_BOOTED = "run/systemd/system"  # sd_booted(3)
# What ProtectHome= and PrivateTmp= of the unit hide.
_HIDDEN = tuple(Path(name) for name in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108 - only compared
_SAFE_PATH = re.compile(r"/[A-Za-z0-9._+@/-]*")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# Raspberry Pi OS gives /dev/vcio and /dev/vcio_gencmd to this group.
_DEVICE_GROUPS = ("video",)
_COMMAND_SECONDS = 120.0

Run = Callable[[Sequence[str]], None]
"""Runs a command of the system. Raises ServiceError with what it said where it fails."""
Say = Callable[[str], None]


class ServiceUsageError(UsageError):
    """What was asked for cannot be written into a unit."""


def planned_unit(home: Path, user: str, interpreter: Interpreter) -> Unit:
    """The unit for this device.

    Raises ServiceUsageError for a name or path that no unit can carry, and ServiceError where the
    service could not see its own files.
    """
    if not _USER_NAME.fullmatch(user):
        raise ServiceUsageError(f"{user!r} is no name of a user: use small letters and digits")
    home = (
        home.resolve()
    )  # a unit takes no "..", and a link may lead where the service sees nothing
    executable = interpreter.executable
    if not executable.is_absolute():
        raise ServiceError(
            f"this Python does not know where it lies (it says {executable}): start the agent"
            " by its absolute path, such as /opt/genba-agent/bin/genba-agent install"
        )
    for path in (home, executable, interpreter.prefix):
        if not _SAFE_PATH.fullmatch(str(path)):
            raise ServiceUsageError(
                f"a service cannot use {str(path)!r}: choose a path of letters, digits and ._+@-"
            )
    _refuse_hidden(home, "the agent's folder", f"move it: sudo mv {home} {SERVICE_HOME}")
    for path in (executable, executable.resolve(), interpreter.prefix, *interpreter.needed):
        _refuse_hidden(
            path, "the Python of the agent", "install the agent below /opt, as install.sh does"
        )
    return Unit(
        executable, interpreter.prefix, home, user, _group_of(user), tuple(_device_groups())
    )


def _refuse_hidden(path: Path, what: str, mend: str) -> None:
    for folder in _HIDDEN:
        if path == folder or folder in path.parents:
            raise ServiceError(
                f"{what}, {path}, lies in {folder}, which a service does not see: {mend}"
            )


def _group_of(user: str) -> str:
    """The name of its first group; a user that is yet to be made gets one of its own name."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def _device_groups() -> Iterator[str]:
    """Only those that exist: a unit with an unknown group does not start."""
    for name in _DEVICE_GROUPS:
        with contextlib.suppress(KeyError):
            yield grp.getgrnam(name).gr_name


def run_command(command: Sequence[str]) -> None:
    """Run a command of the system to its end.

    Raises ServiceError with what it said where it is missing, fails or hangs.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"`{' '.join(command)}` cannot be run: {error}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise ServiceError(f"`{' '.join(command)}` failed: {said}")


@dataclasses.dataclass(frozen=True)
class Manager:
    """The systemd of this machine, which this process may ask to change services."""

    unit_dir: Path = UNIT_DIR
    run: Run = run_command

    @staticmethod
    def of_this_machine(command: str, root: Path = Path("/"), uid: int | None = None) -> Manager:
        """What `genba-agent COMMAND` needs.

        Raises ServiceError where systemd did not start this system, or the user is not root.
        """
        if not (root / _BOOTED).is_dir():
            raise ServiceError(
                "this system was not started by systemd: have `genba-agent run` started by what"
                " starts programs here"
            )
        if (os.geteuid() if uid is None else uid) != 0:
            raise ServiceError(
                f"only root may change services: sudo {sys.executable} -m device_agent {command}"
            )
        return Manager()

    @property
    def unit_path(self) -> Path:
        return self.unit_dir / UNIT_NAME


def install(unit: Unit, manager: Manager, say: Say) -> None:
    """Make the service's user, hand the agent's folder to it, write the unit, and start it now
    and with the machine. Doing it again replaces the unit and restarts the service.

    Raises ServiceError where the device is not enrolled, or where a step fails.
    """
    if not Home(unit.home).is_enrolled():
        raise ServiceError(
            f"this device is not enrolled ({unit.home} holds no identity): run first"
            f" `genba-agent enroll --home {unit.home} --token TOKEN`, or name the folder of an"
            " enrolled agent with --home"
        )
    _make_user(unit, manager.run)
    _hand_over(unit.home, unit.user)
    write_unit(unit, manager.unit_path)
    manager.run(["systemctl", "daemon-reload"])
    manager.run(["systemctl", "enable", UNIT_NAME])
    # Without waiting: the start is over when the host was first called, whatever it answers.
    manager.run(["systemctl", "restart", "--no-block", UNIT_NAME])
    say(
        f"{manager.unit_path}: the agent runs as {unit.user}, from now on and after every start of"
        " this machine; see `systemctl status genba-agent` and `journalctl -u genba-agent`"
    )


def write_unit(unit: Unit, path: Path) -> None:
    """Write the unit file and nothing else. Raises ServiceError where that fails."""
    try:
        write_atomically(path, unit.text().encode(), mode=0o644)
    except OSError as error:
        raise ServiceError(f"{path} cannot be written: {error.strerror or error}") from error


def uninstall(manager: Manager, say: Say) -> None:
    """Stop the service and remove its unit; the agent's folder and user stay.

    Raises ServiceError where there is no unit, or where a step fails.
    """
    if not manager.unit_path.exists():
        raise ServiceError(f"the agent is no service here: there is no {manager.unit_path}")
    manager.run(["systemctl", "disable", "--now", UNIT_NAME])
    manager.unit_path.unlink(missing_ok=True)
    manager.run(["systemctl", "daemon-reload"])
    say(
        "the service is gone; its folder, with the identity of this device, and its user stay"
        f" (by default {SERVICE_HOME} and {DEFAULT_USER})"
    )


def _make_user(unit: Unit, run: Run) -> None:
    try:
        pwd.getpwnam(unit.user)
    except KeyError as error:
        if unit.user != DEFAULT_USER:
            raise ServiceError(
                f"there is no user {unit.user}: name one that there is, or leave --user out"
            ) from error
        # Neither the folder nor the name can hold a blank.
        run(
            f"useradd --system --user-group --no-create-home --home-dir {unit.home}"
            f" --shell /usr/sbin/nologin {unit.user}".split()
        )


def _hand_over(home: Path, user: str) -> None:
    """Give the folder and all in it to the user: whoever enrolled the device, often root, made it.

    Raises ServiceError where that fails.
    """
    try:
        entry = pwd.getpwnam(user)
        # By open folders and not by paths, and never what a link points to: an earlier service,
        # which may have been taken over, could put links in the way meanwhile.
        for _, folders, files, opened in os.fwalk(home, follow_symlinks=False):
            for name in (".", *folders, *files):
                os.chown(name, entry.pw_uid, entry.pw_gid, dir_fd=opened, follow_symlinks=False)
    except KeyError as error:
        raise ServiceError(f"there is no user {user}, although it was made just now") from error
    except OSError as error:
        raise ServiceError(
            f"{home} cannot be given to {user}: {error.strerror or error}"
        ) from error
