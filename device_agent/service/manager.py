"""What the agent tells the service manager that started it.

The protocol is that of sd_notify(3): lines of NAME=VALUE in one datagram to the socket that
$NOTIFY_SOCKET names.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Callable

_WATCHDOG_VARIABLES = ("WATCHDOG_USEC", "WATCHDOG_PID")
# Half of the time would be enough (sd_watchdog_enabled(3)); a third leaves room for a slow card.
_SIGNS_PER_WATCHDOG = 3.0
# A manager that does not read its socket must not stop the agent.
_SEND_SECONDS = 1.0


class ServiceManager:
    """Tells whoever started this process how it fares; says nothing where nobody asked."""

    def __init__(
        self,
        address: str | None = None,
        watchdog_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`address` is a path, or a name after "@" for an abstract socket; with
        `watchdog_seconds` the manager restarts a process that was not heard of for so long.
        """
        self._address = address
        self._clock = clock
        self._interval = (
            None if watchdog_seconds is None else watchdog_seconds / _SIGNS_PER_WATCHDOG
        )
        self._next_sign = clock()

    @staticmethod
    def from_environment(
        environ: MutableMapping[str, str] = os.environ,
        pid: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> ServiceManager:
        """The manager that the environment names, if any.

        Takes the variables out of the environment: a worker must not speak for the agent. Values
        that make no sense count as absent, as a process without a manager is still of use.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, watched = (environ.pop(name, "") for name in _WATCHDOG_VARIABLES)
        own_pid = str(os.getpid() if pid is None else pid)
        seconds = None
        if usec.isdecimal() and int(usec) > 0 and watched in ("", own_pid):
            seconds = int(usec) / 1e6
        return ServiceManager(address if address[:1] in ("/", "@") else None, seconds, clock)

    def ready(self) -> None:
        """The start is over."""
        self._send("READY=1")

    def alive(self) -> None:
        """The work goes on. May be called at any rate: a third of the watchdog's time passes
        between two signs, and nothing is sent where there is no watchdog.
        """
        if self._interval is None or self._clock() < self._next_sign:
            return
        self._next_sign = self._clock() + self._interval
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line about what goes on, for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if self._address is None:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        # A manager that is gone or does not listen cannot be told, and nobody else need know.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.settimeout(_SEND_SECONDS)
            channel.sendto(state.encode(), address)
