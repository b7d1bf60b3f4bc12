"""A bad network: TCP through a process that delays, starves, holds back, truncates and cuts."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")

READ_BYTES = 16_384
LARGE_BYTES = 500
"""Of what an attached agent sends, only a report is as large; of what it is sent, only a lease and
pieces of models are.
"""
CONTROL_SECONDS = 10.0
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # struct linger of socket(7)


class Lane:
    """One direction of a link. What it holds back is not lost: it comes when it is opened again,
    as TCP would bring it once the cable is back.
    """

    def __init__(self) -> None:
        self.carried_bytes = 0
        self.delay_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.left_bytes: int | None = None  # then the connection is cut, in the middle of what is
        self.trap: Callable[[], None] | None = None  # for the next piece of LARGE_BYTES or more
        self.opened = asyncio.Event()
        self.opened.set()

    async def wait(self, size_bytes: int, jitter: random.Random) -> None:
        """As long as that many bytes take."""
        await self.opened.wait()
        if self.delay_seconds:
            await asyncio.sleep(jitter.uniform(0.5, 1.5) * self.delay_seconds)
        if self.bytes_per_second is not None:
            await asyncio.sleep(size_bytes / self.bytes_per_second)
        await self.opened.wait()

    def admitted(self, data: bytes) -> bytes:
        """What still passes before the cut."""
        if self.trap is not None and len(data) >= LARGE_BYTES:
            sprung, self.trap = self.trap, None
            sprung()
        if self.left_bytes is not None:
            data = data[: self.left_bytes]
            self.left_bytes -= len(data)
        self.carried_bytes += len(data)
        return data

    @property
    def is_cut(self) -> bool:
        return self.left_bytes == 0


class Proxy:
    """Listens on a port of its own and brings every connection to `target_port`.

    `up` goes to the target, `down` comes from it. All methods may be called from any thread.
    """

    def __init__(self, net: "Network", target_port: int, seed: int = 0) -> None:
        self._net = net
        self._jitter = random.Random(seed)
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self.connections = 0
        self.up, self.down, self._server = net.run(self._start())
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _start(self) -> tuple[Lane, Lane, asyncio.Server]:
        return Lane(), Lane(), await asyncio.start_server(self._accept, "127.0.0.1", 0)

    def heal(self) -> None:
        """Be a good network from now on."""

        def mended() -> None:
            self._refusing = False
            for lane in (self.up, self.down):
                lane.delay_seconds, lane.bytes_per_second, lane.left_bytes = 0.0, None, None
                lane.trap = None
                lane.opened.set()

        self._net.call(mended)

    def hold(self, *lanes: Lane) -> None:
        """Carry nothing in these directions, both by default; nobody is told."""

        def held() -> None:
            for lane in lanes or (self.up, self.down):
                lane.opened.clear()

        self._net.call(held)

    def slow(self, *, delay_seconds: float = 0.0, bytes_per_second: float | None = None) -> None:
        """Make both directions late or narrow."""

        def slowed() -> None:
            for lane in (self.up, self.down):
                lane.delay_seconds, lane.bytes_per_second = delay_seconds, bytes_per_second

        self._net.call(slowed)

    def cut_after(self, lane: Lane, size_bytes: int) -> None:
        """Reset the connection once so many more bytes went through that direction."""

        def armed() -> None:
            lane.left_bytes = size_bytes

        self._net.call(armed)

    def truncate_report(self, size_bytes: int) -> None:
        """Let so many bytes of the next report pass, then reset the connection."""
        self._truncate(self.up, size_bytes)

    def truncate_lease(self, size_bytes: int) -> None:
        """Let so many bytes of the next lease pass, then reset the connection."""
        self._truncate(self.down, size_bytes)

    def lose_answer(self) -> None:
        """Let the next report pass, and from then on nothing that comes back."""
        self._net.call(lambda: setattr(self.up, "trap", self.down.opened.clear))

    def cut(self) -> None:
        """Reset all connections."""
        self._net.call(self._cut)

    def close(self) -> None:
        """End all connections in good order."""

        def closed() -> None:
            for writer in self._writers:
                writer.close()

        self._net.call(closed)

    def refuse(self) -> None:
        """Reset all connections, and every new one at once."""

        def refused() -> None:
            self._refusing = True
            self._cut()

        self._net.call(refused)

    def stop(self) -> None:
        async def stopped() -> None:
            self._server.close()
            self._cut()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._net.run(stopped())

    def _truncate(self, lane: Lane, size_bytes: int) -> None:
        def sprung() -> None:
            lane.left_bytes = size_bytes

        self._net.call(lambda: setattr(lane, "trap", sprung))

    def _cut(self) -> None:
        for writer in self._writers:
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            if self._refusing:
                _reset(writer)
                return
            await self._join(reader, writer)
        except asyncio.CancelledError:
            _reset(writer)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            _reset(writer)
            return
        self._writers.add(far_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, self.up)),
            asyncio.create_task(self._pump(far_reader, writer, self.down)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, far_writer):
                end.close()
            self._writers.discard(far_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lane: Lane
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await lane.wait(len(data), self._jitter)
                writer.write(lane.admitted(data))
                await writer.drain()
                if lane.is_cut:
                    lane.left_bytes = None
                    self._cut()
                    return


def _reset(writer: asyncio.StreamWriter) -> None:
    opened = writer.get_extra_info("socket")
    if opened is not None and opened.fileno() >= 0:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()


class Network:
    """The thread in which all proxies of a test run live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CONTROL_SECONDS)

    def call(self, act: Callable[[], None]) -> None:
        """Do it between two steps of the proxies, and return when it is done."""

        async def acted() -> None:
            act()

        self.run(acted())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_SECONDS)
        self._loop.close()
