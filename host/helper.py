"""A process that works for this one, at the other end of a pipe, and ends with it."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

_JOIN_SECONDS = 5.0


class HelperEndedError(Exception):
    """A helper has ended; the text is a clause that says how."""


class Helper:
    """A fresh process that runs `serve` with its end of a pipe; `connection` is the other end.

    `serve` must be picklable, and end with the pipe. Ctrl-C is for whoever has the helper: the
    helper ignores it from its first moment.
    """

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        with _interrupts_ignored():
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def send(self, message: object) -> None:
        """Raises HelperEndedError."""
        try:
            self.connection.send(message)
        except OSError as error:
            raise HelperEndedError(self._how()) from error

    def receive(self) -> Any:
        """Waits for the next message. Raises HelperEndedError."""
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise HelperEndedError(self._how()) from error

    def end(self) -> None:
        """At once, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _how(self) -> str:
        self.process.join(_JOIN_SECONDS)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"its exit code was {code}"
        return f"it was ended by {signal.Signals(-code).name}"


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process that is started meanwhile ignores Ctrl-C: the terminal sends it to all of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
