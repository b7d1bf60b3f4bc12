"""Evaluates reports in a process of its own, beside the one that talks to devices.

Statistics take milliseconds for each report, and Python threads share one core: without it a busy
fleet would wait for them.
"""

import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from host.errors import GenbaError
from host.gateway.checks import MessageError
from host.gateway.evaluation import Arrived, Evaluated, Evaluation
from host.store import Store, StoreError

_log = logging.getLogger("genba.gateway")


class Calculators:
    """One process for each thread that asks; every one reads the store by itself."""

    def __init__(self, place: str | Path, blobs_folder: Path) -> None:
        self._place = place
        self._blobs_folder = blobs_folder
        self._own = threading.local()
        self._lock = threading.Lock()
        self._all: list[_Child] = []

    def evaluated(self, arrived: Arrived) -> Evaluated:
        """As `Evaluation.evaluated`, for any thread.

        Raises MessageError also for a report that twice ends the process that looks at it, and
        StoreError where no process can be started.
        """
        for _ in range(2):
            child = self._child()
            try:
                return child.ask(arrived)
            except (EOFError, OSError):
                _log.warning("the process that evaluates reports has ended and starts anew")
                self._drop()
        raise MessageError("the report cannot be evaluated: it ends the program that tries")

    def close(self) -> None:
        """End all processes; nobody may ask any more."""
        for child in self._all:
            child.close()

    def _child(self) -> "_Child":
        child: _Child | None = getattr(self._own, "child", None)
        if child is None:
            child = self._own.child = _Child(self._place, self._blobs_folder)
            with self._lock:
                self._all.append(child)
        return child

    def _drop(self) -> None:
        child: _Child = self._own.child
        del self._own.child
        with self._lock:
            self._all.remove(child)
        child.close()


class _Child:
    """The other end of a pair of sockets: it ends when this one closes, however that happens."""

    def __init__(self, place: str | Path, blobs_folder: Path) -> None:
        """Returns once it is ready. Raises StoreError where it does not become so."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "host.gateway.calculator", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.send((place, blobs_folder))
            self._connection.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise StoreError("the process that evaluates reports does not start") from error

    def ask(self, arrived: Arrived) -> Evaluated:
        """Raises EOFError or OSError where the process has ended."""
        self._connection.send(arrived)
        answer = self._connection.recv()
        if isinstance(answer, Evaluated):
            return answer
        senseless, sentence = answer
        raise MessageError(sentence) if senseless else StoreError(sentence)

    def close(self) -> None:
        self._connection.close()
        self._process.wait()


def _serve(connection: Connection) -> None:
    place, blobs_folder = connection.recv()
    with Store.open(place, blobs_folder=blobs_folder) as store:
        evaluated = Evaluation(store).evaluated
        connection.send(None)
        while True:
            connection.send(_answer(evaluated, connection.recv()))


def _answer(
    evaluated: Callable[[Arrived], Evaluated], arrived: Arrived
) -> Evaluated | tuple[bool, str]:
    try:
        return evaluated(arrived)
    except GenbaError as error:
        return isinstance(error, MessageError), str(error)


def main() -> None:
    """Evaluate until the gateway has gone."""
    # Whoever ends the gateway may mean all its processes; what was reported is still kept.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with Connection(int(sys.argv[1])) as connection:
        try:
            _serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    main()
