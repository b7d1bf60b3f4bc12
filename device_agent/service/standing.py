"""As whom the agent runs, and from which Python."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

import device_agent
from device_agent.errors import AgentError


class ServiceError(AgentError):
    """The agent cannot be a service as things are."""


@dataclass(frozen=True)
class Interpreter:
    """The Python that is to run the agent: its executable, its environment's folder, and all that
    must be readable for it.
    """

    executable: Path
    prefix: Path
    needed: tuple[Path, ...]

    @staticmethod
    def running() -> Interpreter:
        """The one of this process. Its executable is a relative path where Python does not know."""
        package = Path(device_agent.__file__).parent
        return Interpreter(
            Path(sys.executable), Path(sys.prefix), (Path(sys.base_prefix).resolve(), package)
        )


def act_as_owner_of(home: Path, interpreter: Interpreter) -> None:
    """Where root works on the folder of another user, be that user from here on, for good: what
    root wrote there, such as a new key, the service could not read.

    Raises ServiceError where that user cannot read the agent itself.
    """
    if os.geteuid() != 0 or not home.exists():
        return
    owner = home.stat()
    if owner.st_uid == 0:
        return
    try:
        groups = os.getgrouplist(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:
        groups = [owner.st_gid]
    os.setgroups(groups)
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
    for path in (interpreter.executable, *interpreter.needed):
        if not os.access(path, os.R_OK):
            raise ServiceError(
                f"the owner of {home} (user {owner.st_uid}) cannot read {path}: install the agent"
                " where that user can, for example below /opt"
            )
