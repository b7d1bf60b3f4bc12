"""Files of the kernel that hold one value each."""

from __future__ import annotations

import os
from pathlib import Path

from device_agent.errors import SensorUnavailableError


def read_text(path: Path) -> str:
    """The value without the line's end. Raises SensorUnavailableError with the reason."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except PermissionError as error:
        raise NoPermissionError(path) from error
    except OSError as error:
        # A driver whose chip does not answer fails at the read, not at the open.
        raise SensorUnavailableError(f"{path} cannot be read ({error.strerror})") from error


def read_integer(path: Path) -> int:
    """Raises SensorUnavailableError where the file cannot be read or holds no whole number."""
    text = read_text(path)
    try:
        return int(text)
    except ValueError as error:
        raise SensorUnavailableError(f"{path} holds no number ({text[:20]!r})") from error


def is_there(path: Path) -> bool:
    """Whether the file is there; one in a folder that is closed to the agent's user is not."""
    # Path.exists raises where a folder on the way is closed.
    return os.access(path, os.F_OK)


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in order of name; nothing where it is missing.

    Raises SensorUnavailableError where it may not be listed.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SensorUnavailableError(f"{folder} cannot be listed ({error.strerror})") from error


class NoPermissionError(SensorUnavailableError):
    """The user of the agent may not read a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"no permission to read {path}: give the agent's user read access to it")
        self.path = path
