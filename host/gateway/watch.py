"""Tells connected devices when to claim, stop or go, from what stands in the store."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from host.store import Queue, Store, StoreError

POLL_SECONDS = 0.2
REMIND_SECONDS = 1.0
SEEN_SECONDS = 10.0

_log = logging.getLogger("genba.gateway")


@dataclass(frozen=True)
class WatchEvent:
    """`drain` says that the gateway stops; `cancel` names the job to stop."""

    kind: Literal["job_ready", "cancel", "drain"]
    job_id: str = ""


class FleetWatch:
    """Looks into the store for all connected devices at once.

    Jobs come from other processes too, so it polls. A device that works is left in peace: a
    message would disturb what it measures, and it claims again by itself.
    """

    def __init__(self, store: Store, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._watchers: Counter[str] = Counter()
        self._sessions: dict[str, str] = {}
        self._queues: Mapping[str, Queue] | None = None
        self._polled = asyncio.Condition()
        self._draining = False

    def open_session(self, device_id: str, session_id: str) -> None:
        """From now on only this session of the device counts."""
        self._sessions[device_id] = session_id

    def is_superseded(self, device_id: str, session_id: str) -> bool:
        """Whether the device has opened another session since."""
        return self._sessions.get(device_id, session_id) != session_id

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        next_seen = loop.time()
        while True:
            if self._watchers:
                try:
                    self._queues = await asyncio.to_thread(self._store.jobs.queues)
                    if loop.time() >= next_seen:
                        await asyncio.to_thread(self._store.devices.seen, *self._watchers)
                        next_seen = loop.time() + SEEN_SECONDS
                except StoreError as error:
                    _log.error("%s; trying again", error)
            async with self._polled:
                self._polled.notify_all()
            await asyncio.sleep(self._poll_seconds)

    async def drain(self) -> None:
        """Tell every device to finish and go; their watches end."""
        self._draining = True
        async with self._polled:
            self._polled.notify_all()

    async def events(self, device_id: str, session_id: str) -> AsyncGenerator[WatchEvent]:
        """The events of a device, until it is removed or opens another session."""
        self._watchers[device_id] += 1
        try:
            async with aclosing(self._events(device_id, session_id)) as events:
                async for event in events:
                    yield event
        finally:
            self._watchers[device_id] -= 1
            self._watchers += Counter()  # drops those at zero

    async def _events(self, device_id: str, session_id: str) -> AsyncGenerator[WatchEvent]:
        loop = asyncio.get_running_loop()
        told_to_stop: set[str] = set()
        next_reminder = loop.time()
        while not self._draining:
            await self._next_poll()
            queue = self._queues.get(device_id) if self._queues is not None else Queue()
            if queue is None or self.is_superseded(device_id, session_id):
                return
            for job_id in queue.stopped_job_ids:
                if job_id not in told_to_stop:
                    told_to_stop.add(job_id)
                    yield WatchEvent("cancel", job_id)
            if queue.waiting and not queue.working and loop.time() >= next_reminder:
                next_reminder = loop.time() + REMIND_SECONDS
                yield WatchEvent("job_ready")
        yield WatchEvent("drain")

    async def _next_poll(self) -> None:
        async with self._polled:
            if not self._draining:
                await self._polled.wait()
