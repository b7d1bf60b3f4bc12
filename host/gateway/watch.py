"""Tells connected devices when to claim, stop or go, from what stands in the store."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal

from host.device import Device
from host.gateway.callers import Callers
from host.gateway.ledger import Ledger
from host.store import Caller, RollCall, Store, StoreError

POLL_SECONDS = 0.1
CHECK_SECONDS = 0.3
REMIND_SECONDS = 1.0
SEEN_SECONDS = 10.0

_log = logging.getLogger("genba.gateway")


@dataclass(frozen=True)
class WatchEvent:
    """`drain` says that the gateway stops; `cancel` names the job to stop."""

    kind: Literal["job_ready", "cancel", "drain"]
    job_id: str = ""


@dataclass
class _Watcher:
    """One device that listens. What was read from the store before `since` is news no more."""

    device_id: str
    caller: Caller
    since: int
    events: deque[WatchEvent] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    told_to_stop: frozenset[str] = frozenset()
    next_reminder: float = 0.0

    def tell(self, event: WatchEvent) -> None:
        if event not in self.events:  # it may read slowly
            self.events.append(event)
            self.woken.set()

    def end(self) -> None:
        self.ended = True
        self.woken.set()


class FleetWatch:
    """Looks into the store for all connected devices at once, and wakes those concerned.

    Jobs come from other processes too, so it polls. A device that works is left in peace: a
    message would disturb what it measures, and it claims again by itself.
    """

    def __init__(
        self, store: Store, ledger: Ledger, callers: Callers, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._callers = callers
        self._poll_seconds = poll_seconds
        self._watchers: dict[str, _Watcher] = {}
        self._concerned: frozenset[str] = frozenset()  # the devices that the last roll call named
        self._reading = 0  # the number of the last look into the store that was begun
        self.draining = False

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        next_seen = next_check = loop.time()
        while True:
            if self._watchers:
                try:
                    if loop.time() >= next_check:
                        next_check = loop.time() + CHECK_SECONDS
                        await self._check_callers()
                    await self._call_the_roll()
                    if loop.time() >= next_seen:
                        await self._ledger.write(self._store.devices.seen, *self._watchers)
                        next_seen = loop.time() + SEEN_SECONDS
                except StoreError as error:
                    _log.error("%s; trying again", error)
            await asyncio.sleep(self._poll_seconds)

    def drain(self) -> None:
        """Tell every device to finish and go; their watches end."""
        self.draining = True
        for watcher in self._watchers.values():
            watcher.tell(WatchEvent("drain"))
            watcher.end()

    def settled(self, device_id: str) -> None:
        """The device has just been told all that waits for it: it claimed."""
        watcher = self._watchers.get(device_id)
        if watcher is not None:
            watcher.since = self._reading
            watcher.next_reminder = 0.0

    async def events(self, device: Device, session_id: str) -> AsyncGenerator[WatchEvent]:
        """The events of a device, until it may not connect any more, opens another session or
        watches anew.
        """
        if self.draining:
            yield WatchEvent("drain")
            return
        caller = Caller(device.spki_sha256, session_id)
        watcher = _Watcher(device.id, caller, self._reading)
        earlier = self._watchers.get(device.id)
        if earlier is not None:
            earlier.end()  # its connection broke, and only the device knows so far
        self._watchers[device.id] = watcher
        try:
            while True:
                await watcher.woken.wait()
                watcher.woken.clear()
                while watcher.events:
                    yield watcher.events.popleft()
                if watcher.ended:
                    return
        finally:
            if self._watchers.get(device.id) is watcher:
                del self._watchers[device.id]

    async def _check_callers(self) -> None:
        """End the watches of devices that may not connect any more or went to another session."""
        now = asyncio.get_running_loop().time()
        self._reading += 1
        callers = await self._ledger.read(self._store.jobs.callers)
        self._callers.compare(callers, now)
        for watcher in self._watchers.values():
            known = callers.get(watcher.device_id)
            if watcher.since < self._reading and known != watcher.caller:
                watcher.end()

    async def _call_the_roll(self) -> None:
        now = asyncio.get_running_loop().time()
        self._reading += 1
        roll = await self._ledger.read(self._store.jobs.roll_call)
        concerned = roll.to_claim | roll.to_stop.keys()
        for device_id in concerned | self._concerned:
            watcher = self._watchers.get(device_id)
            if watcher is None:
                continue
            if watcher.since < self._reading:
                self._tell(watcher, roll, now)
            else:
                concerned |= {device_id}
        self._concerned = concerned

    def _tell(self, watcher: _Watcher, roll: RollCall, now: float) -> None:
        to_stop = roll.to_stop.get(watcher.device_id, ())
        for job_id in to_stop:
            if job_id not in watcher.told_to_stop:
                watcher.tell(WatchEvent("cancel", job_id))
        watcher.told_to_stop = frozenset(to_stop)
        if watcher.device_id not in roll.to_claim:
            watcher.next_reminder = 0.0
        elif now >= watcher.next_reminder:
            watcher.next_reminder = now + REMIND_SECONDS
            watcher.tell(WatchEvent("job_ready"))
