"""The gateway's threads, and the one of them that writes into the store."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from host.errors import GenbaError
from host.job import Lease
from host.store import Act, Answer, Claim, Renewal, Report, Store, StoreError

MAX_ACTS = 100
"""In one transaction: what it holds locked, and how long a device waits for its answer."""
GATHER_SECONDS = 0.02
"""How long acts gather. A transaction of one costs nearly as much as one of ten."""
READERS = 4
P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger("genba.gateway")


class Ledger:
    """What devices do, written in order by one thread; for one event loop.

    Acts gather for a moment, and while a transaction waits for the disk, and go into the next one
    together: the fuller the house, the less for each. Nothing is answered before it is on the disk.
    """

    def __init__(self, store: Store, calculators: int = 1) -> None:
        """`calculators` is how many things that take long are done at once."""
        self._store = store
        self._writer = ThreadPoolExecutor(1, "genba-writer")
        self._readers = ThreadPoolExecutor(READERS, "genba-reader")
        self._calculators = ThreadPoolExecutor(calculators, "genba-calculator")
        self._waiting: deque[tuple[Act, asyncio.Future[Answer]]] = deque()
        self._settling: asyncio.Task[None] | None = None

    async def claim(self, claim: Claim) -> Lease | None:
        """As `Jobs.claim`."""
        return cast("Lease | None", await self._do(claim))

    async def renew(self, renewal: Renewal) -> bool:
        """As `Jobs.renew`."""
        return bool(await self._do(renewal))

    async def report(self, report: Report) -> bool:
        """As `Jobs.report`."""
        return bool(await self._do(report))

    async def write(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what writes into the store by itself; not beside other writing of this gateway."""
        return await _in(self._writer, partial(do, *args, **kwargs))

    async def read(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what waits for the store or for files."""
        return await _in(self._readers, partial(do, *args, **kwargs))

    async def calculate(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what takes long: no more of it at once than the gateway can do beside the rest."""
        return await _in(self._calculators, partial(do, *args, **kwargs))

    def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        for threads in (self._calculators, self._readers, self._writer):
            threads.shutdown()

    async def _do(self, act: Act) -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((act, answered))
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())
        answer = await answered
        if isinstance(answer, GenbaError):
            raise answer
        return answer

    async def _settle(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            several = [self._waiting.popleft() for _ in range(min(MAX_ACTS, len(self._waiting)))]
            acts = [act for act, _ in several]
            answers: list[Any]
            try:
                answers = await self.write(self._store.jobs.settle, acts)
            except GenbaError as error:
                answers = [error] * len(acts)
            except Exception as error:  # noqa: BLE001 - else callers would wait for ever
                _log.exception("the gateway could not keep %d acts of devices", len(acts))
                answers = [StoreError(f"the gateway failed at this ({error!r})")] * len(acts)
            for (_, answered), answer in zip(several, answers, strict=True):
                if not answered.done():  # cancelled by whoever no longer waits
                    answered.set_result(answer)


async def _in(threads: ThreadPoolExecutor, do: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, do)
