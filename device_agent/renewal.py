"""One lease kept alive by the life of its job, at moments at which no sample is taken."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Callable

from device_agent.errors import AgentError
from device_agent.processes import Cancellation
from device_agent.work import Lease

_BETWEEN_BLOCKS = 1 / 3
# Of a worker that pauses at least once in a third of the lease, the thread sees nothing due.
_ANYWAY = 2 / 3
# Longer than a call may take.
_JOIN_SECONDS = 10.0


class Renewal:
    """Renews between blocks once a third of the lease is over; from a thread, for what never
    pauses, once two thirds are. It is the Attention of one job.

    A lease that cannot be renewed only means that the host may give the job away; the outcome
    counts all the same if it comes first.
    """

    def __init__(
        self,
        renew: Callable[[str], bool],
        lease: Lease,
        cancellation: Cancellation,
        alive: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`renew` takes the lease's id, raises AgentError and says whether to cancel the job."""
        self._renew = renew
        self._lease = lease
        self._cancellation = cancellation
        self._alive = alive
        self._clock = clock
        self._tried = clock()
        # Held while a call is on its way, so that no block begins before it has come back.
        self._calling = threading.Lock()
        self._over = False

    def alive(self) -> None:
        """Pass the sign of life on."""
        self._alive()

    def between_blocks(self) -> None:
        """Renew where it is due; takes as long as `renew` at most."""
        self.renew_after(_BETWEEN_BLOCKS)

    def renew_after(self, share: float) -> None:
        """Renew where that share of the lease is over since the last try."""
        with self._calling:
            if self._over or self._left_seconds(share) > 0:
                return
            self._tried = self._clock()
            with contextlib.suppress(AgentError):
                if self._renew(self._lease.id):
                    self._cancellation.request()

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Let the thread watch over the lease while the body works."""
        done = threading.Event()

        def watch_over() -> None:
            while not done.wait(max(0.0, self._left_seconds(_ANYWAY))):
                self.renew_after(_ANYWAY)

        thread = threading.Thread(target=watch_over, name="renewal", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over = True
            done.set()
            thread.join(_JOIN_SECONDS)

    def _left_seconds(self, share: float) -> float:
        return self._tried + share * self._lease.seconds - self._clock()
