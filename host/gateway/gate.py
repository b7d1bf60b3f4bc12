"""Back-pressure: so many at once, the others in order, and nobody where too many wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from host.errors import GenbaError


class BusyError(GenbaError):
    """Too many ask for the same at once; it will pass."""


@dataclass(frozen=True)
class Bounds:
    """How many may be inside, how many may wait and with how many bytes in their hands, and how
    many of both may be of one caller.
    """

    inside: int
    waiting: int
    waiting_bytes: int
    of_one: int


class Gate:
    """Bounds what the gateway does at once of one kind; for one event loop."""

    def __init__(self, what: str, bounds: Bounds) -> None:
        """`what` says in the plural what passes here."""
        self._what = what
        self._bounds = bounds
        self._free = asyncio.Semaphore(bounds.inside)  # first come, first served
        self._waiting = 0
        self._waiting_bytes = 0
        self._of: Counter[str] = Counter()

    @asynccontextmanager
    async def pass_through(self, caller: str, size_bytes: int = 0) -> AsyncIterator[None]:
        """Be inside, after a wait in the line. Raises BusyError at once where the line is full, or
        the caller has too many in it.
        """
        if self._of[caller] >= self._bounds.of_one:
            raise BusyError(f"this device has {self._of[caller]} {self._what} under way already")
        self._of[caller] += 1
        try:
            await self._stand_in_line(size_bytes)
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

    async def _stand_in_line(self, size_bytes: int) -> None:
        if self._free.locked() and (
            self._waiting >= self._bounds.waiting
            or self._waiting_bytes + size_bytes > self._bounds.waiting_bytes
        ):
            raise BusyError(
                f"the host is busy: {self._waiting} {self._what} wait already; try again later"
            )
        self._waiting += 1
        self._waiting_bytes += size_bytes
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size_bytes
