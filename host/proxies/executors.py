"""Where scores are computed: in this process, in a pool of processes, or in Ray.

All of them give the same numbers: a score is a function of its work alone, computed in one thread.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Literal, Protocol

from host.errors import GenbaError, UsageError
from host.helper import Helper, HelperEndedError
from host.proxies.work import NO_BATCH, Batch, Scores, Work, compute

if TYPE_CHECKING:
    from ray import ObjectRef

ExecutorName = Literal["local", "ray"]
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""For the batches of images; what does not fit goes to disk."""
_WORKS_PER_PROCESS = 2
"""So many are with Ray at a time: one computes, the next waits."""


class ScoringError(GenbaError):
    """A network could not be scored."""


class WorkerCrashedError(ScoringError):
    """A process ended while it scored a network."""


class Executor(Protocol):
    """Computes works, several at a time where it can."""

    def run(self, works: Iterable[Work]) -> Iterator[tuple[Work, Scores]]:
        """Each work with its scores, in whatever order they come.

        Works of one batch should follow each other. Raises UsageError where a batch does not suit
        a network, ScoringError, and WorkerCrashedError.
        """
        ...

    def close(self) -> None:
        """End it at once, whatever it is computing."""
        ...


class InProcess:
    """Computes one work after the other, here."""

    def run(self, works: Iterable[Work]) -> Iterator[tuple[Work, Scores]]:
        for work in works:
            yield work, _taken(work, _attempt(work))

    def close(self) -> None:
        """Nothing runs between two works."""


class LocalPool:
    """Processes of this machine, started with the first work; each computes one work at a time."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._workers: list[_Worker] = []

    def run(self, works: Iterable[Work]) -> Iterator[tuple[Work, Scores]]:
        waiting = iter(works)
        busy: dict[Connection, tuple[_Worker, Work]] = {}

        def feed(worker: _Worker) -> None:
            work = next(waiting, None)
            if work is not None:
                worker.send(work)
                busy[worker.connection] = worker, work

        for place in range(self._processes):
            if place == len(self._workers):
                self._workers.append(_Worker())
            feed(self._workers[place])
            if len(busy) <= place:  # fewer works than processes
                break
        try:
            while busy:
                for connection in wait(list(busy)):
                    worker, work = busy.pop(connection)  # type: ignore[call-overload]
                    scores = _taken(work, worker.receive(work))
                    feed(worker)
                    yield work, scores
        finally:
            if busy:  # whoever computes still would answer the next run
                self.close()

    def close(self) -> None:
        """Kill the processes: they hold nothing that would be lost."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()


class RayExecutor:
    """A Ray of its own on this machine, without dashboard and without usage statistics."""

    def __init__(self, processes: int) -> None:
        """Raises UsageError where Ray is not installed."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "--executor ray needs Ray: install genba[ray], or use --executor local"
            ) from error
        self._ray = ray
        self._most = _WORKS_PER_PROCESS * processes
        self._batch: tuple[Batch, ObjectRef[Batch]] | None = None
        ray.init(
            address="local",
            num_cpus=processes,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        self._remote: Any = ray.remote(num_cpus=1, max_retries=0)(_attempt_with)

    def run(self, works: Iterable[Work]) -> Iterator[tuple[Work, Scores]]:
        waiting = iter(works)
        busy: dict[Any, Work] = {}
        while True:
            while len(busy) < self._most and (work := next(waiting, None)) is not None:
                bare = replace(work, batch=NO_BATCH)
                busy[self._remote.remote(bare, self._shared(work.batch))] = work
            if not busy:
                return
            (done, *_), _ = self._ray.wait(list(busy), num_returns=1)
            work = busy.pop(done)
            try:
                answer = self._ray.get(done)
            except self._ray.exceptions.RayTaskError:
                raise  # by what no work should raise: its traceback says where
            except self._ray.exceptions.RayError as error:
                first = str(error).strip().splitlines()[0]
                raise WorkerCrashedError(_crashed(work, f"Ray says: {first}")) from error
            yield work, _taken(work, answer)

    def close(self) -> None:
        """Stop this Ray, with all of its processes."""
        self._ray.shutdown()

    def _shared(self, batch: Batch) -> "ObjectRef[Batch]":
        """The batch in Ray's object store, put there once for the works that follow each other."""
        if self._batch is None or self._batch[0] is not batch:
            self._batch = batch, self._ray.put(batch)
        return self._batch[1]


@contextmanager
def executor(name: ExecutorName, processes: int) -> Iterator[Executor]:
    """An executor with so many processes, ended in the end; a pool of one is this process.

    Raises UsageError where Ray is not installed.
    """
    made: Executor
    if name == "ray":
        made = RayExecutor(processes)
    else:
        made = LocalPool(processes) if processes > 1 else InProcess()
    try:
        yield made
    finally:
        made.close()


def usable_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class _Failed:
    """Why a work has no scores, as it travels between processes."""

    sentence: str
    usage: bool


_Answer = Scores | _Failed


def _attempt(work: Work) -> _Answer:
    """The scores, or why there are none: many exceptions do not survive the way to a process."""
    try:
        return compute(work)
    except UsageError as error:
        return _Failed(str(error), usage=True)
    except (ArithmeticError, GenbaError, LookupError, MemoryError, RuntimeError, ValueError) as why:
        first = (str(why).strip() or type(why).__name__).splitlines()[0]
        return _Failed(first, usage=False)


def _attempt_with(work: Work, batch: Batch) -> _Answer:
    return _attempt(replace(work, batch=batch))


def _taken(work: Work, answer: _Answer) -> Scores:
    """The scores. Raises UsageError and ScoringError."""
    if not isinstance(answer, _Failed):
        return answer
    sentence = f"{work.name}: {answer.sentence}"
    if answer.usage:
        raise UsageError(sentence)
    raise ScoringError(f"{sentence} (while scoring it by {', '.join(work.proxies)})")


class _Worker:
    """A process that computes works, and remembers the batch that it was sent last."""

    def __init__(self) -> None:
        self.process = Helper(_serve)
        self._batch: Batch | None = None

    @property
    def connection(self) -> Connection:
        return self.process.connection

    def send(self, work: Work) -> None:
        """Raises WorkerCrashedError where nobody is there any more."""
        batch = None if work.batch is self._batch else work.batch
        try:
            self.process.send((replace(work, batch=NO_BATCH), batch))
        except HelperEndedError as error:
            raise WorkerCrashedError(_crashed(work, str(error))) from error
        self._batch = work.batch

    def receive(self, work: Work) -> _Answer:
        """Raises WorkerCrashedError."""
        try:
            answer: _Answer = self.process.receive()
        except HelperEndedError as error:
            raise WorkerCrashedError(_crashed(work, str(error))) from error
        return answer

    def end(self) -> None:
        self.process.end()


def _serve(connection: Connection) -> None:
    """Compute works until the pipe ends: with the pool, or with whoever had it."""
    batch = NO_BATCH
    with suppress(EOFError, ConnectionError):
        while True:
            work, fresh = connection.recv()
            batch = fresh or batch
            connection.send(_attempt_with(work, batch))


def _crashed(work: Work, how: str) -> str:
    return (
        f"a process ended while it scored {work.name} ({how}): if memory ran out, use fewer "
        "--processes, a smaller --batch-size or --resolution; the same command goes on"
    )
