"""Runs one command inside a root filesystem, in a mount namespace of its own: when it ends nothing
stays mounted.

    unshare --mount [--net] python entering.py SETTINGS-AS-JSON

The process becomes the command, so its pid and its exit status are the command's.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_PER_LINUX32 = 0x0008  # personality(2): uname says i686 under a 64-bit kernel


def enter(settings: dict[str, Any]) -> None:
    """`root`, `binds` (target in the root: source), `personality32`, `environment`, `command`."""
    root = Path(settings["root"])
    _mount("--bind", str(root), str(root))
    _mount("-t", "proc", "proc", str(root / "proc"))
    _mount("--bind", "/sys", str(root / "sys"))
    _mount("-t", "tmpfs", "tmpfs", str(root / "dev/shm"))
    for target, source in settings["binds"].items():
        _mount("--bind", source, f"{root}{target}")
    if settings["personality32"] and ctypes.CDLL(None).personality(_PER_LINUX32) < 0:
        raise OSError("this kernel has no 32-bit personality")
    os.chroot(root)
    os.chdir("/")
    os.execve(settings["command"][0], settings["command"], settings["environment"])


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
