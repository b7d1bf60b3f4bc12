"""One job at a time on one machine, however many agents work there."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Callable

# An abstract socket: the kernel forgets it with the process that holds it (unix(7)).
_NAME = "\0genba-agent-job"
_LOOK_SECONDS = 1.0


@contextlib.contextmanager
def machine_turn(pause: Callable[[float], None]) -> Iterator[None]:
    """Hold this machine for one job: two that ran at once would disturb each other.

    Waits by `pause`, which may raise to give up.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        while True:
            try:
                lock.bind(_NAME)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            pause(_LOOK_SECONDS)
        yield
